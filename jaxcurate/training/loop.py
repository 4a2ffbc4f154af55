"""Large run over all devices, from the data to the checkpoint.

The file reads from top to bottom: the state of a run, one training step, and the loop. Batches are
split over the devices of all processes; weights and optimizer are copied to each device, or split
as well (``sharding.py``). The losses, the random views and the schedules are those of
``pretrain.py``, which trains many small runs at once.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import NamedSharding

from jaxcurate.checks import InputError, check_seed
from jaxcurate.runtime import steps
from jaxcurate.runtime.devices import SAME, Devices, fetch
from jaxcurate.runtime.host_memory import compile_in_blocks, freed_memory_kept
from jaxcurate.runtime.interruption import postponed_signals
from jaxcurate.runtime.processes import agree
from jaxcurate.training import sharding
from jaxcurate.training.checkpoint import Checkpoints, Notes
from jaxcurate.training.config import PretrainConfig
from jaxcurate.training.input import Fed, Input
from jaxcurate.training.metrics import Meter, MetricsLog
from jaxcurate.training.objectives.base import LOSS_KEY, Batch, Outcome, Variables
from jaxcurate.training.online import (
    SCORE,
    Evaluator,
    OnEval,
    Params,
    encoder_on_host,
    save_encoder,
)
from jaxcurate.training.optimizer import learning_rate, optimizer

Progress = Callable[[int, int], None]
"""Function called with the numbers of steps done and of all steps."""
_IN_FLIGHT = 2
"""Number of steps that the host is ahead of the devices: enough that they never wait for the host,
few enough that batches do not pile up in their memory."""
_ROWS_SHOWN = 8
_LONG_RUN = 1e13
"""Number of operations of a run from which on a fifth of its time, on a CPU, is more than the
seconds that compiling the step anew takes."""


class Trained(NamedTuple):
    """Encoder after training."""

    params: Params
    """Weights of the encoder, on the host."""
    losses: np.ndarray
    """Loss at every step, float32 ``[n_steps]``."""
    metrics: list[dict[str, Any]]
    """Lines of ``metrics.jsonl``."""


class State(NamedTuple):
    """State that the run carries from step to step, on the devices."""

    variables: Variables
    """Weights, and what only the objective changes."""
    opt_state: Any
    """State of the optimizer."""
    losses: jax.Array
    """Losses of the steps made, float32 ``[n_steps]``, so that a loss which is not finite is known
    by its step although the host looks at it later."""


def start(seed: jax.Array, settings: PretrainConfig) -> State:
    """Returns the state of a run before its first step."""
    variables = settings.objective.chosen.init(settings.network, jax.random.key(seed))
    losses = jnp.zeros(settings.n_steps, jnp.float32)
    return State(variables, optimizer(settings).init(variables.params), losses)


def make_step(
    settings: PretrainConfig, data: Input, mesh: jax.sharding.Mesh, shardings: State
) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
    """Returns the function of one training step, to be compiled.

    It takes the state, the constants of the input, the arrays and ids of a batch, the seed and the
    number of steps made before, and returns the new state and the metrics of the step.
    """
    objective, model, n_parts = settings.objective.chosen, settings.network, settings.n_accumulate
    crops = objective.crops(settings.model) if objective.kind == "picture" else ()

    def views(constants: Any, arrays: Any, ids: jax.Array, key: jax.Array) -> Batch:
        batch = data.views(constants, arrays, ids, key, crops, settings.augmentation)
        return Batch(sharding.split_rows(batch.views, mesh), batch.ids)

    def step(
        state: State,
        constants: Any,
        arrays: tuple[jax.Array, ...],
        ids: jax.Array,
        seed: jax.Array,
        n_done: jax.Array,
    ) -> tuple[State, dict[str, jax.Array]]:
        (params, extra), opt_state, losses = state
        # As in pretrain.py: the key depends on seed and step alone.
        key = jax.random.fold_in(jax.random.key(seed), n_done + 1)
        done = n_done / settings.n_steps

        def gradient_of(
            arrays: tuple[jax.Array, ...], ids: jax.Array, key: jax.Array
        ) -> tuple[Outcome, Any]:
            batch, loss_key = views(constants, arrays, ids, key), jax.random.fold_in(key, LOSS_KEY)

            def loss(params: Any) -> tuple[jax.Array, Outcome]:
                with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                    outcome = objective.loss(model, Variables(params, extra), batch, loss_key, done)
                return outcome.loss, outcome

            (_, outcome), gradient = jax.value_and_grad(loss, has_aux=True)(params)
            split = shardings.variables.params
            return outcome, jax.lax.with_sharding_constraint(gradient, split)

        if n_parts == 1:
            outcome, gradient = gradient_of(arrays, ids, key)
        else:
            outcome, gradient = _accumulated(gradient_of, arrays, ids, key, n_parts, mesh)
        update, opt_state = optimizer(settings).update(gradient, opt_state, params)
        params = optax.apply_updates(params, update)
        extra = objective.after_step(model, Variables(params, extra), outcome.aux, done)
        metrics = {"gradient_norm": optax.tree.norm(gradient), **outcome.metrics}
        losses = losses.at[n_done].set(outcome.loss)
        return State(Variables(params, extra), opt_state, losses), metrics

    return step


def jit_step(
    settings: PretrainConfig, data: Input, mesh: jax.sharding.Mesh, shardings: State
) -> jax.stages.Wrapped:
    """Returns the function of :func:`make_step` as the loop compiles it: old states are donated."""
    return jax.jit(
        make_step(settings, data, mesh, shardings),
        donate_argnums=0,
        out_shardings=(shardings, NamedSharding(mesh, SAME)),
    )


@contextmanager
def compiled_step(lowered: jax.stages.Lowered, n_steps: int) -> Iterator[jax.stages.Compiled]:
    """Yields the compiled step. In a long run on a CPU, steps use the same working memory.

    Args:
        lowered: the step.
        n_steps: number of steps that are to be made.
    """
    costs = lowered.cost_analysis()
    n_operations = costs.get("flops", 0.0) if isinstance(costs, dict) else 0.0
    if jax.default_backend() != "cpu" or n_steps * n_operations < _LONG_RUN:
        yield lowered.compile()
        return
    compiled = compile_in_blocks(lowered)
    memory = compiled.memory_analysis()
    assert memory is not None  # a CPU has it
    with freed_memory_kept(memory.temp_size_in_bytes):
        yield compiled


def _accumulated(
    gradient_of: Callable[..., tuple[Outcome, Any]],
    arrays: tuple[jax.Array, ...],
    ids: jax.Array,
    key: jax.Array,
    n_parts: int,
    mesh: jax.sharding.Mesh,
) -> tuple[Outcome, Any]:
    """Returns the mean outcome and gradient over the parts of a batch, taken in turn.

    Numbers for ``after_step`` that are not floats are those of the last part.
    """

    def add(total: Any, part: tuple[Any, ...]) -> tuple[Any, Any]:
        number, arrays, ids = part
        outcome, gradient = gradient_of(arrays, ids, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, gradient), outcome

    cut = tuple(sharding.parts(array, n_parts, mesh) for array in (*arrays, ids))
    split = jnp.arange(n_parts), cut[:-1], cut[-1]
    shapes = jax.eval_shape(gradient_of, *jax.tree.map(lambda a: a[0], split[1:]), key)[1]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, outcomes = jax.lax.scan(add, zeros, split)

    def merge(x: jax.Array) -> jax.Array:
        return jnp.mean(x, 0) if jnp.issubdtype(x.dtype, jnp.floating) else x[-1]

    return jax.tree.map(merge, outcomes), jax.tree.map(lambda g: g / n_parts, total)


def train(
    settings: PretrainConfig,
    data: Input,
    *,
    seed: int,
    devices: Devices | None = None,
    folder: epath.PathLike | None = None,
    progress: Progress | None = None,
    on_eval: OnEval | None = None,
) -> Trained:
    """Trains one encoder on all devices.

    With a folder, the metrics are written to ``metrics.jsonl``, the state of the run to
    ``checkpoints/`` now and then, and at SIGTERM and SIGINT, and the encoder to ``encoder/last``
    (and ``encoder/best``) in a layout of Hugging Face. The same call goes on from the latest
    checkpoint, and gives what an uninterrupted run would have given: on one device, the same bits.

    Args:
        settings: the settings of the run.
        data: batches of the run, closed at the end. Its number of steps and the size of its
            batches are those of the settings.
        seed: seed of the initial weights and of the random views.
        devices: devices over which each batch is split; all by default, those of all processes.
        folder: folder of metrics, checkpoints and encoders; None writes nothing.
        progress: called after every step.
        on_eval: called every ``eval_every`` steps and after the last one.

    Returns:
        The encoder, the losses, and the metrics.

    Raises:
        InputError: the batch cannot be split, a loss is not finite, the folder holds a checkpoint
            of other settings, or a file cannot be written.
        KeyboardInterrupt: SIGTERM or SIGINT came, here or in another process, unless its handler
            raises something else.

    Examples:
        >>> import jaxcurate as jc
        >>> from jaxcurate.training import PretrainConfig, ResidentInput, Run, ViTConfig
        >>> model = ViTConfig(image_size=8, patch_size=8, width=8, depth=1, n_heads=1)
        >>> settings = PretrainConfig(model, n_steps=2, batch_size=4)
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
        >>> data = ResidentInput(images, Run(np.arange(20), seed=0), n_steps=2, batch_size=4)
        >>> train(settings, data, seed=0, devices=jc.Devices.first(1)).losses.shape
        (2,)
    """
    check_seed(seed)
    devices = Devices.all() if devices is None else devices
    mesh, n_steps = sharding.mesh_of(devices), settings.n_steps
    _check_split(settings, mesh)
    agree("train", devices, settings=repr(settings), seed=seed)

    # Model and optimizer: made on the devices, where each holds its part.
    begin = partial(start, settings=settings)
    shapes = jax.eval_shape(begin, np.uint32(seed))
    shardings = sharding.state_shardings(shapes, mesh, settings.shard_bytes)
    state = jax.jit(begin, out_shardings=shardings)(np.uint32(seed))

    with ExitStack() as stack:
        # Checkpoint: all that the run needs to go on where it was.
        interruption = stack.enter_context(postponed_signals())
        checkpoints = stack.enter_context(Checkpoints(folder, settings, seed, data, devices))
        notes = Notes()
        if (restored := checkpoints.restore(state)) is not None:
            state, notes = restored
            data.restore(notes.input or {})
        log = stack.enter_context(MetricsLog(folder, notes.step, settings.tensorboard))

        # Data: the host reads a batch while the devices work on those before it.
        stack.callback(data.close)
        constants = sharding.put_same(data.constants, mesh)
        batches = data.fed(notes.step)
        evaluator = Evaluator(settings, data, mesh, on_eval)
        compiled, meter = None, Meter(mesh, settings, notes.step)
        in_flight: deque[jax.Array] = deque()
        recent_ids: dict[int, jax.Array] = {}

        for n_before in range(notes.step, n_steps):
            with meter.waiting(in_flight):
                batch = _placed(next(batches), settings, mesh)
            place = np.uint32(seed), np.int32(n_before)
            if compiled is None:
                step = jit_step(settings, data, mesh, shardings)
                lowered = step.lower(state, constants, *batch, *place)
                compiled = stack.enter_context(compiled_step(lowered, n_steps - n_before))
                meter.start(compiled)

            # Step: the old state is donated, so that the new one takes its memory.
            steps.begin("training step")
            state, metrics = compiled(state, constants, *batch, *place)
            n_done, recent_ids[n_before] = n_before + 1, batch[1]
            in_flight.append(metrics["gradient_norm"])
            if len(in_flight) > _IN_FLIGHT:
                in_flight.popleft().block_until_ready()
            if progress is not None:
                progress(n_done, n_steps)

            # Metrics: at these steps alone the host waits for the devices.
            is_line = n_done % settings.log_every == 0 or n_done == n_steps
            is_eval = evaluator.is_due(n_done)
            is_stop, is_save = checkpoints.plan(n_done, is_line, interruption.asked)
            if is_line or is_eval or is_save:
                losses = _finite_losses(state, n_done, recent_ids, settings)
                recent_ids.clear()
            if is_line:
                since = n_before // settings.log_every * settings.log_every
                log.write(
                    n_done,
                    loss=losses[since:n_done].mean(),
                    learning_rate=learning_rate(settings)(n_before),
                    **metrics,
                    **meter.read(n_done),
                )

            # Evaluation and checkpoint, which do not count as time of the steps.
            with meter.aside():
                if is_eval:
                    where = constants, *batch, *place
                    numbers = evaluator.evaluate(n_done, state.variables, *where)
                    log.write(n_done, **numbers)
                    if numbers.get(SCORE, -np.inf) > (
                        -np.inf if notes.best is None else notes.best
                    ):
                        notes = notes._replace(best=numbers[SCORE])
                        save_encoder(folder, "best", state.variables, settings)
                if is_save:
                    notes = notes._replace(step=n_done, input=data.state())
                    checkpoints.save(state, notes)
                if is_stop:
                    checkpoints.wait()
                    interruption.deliver()
                    raise KeyboardInterrupt(f"stopped after step {n_done}, as a process was asked")

        save_encoder(folder, "last", state.variables, settings)
        return Trained(encoder_on_host(state.variables, settings), fetch(state.losses), log.lines)


def _check_split(settings: PretrainConfig, mesh: jax.sharding.Mesh) -> None:
    part = settings.batch_size // settings.n_accumulate
    if part % mesh.size:
        parts = f" in n_accumulate={settings.n_accumulate} parts" * (settings.n_accumulate > 1)
        raise InputError(
            f"batch_size={settings.batch_size}{parts} cannot be split over {mesh.size} devices; "
            f"a multiple of {mesh.size * settings.n_accumulate} can"
        )


def _placed(
    fed: Fed, settings: PretrainConfig, mesh: jax.sharding.Mesh
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Returns the arrays and the ids of a batch, split over the devices."""
    n_local = len(fed.ids)
    n_processes = len({device.process_index for device in mesh.devices.flat})
    if n_local * n_processes != settings.batch_size:
        raise InputError(
            f"the input gives {n_local} items to each of {n_processes} process(es), but "
            f"batch_size={settings.batch_size}"
        )
    arrays = tuple(sharding.put_batch(array, mesh) for array in fed.arrays)
    return arrays, sharding.put_batch(fed.ids, mesh)


def _finite_losses(
    state: State, n_done: int, ids: Mapping[int, jax.Array], settings: PretrainConfig
) -> np.ndarray:
    """Returns the losses so far, and refuses one that is not finite.

    Args:
        state: state of the run.
        n_done: number of steps made.
        ids: ids of the items of the latest batches, by the number of steps made before.
        settings: settings of the run.
    """
    losses = fetch(state.losses)
    bad = np.flatnonzero(~np.isfinite(losses[:n_done]))
    if not len(bad):
        return losses
    first = int(bad[0])
    rows = [*map(str, fetch(ids[first])[:_ROWS_SHOWN].tolist())] if first in ids else []
    more = ", ..." if settings.batch_size > _ROWS_SHOWN else ""
    of_rows = f" (rows {', '.join(rows)}{more})" if rows else ""
    raise InputError(
        f"the loss is not finite at step {first}{of_rows}: try a learning_rate below "
        f"{settings.learning_rate:g}, clip_norm=1, a longer warmup, or precision='float32', and "
        "look at these rows"
    )
