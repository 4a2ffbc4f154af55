"""A run: the rows and the seed of one pretraining, and what it sees batch by batch."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxcurate.checks import InputError


class Run(NamedTuple):
    """One pretraining."""

    rows: np.ndarray
    """Images that the run trains on, int64 ``[m]``."""
    seed: int
    batches: Sequence[np.ndarray] | None = None
    """The rows of every batch, ``batches[step]``, such as
    :class:`jaxcurate.curation.stratified_batches.Batches`; shuffled epochs by default. Random views
    hang on seed, step and place alone either way."""


def schedule(rows: np.ndarray, seed: int, n_steps: int, batch_size: int) -> np.ndarray:
    """Returns rows of every batch: int32 ``[n_steps, batch_size]``.

    Epochs are fresh permutations laid end to end, so that every row is seen equally often
    whatever its number. A batch may reach over the end of an epoch, or of several where there
    are fewer rows than its size.
    """
    rng = np.random.default_rng(seed)
    wanted = n_steps * batch_size
    epochs = [rng.permutation(rows) for _ in range(math.ceil(wanted / len(rows)))]
    stream = np.concatenate([*epochs, rows[:0]])[:wanted]
    return stream.reshape(n_steps, batch_size).astype(np.int32)


def batches_of(run: Run, n_steps: int, batch_size: int) -> np.ndarray:
    """Returns rows of every batch of a run: integers ``[n_steps, batch_size]``."""
    if run.batches is None or not n_steps:
        return schedule(run.rows, run.seed, n_steps, batch_size)
    return np.stack([run.batches[step] for step in range(n_steps)])


def check_runs(runs: Sequence[Run], n_images: int, n_steps: int, batch_size: int) -> None:
    """Refuses runs that cannot be made.

    Raises:
        ValueError: naming the run, and what of it cannot be used.
    """
    if not runs:
        raise InputError("runs is empty: nothing to pretrain")
    for i, run in enumerate(runs):
        rows = np.asarray(run.rows)
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise InputError(f"rows of run {i} must be a vector of integers")
        if len(np.unique(rows)) < 2:
            raise InputError(f"rows of run {i}: at least 2 different rows are needed")
        if rows.min() < 0 or rows.max() >= n_images:
            raise InputError(f"rows of run {i} reach outside the {n_images} images")
        if not 0 <= run.seed < 2**32:
            raise InputError(f"seed={run.seed} of run {i} must be within [0, 2**32)")
        if run.batches is not None:
            is_own = np.zeros(n_images, bool)
            is_own[rows] = True
            _check_batches(run.batches, is_own, n_steps, batch_size, i)


def _check_batches(
    batches: Sequence[np.ndarray], is_own: np.ndarray, n_steps: int, batch_size: int, number: int
) -> None:
    if len(batches) < n_steps:
        raise InputError(f"batches of run {number} are {len(batches)}, but n_steps={n_steps}")
    for step in range(n_steps):
        batch = np.asarray(batches[step])
        if batch.shape != (batch_size,) or not np.issubdtype(batch.dtype, np.integer):
            raise InputError(
                f"batch {step} of run {number} is {batch.dtype} of shape {batch.shape}; "
                f"batch_size={batch_size} wants so many integers"
            )
        if not (0 <= batch.min() <= batch.max() < len(is_own) and is_own[batch].all()):
            raise InputError(f"batch {step} of run {number} has a row that is not of its rows")
