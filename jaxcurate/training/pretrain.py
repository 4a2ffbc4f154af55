"""Many small runs at once: the same steps of an objective for every (subset, seed) pair.

The file reads from top to bottom: one training step, and the loop over groups of runs.
The batches of a run are in ``runs.py``, the features of its encoder in ``features.py``. Runs, not
batches, are split over the devices: each device trains ``runs_per_device`` runs at a time, so
that no step waits for another device.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcurate.checks import InputError
from jaxcurate.runtime.devices import ROWS, SAME, Devices, fetch, padded_size
from jaxcurate.training.augment import crops_of
from jaxcurate.training.config import PretrainConfig
from jaxcurate.training.objectives.base import LOSS_KEY, Batch, Outcome, Variables
from jaxcurate.training.optimizer import optimizer
from jaxcurate.training.runs import Run, batches_of, check_runs

Params = dict[str, Any]
"""Weights of the encoders as nested dictionaries; every leaf is ``[n_runs, ...]``."""
Progress = Callable[[int, int], None]
"""Function called with the numbers of steps done and of all steps, over all runs."""

STEPS_PER_CALL = 25
"""Number of steps in one compiled call: enough to hide its cost, few enough to show progress."""
_ROWS_SHOWN = 8
"""Largest number of rows of a batch that an error names."""
_ROW_MULTIPLE = 1024
"""Multiple that the number of images on a device is padded to."""


class Pretrained(NamedTuple):
    """Encoders after pretraining, stacked over runs."""

    params: Params
    """Weights of the encoders."""
    losses: np.ndarray
    """Loss of each run at every step, float32 ``[n_runs, n_steps]``."""


class _State(NamedTuple):
    """State that a run carries from step to step."""

    variables: Variables
    opt_state: Any


def _start(seeds: jax.Array, *, axis_name: str | None, settings: PretrainConfig) -> _State:
    """Returns the initial weights of one run for each of the seeds, uint32 ``[r]``."""

    def start(seed: jax.Array) -> _State:
        variables = settings.objective.chosen.init(settings.network, jax.random.key(seed))
        return _State(variables, optimizer(settings).init(variables.params))

    return jax.vmap(start)(seeds)


def _train(
    state: _State,
    seeds: jax.Array,
    batches: jax.Array,
    items: jax.Array,
    first: jax.Array,
    n: jax.Array,
    *,
    axis_name: str | None,
    settings: PretrainConfig,
) -> tuple[_State, jax.Array]:
    """Makes steps ``first`` to ``first + n - 1`` of the runs that this device holds.

    Args:
        state: the state of ``r`` runs, stacked.
        seeds: the seeds of the runs, uint32 ``[r]``.
        batches: rows of ``items``, int32 ``[r, STEPS_PER_CALL, b]``; the first ``n`` are used.
        items: pictures, uint8 ``[m, s, s, 3]``, or texts, int32 ``[m, n_tokens]``.
        first: the number of steps that were made before.
        n: the number of steps to make.
        axis_name: unused, because runs do not communicate.
        settings: the settings of the comparison.

    Returns:
        The new state and the losses, float32 ``[r, STEPS_PER_CALL]``.
    """

    objective, model = settings.objective.chosen, settings.network
    crops = objective.crops(settings.model) if objective.kind == "picture" else ()

    def train_one(state: _State, seed: jax.Array, batches: jax.Array) -> tuple[_State, jax.Array]:
        def step(i: jax.Array, carry: tuple[_State, jax.Array]) -> tuple[_State, jax.Array]:
            ((params, extra), opt_state), losses = carry
            # The key depends on seed and step alone, so that all arms see the same randomness.
            key = jax.random.fold_in(jax.random.key(seed), first + i + 1)
            loss_key = jax.random.fold_in(key, LOSS_KEY)
            done = (first + i) / settings.n_steps
            rows = batches[i]
            taken = items[rows]
            is_text = objective.kind == "text"
            views = (taken,) if is_text else crops_of(key, taken, crops, settings.augmentation)
            batch = Batch(views, rows)

            def loss(params: Any) -> tuple[jax.Array, Outcome]:
                outcome = objective.loss(model, Variables(params, extra), batch, loss_key, done)
                return outcome.loss, outcome

            (_, outcome), gradient = jax.value_and_grad(loss, has_aux=True)(params)
            update, opt_state = optimizer(settings).update(gradient, opt_state, params)
            params = optax.apply_updates(params, update)
            extra = objective.after_step(model, Variables(params, extra), outcome.aux, done)
            state = _State(Variables(params, extra), opt_state)
            return state, losses.at[i].set(outcome.loss)

        losses = jnp.zeros(STEPS_PER_CALL, jnp.float32)
        return jax.lax.fori_loop(0, n, step, (state, losses))

    return jax.vmap(train_one)(state, seeds, batches)


def _same(x: jax.Array, *, axis_name: str | None) -> jax.Array:
    return x


def pretrain(
    items: np.ndarray,
    runs: Sequence[Run],
    settings: PretrainConfig,
    *,
    devices: Devices | None = None,
    progress: Progress | None = None,
) -> Pretrained:
    """Pretrains one encoder for each run, all with the same settings.

    Runs with the same seed start from the same weights, and at each step apply the same random
    changes to the images at each position of the batch, whatever their rows. Differences between
    runs with the same seed are therefore paired.

    Args:
        items: pictures, uint8 ``[n, s, s, 3]``, or token ids of texts, int32 ``[n, n_tokens]``,
            as an array or a memmap, of which only the rows of the runs are read.
        runs: the rows and the seed of each run.
        settings: the settings of all runs.
        devices: the devices over which the runs are split; all by default.
        progress: called after every few steps.

    Returns:
        The encoders in the order of ``runs``, and their losses.

    Raises:
        InputError: items or rows do not fit, or a loss is not finite.

    Examples:
        >>> import jaxcurate as jc
        >>> from jaxcurate.models import ViTConfig
        >>> model = ViTConfig(image_size=8, patch_size=8, width=8, depth=1, n_heads=1)
        >>> settings = PretrainConfig(model, n_steps=2, batch_size=4, runs_per_device=1)
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
        >>> runs = [Run(np.arange(20), seed=0)]
        >>> trained = pretrain(images, runs, settings, devices=jc.Devices.first(1))
        >>> trained.losses.shape
        (1, 2)
    """
    devices = Devices.all() if devices is None else devices
    check_items(items, settings)
    check_runs(runs, len(items), settings.n_steps, settings.batch_size)
    placed = place_items(items, runs, devices=devices)
    n_together = devices.count * settings.runs_per_device
    done = []
    for first_run in range(0, len(runs), n_together):

        def report(n_made: int, first_run: int = first_run) -> None:
            if progress is not None:
                progress(first_run * settings.n_steps + n_made, len(runs) * settings.n_steps)

        group = runs[first_run : first_run + n_together]
        names = [f"run {first_run + i} (seed {run.seed})" for i, run in enumerate(group)]
        done.append(
            pretrain_group(placed, group, settings, devices=devices, progress=report, names=names)
        )
    params, losses = zip(*done, strict=True)
    return Pretrained(
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *params), np.concatenate(losses)
    )


class Placed(NamedTuple):
    """Items that runs train on, on every device."""

    rows: np.ndarray
    """Rows that the runs use, int64 ``[m]``, sorted."""
    items: jax.Array
    """Items of these rows, and padding: uint8 ``[m, s, s, 3]`` or int32 ``[m, n_tokens]``."""


def place_items(items: np.ndarray, runs: Sequence[Run], *, devices: Devices) -> Placed:
    """Returns the items of all rows that runs use, on every device.

    Args:
        items: pictures, uint8 ``[n, s, s, 3]``, or token ids, int32 ``[n, n_tokens]``, as an array
            or a memmap.
        runs: the rows and the seed of each run, which :func:`check_runs` accepts.
        devices: the devices.
    """
    used = np.unique(np.concatenate([np.asarray(run.rows) for run in runs]))
    # Padding lets subsets of nearly the same size share one compiled function.
    kept = np.zeros((padded_size(len(used), _ROW_MULTIPLE), *items.shape[1:]), items.dtype)
    kept[: len(used)] = items[used]
    return Placed(used, devices.spmd(_same, (SAME,), SAME)(kept))


def pretrain_group(
    placed: Placed,
    group: Sequence[Run],
    settings: PretrainConfig,
    *,
    devices: Devices,
    progress: Callable[[int], None],
    names: Sequence[str],
) -> Pretrained:
    """Pretrains as many runs as the devices train at the same time, or fewer.

    A run gives the same bits in any group.

    Args:
        placed: the items of at least these runs.
        group: at least one run and at most ``devices.count * settings.runs_per_device``.
        settings: the settings of all runs.
        devices: the devices over which the runs are split.
        progress: called after every few steps with the number of steps done, over all runs.
        names: the name of each run in errors.

    Returns:
        The encoders in the order of ``group``, and their losses.

    Raises:
        InputError: a loss is not finite.
    """
    start = devices.spmd(_start, (ROWS,), ROWS, settings=settings)
    train = devices.spmd(
        _train, (ROWS, ROWS, ROWS, SAME, SAME, SAME), (ROWS, ROWS), settings=settings
    )
    n_steps, n_together = settings.n_steps, devices.count * settings.runs_per_device
    n_real = len(group)
    filled = [*group, *[group[-1]] * (n_together - n_real)]  # fills all devices
    seeds = np.array([run.seed for run in filled], np.uint32)
    n_calls = math.ceil(n_steps / STEPS_PER_CALL)
    batches = np.zeros((n_together, n_calls * STEPS_PER_CALL, settings.batch_size), np.int32)
    for i, run in enumerate(filled):
        if n_steps:
            batches[i, :n_steps] = np.searchsorted(
                placed.rows, batches_of(run, n_steps, settings.batch_size)
            )

    state, losses = start(seeds), [np.zeros((n_together, 0), np.float32)]
    for first in range(0, n_steps, STEPS_PER_CALL):
        n = min(STEPS_PER_CALL, n_steps - first)
        upcoming = np.ascontiguousarray(batches[:, first : first + STEPS_PER_CALL])
        state, loss = train(state, seeds, upcoming, placed.items, np.int32(first), np.int32(n))
        losses.append(fetch(loss)[:, :n])
        _check_finite(losses[-1][:n_real], first, names, settings, placed.rows, batches)
        progress((first + n) * n_real)
    encoders = settings.objective.chosen.encoder(state.variables)
    return Pretrained(
        jax.tree.map(lambda p: fetch(p)[:n_real], encoders),
        np.concatenate(losses, axis=1)[:n_real],
    )


def check_items(items: np.ndarray, settings: PretrainConfig) -> None:
    """Refuses items that the encoder does not take.

    Args:
        items: pictures, uint8 ``[n, s, s, 3]`` of the size of the model, or token ids of texts,
            int32 ``[n, n_tokens]``.
        settings: the settings of the pretraining.

    Raises:
        InputError: naming the dtype and the shape, or the token id.

    Examples:
        >>> check_items(np.zeros((5, 32, 32, 3), np.uint8), PretrainConfig())
    """
    found = f"items are {items.dtype} of shape {items.shape}"
    if settings.objective.chosen.kind == "picture":
        size = settings.model.image_size
        if items.dtype != np.uint8 or items.shape[1:] != (size, size, 3):
            raise InputError(f"{found}; image_size={size} wants uint8 [n, {size}, {size}, 3]")
        return
    bert = settings.bert
    if items.dtype != np.int32 or items.ndim != 2 or not 1 <= items.shape[1] <= bert.n_positions:
        raise InputError(
            f"{found}; objective {settings.objective.name!r} wants token ids int32 [n, n_tokens] "
            f"with at most n_positions={bert.n_positions} tokens"
        )
    if len(items) and not 0 <= items.min() <= items.max() < bert.vocab_size:
        raise InputError(
            f"token ids from {items.min()} to {items.max()}, but vocab_size={bert.vocab_size}"
        )


def _check_finite(
    losses: np.ndarray,
    first: int,
    names: Sequence[str],
    settings: PretrainConfig,
    rows: np.ndarray,
    batches: np.ndarray,
) -> None:
    """Refuses losses ``[r, n]`` of the steps from ``first`` on that are not finite.

    Args:
        losses: losses of the runs.
        first: number of steps made before.
        names: name of each run.
        settings: settings of the runs.
        rows: rows of the pool that the pictures are.
        batches: numbers of the pictures of every batch, int32 ``[r, n_steps, b]``.
    """
    bad = np.argwhere(~np.isfinite(losses))
    if len(bad):
        run, step = bad[0]
        batch = rows[batches[run, first + step]]
        shown = ", ".join(map(str, batch[:_ROWS_SHOWN].tolist()))
        more = ", ..." if len(batch) > _ROWS_SHOWN else ""
        raise InputError(
            f"{names[run]}: the loss is not finite at step {first + step} (rows {shown}{more}); "
            f"try a learning_rate below {settings.learning_rate:g}"
        )
