"""Leaks: items of held-out splits that are in the pool too, or nearly so."""

from typing import NamedTuple

import numpy as np

from jaxcurate.artifacts.lazy_rows import as_rows
from jaxcurate.artifacts.pool import Pool
from jaxcurate.checks import InputError, as_real
from jaxcurate.curation.dedup import first_of_same
from jaxcurate.curation.duplicates import check_threshold
from jaxcurate.kmeans.normalize import checked_shape
from jaxcurate.neighbors.nearest_rows import nearest_rows
from jaxcurate.runtime.devices import Devices, RowsLike


class Leaks(NamedTuple):
    """Items of held-out splits that have a duplicate in the pool."""

    held_out: np.ndarray
    """int64 ``[l]``, sorted: rows of the held-out items that have a duplicate in the pool."""
    nearest: np.ndarray
    """int64 ``[l]``: for each of them, the first row of the pool with its content, or else the
    nearest row of the pool."""
    similarity: np.ndarray
    """float32 ``[l]``: cosine of each of them and that row, 1 for equal content."""
    same: np.ndarray
    """bool ``[l]``: True where both have the same content."""
    pool: np.ndarray
    """int64 ``[r]``, sorted: all rows of the pool that are a duplicate of a held-out item. Without
    these rows nothing leaks."""


def leaks(
    pool: RowsLike | Pool,
    held_out: np.ndarray,
    threshold: float | None,
    *,
    digests: np.ndarray | None = None,
    held_out_digests: np.ndarray | None = None,
    devices: Devices | None = None,
) -> Leaks:
    """Returns the held-out items that have a duplicate in the pool, and these rows of the pool.

    Every held-out item is compared with every row of the pool, chunk by chunk, in both directions:
    the nearest row of each item tells the items that leak, and the nearest item of each row tells
    the rows to remove.

    Args:
        pool: A :class:`Pool`, or its embeddings, real numbers ``[n, d]``, possibly a memory map.
        held_out: Embeddings of the held-out items by the same encoder, real numbers ``[q, d]``.
        threshold: Cosine similarity at or above which an item leaks, above 0 and at most 1. None
            compares contents alone.
        digests: Digests of the pool's items ``[n, w]`` or ``[n]``, equal for equal content, such as
            :func:`content_digests` returns. By default contents are not compared.
        held_out_digests: Digests of the held-out items, of the same kind.
        devices: Devices over which rows are split; all by default.

    Returns:
        The items that leak, the row of the pool that each is compared to, and all such rows.

    Raises:
        InputError: An argument cannot be used; the message names it.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation import leaks
        >>> pool = np.array([[1.0, 0], [0.99, 0.01], [0, 1], [-1, 0]])
        >>> found = leaks(pool, np.array([[0.6, 0.8], [2, 0]]), threshold=0.95)
        >>> found.held_out, found.nearest, found.pool
        (array([1]), array([0]), array([0, 1]))
    """
    pool = as_rows(pool.embeddings if isinstance(pool, Pool) else pool, "pool")
    held_out = as_real(held_out, "held_out")
    check_threshold(threshold)
    checked_shape(pool, "pool")
    checked_shape(held_out, "held_out")
    if (digests is None) != (held_out_digests is None):
        raise InputError("digests and held_out_digests must be given together")
    for name, given, rows in (
        ("digests", digests, pool),
        ("held_out_digests", held_out_digests, held_out),
    ):
        if given is not None and len(given) != len(rows):
            raise InputError(f"{name} has {len(given)} entries, but there are {len(rows)} rows")
    nearest = np.zeros(len(held_out), np.int64)
    similarity = np.full(len(held_out), -np.inf, np.float32)
    in_pool = np.zeros(len(pool), bool)
    leaking, same = np.zeros((2, len(held_out)), bool)
    if threshold is not None:
        found = nearest_rows(pool, held_out, 1, "cosine", devices=devices)
        nearest, similarity = found.rows[:, 0], 1 - found.distances[:, 0]
        leaking = similarity >= np.float32(threshold)
        if leaking.any():
            items = np.flatnonzero(leaking)
            back = nearest_rows(held_out[items], pool, 1, "cosine", devices=devices)
            in_pool = 1 - back.distances[:, 0] >= np.float32(threshold)
    if digests is not None and held_out_digests is not None:
        first, group = first_of_same(np.concatenate([digests, held_out_digests]))
        n = len(pool)
        first_row = first[group]
        same = first_row[n:] < n  # rows of the pool come first
        leaking |= same
        nearest = np.where(same, first_row[n:], nearest)
        similarity = np.where(same, np.float32(1), similarity)
        in_pool |= np.isin(group[:n], group[n:])
    items = np.flatnonzero(leaking)
    return Leaks(items, nearest[items], similarity[items], same[items], np.flatnonzero(in_pool))
