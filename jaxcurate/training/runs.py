"""A run of pretraining: its rows, its seed, and its batches."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxcurate.checks import InputError


class Run(NamedTuple):
    """Rows and seed of one pretraining run.

    Examples:
        >>> Run(np.arange(100), seed=3).seed
        3
    """

    rows: np.ndarray
    """Rows of the images that the run trains on, int64 ``[m]``."""
    seed: int
    """Seed of the initial weights, of the batches and of the random views."""
    batches: Sequence[np.ndarray] | None = None
    """Rows of every batch, ``batches[step]``, such as
    :class:`jaxcurate.curation.stratified_batches.Batches`; None for shuffled epochs. The random
    views depend only on the seed, the step and the position in the batch either way."""


def schedule(rows: np.ndarray, seed: int, n_steps: int, batch_size: int) -> np.ndarray:
    """Returns the rows of every batch in shuffled epochs.

    Epochs are new permutations of the rows, concatenated, so that every row is seen equally
    often. A batch may span the end of an epoch, or several epochs if it is larger than the number
    of rows.

    Args:
        rows: int64 ``[m]``.
        seed: the seed of the permutations.
        n_steps: the number of batches.
        batch_size: the number of rows in a batch.

    Returns:
        int32 ``[n_steps, batch_size]``.

    Examples:
        >>> batches = schedule(np.arange(6), seed=0, n_steps=3, batch_size=4)
        >>> np.bincount(batches.ravel()).tolist()
        [2, 2, 2, 2, 2, 2]
    """
    rng = np.random.default_rng(seed)
    wanted = n_steps * batch_size
    epochs = [rng.permutation(rows) for _ in range(math.ceil(wanted / len(rows)))]
    stream = np.concatenate([*epochs, rows[:0]])[:wanted]
    return stream.reshape(n_steps, batch_size).astype(np.int32)


def batches_of(run: Run, n_steps: int, batch_size: int) -> np.ndarray:
    """Returns the rows of every batch of a run, integers ``[n_steps, batch_size]``.

    Examples:
        >>> run = Run(np.arange(6), seed=0, batches=[np.array([0, 1]), np.array([2, 3])])
        >>> batches_of(run, 2, 2).tolist()
        [[0, 1], [2, 3]]
    """
    if run.batches is None or not n_steps:
        return schedule(run.rows, run.seed, n_steps, batch_size)
    return np.stack([run.batches[step] for step in range(n_steps)])


def check_runs(runs: Sequence[Run], n_images: int, n_steps: int, batch_size: int) -> None:
    """Refuses runs that cannot be carried out.

    Raises:
        InputError: naming the run, and its argument that cannot be used.

    Examples:
        >>> check_runs([Run(np.arange(6), seed=0)], n_images=5, n_steps=3, batch_size=4)
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: rows of run 0 reach outside the 5 images
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
            is_in_run = np.zeros(n_images, bool)
            is_in_run[rows] = True
            _check_batches(run.batches, is_in_run, n_steps, batch_size, i)


def _check_batches(
    batches: Sequence[np.ndarray], is_in_run: np.ndarray, n_steps: int, batch_size: int, number: int
) -> None:
    if len(batches) < n_steps:
        raise InputError(f"batches of run {number} are {len(batches)}, but n_steps={n_steps}")
    for step in range(n_steps):
        batch = np.asarray(batches[step])
        if batch.shape != (batch_size,) or not np.issubdtype(batch.dtype, np.integer):
            raise InputError(
                f"batch {step} of run {number} is {batch.dtype} of shape {batch.shape}; "
                f"batch_size={batch_size} wants as many integers"
            )
        if not (0 <= batch.min() <= batch.max() < len(is_in_run) and is_in_run[batch].all()):
            raise InputError(f"batch {step} of run {number} has a row that is not of its rows")
