"""Close pairs of rows, searched for within clusters and across neighboring clusters."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.kmeans.kernels.scores import HIGHEST
from jaxcurate.kmeans.rows import block_rows
from jaxcurate.neighbors.nearest_rows import nearest_rows
from jaxcurate.runtime.devices import ROWS, SAME, Devices, padded_size

_CHUNK_BYTES = 2**26
_SMALLEST_BLOCK = 32
_SLACK = 1e-4
"""Tolerance for float32 rounding; pairs that pass with it are computed again in float64."""


class Pairs(NamedTuple):
    """Pairs of rows and their similarities."""

    rows: np.ndarray
    """Row numbers, int64 ``[p, 2]``: the smaller row first, pairs in lexicographic order."""
    similarity: np.ndarray
    """Dot products of the two rows of each pair, float32 ``[p]``."""


def neighboring_clusters(
    centroids: np.ndarray,
    counts: np.ndarray,
    n_neighbors: int,
    devices: Devices | None = None,
) -> np.ndarray:
    """Returns the pairs of clusters to search: each with itself and with its nearest clusters.

    Args:
        centroids: Real numbers ``[k, d]``.
        counts: Number of rows of each cluster, int ``[k]``. Empty clusters are left out.
        n_neighbors: Number of nearest other clusters that each cluster is paired with.
        devices: Devices to use; all by default.

    Returns:
        int64 ``[p, 2]``, the smaller cluster first, each pair once.

    Raises:
        InputError: The centroids are not finite real numbers ``[k, d]``.

    Examples:
        Three clusters on a line, and a fourth without rows:

        >>> import numpy as np
        >>> from jaxcurate.neighbors import neighboring_clusters
        >>> centroids = np.array([[0.0, 0], [1, 0], [5, 0], [2, 0]])
        >>> neighboring_clusters(centroids, np.array([3, 4, 2, 0]), n_neighbors=1).tolist()
        [[0, 0], [0, 1], [1, 1], [1, 2], [2, 2]]
    """
    filled = np.flatnonzero(counts)
    n_neighbors = min(n_neighbors, len(filled) - 1)
    within = np.stack([filled, filled], axis=1)
    if not n_neighbors:
        return within
    points = centroids[filled]
    # A centroid is among its own nearest centroids, unless enough others coincide with it.
    near = nearest_rows(points, points, n_neighbors + 1, "euclidean", devices=devices).rows
    itself = np.arange(len(filled))[:, None]
    rank = np.argsort(near == itself, axis=1, kind="stable")  # itself last, else the farthest
    near = np.take_along_axis(near, rank, axis=1)[:, :n_neighbors]
    across = np.stack([np.broadcast_to(itself, near.shape).ravel(), near.ravel()], axis=1)
    return np.unique(np.concatenate([within, filled[np.sort(across, axis=1)]]), axis=0)


def close_pairs(
    unit: np.ndarray,
    labels: np.ndarray,
    cluster_pairs: np.ndarray,
    threshold: float,
    *,
    max_pairs: int | None = None,
    devices: Devices | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pairs:
    """Returns the close pairs of rows, searched for within the given pairs of clusters.

    Blocks of rows are compared with each other, so that memory does not grow with the number of
    rows. The similarities are computed in float64, rounded, and compared with the threshold in
    float32, so that the pairs depend neither on the blocks nor on the devices, and those at a
    higher threshold can be told from their similarities. Large clusters are searched first, and
    neighboring ones last, so that too many pairs are noticed early: no more than ``max_pairs``
    pairs and those of two blocks are ever held.

    Args:
        unit: Rows of length 1 or 0, float32 ``[n, d]``, possibly a memory map.
        labels: Cluster of each row, int ``[n]``.
        cluster_pairs: Pairs of clusters from :func:`neighboring_clusters`, int ``[p, 2]``.
        threshold: Smallest dot product of a close pair, above 0.
        max_pairs: Largest number of pairs to return, for each takes 20 bytes; None for no limit.
        devices: Devices to use; all by default.
        progress: Called with the number of compared pairs of blocks and with their total number.

    Returns:
        The close pairs and their similarities.

    Raises:
        InputError: More than ``max_pairs`` pairs are close. The message says how many were found
            so far, how many of them a higher threshold would leave, and how large the largest
            cluster is.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.neighbors import close_pairs
        >>> unit = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
        >>> labels = np.array([0, 0, 1])
        >>> pairs = close_pairs(unit, labels, np.array([[0, 0], [0, 1], [1, 1]]), threshold=0.5)
        >>> pairs.rows.tolist(), pairs.similarity
        ([[0, 1], [1, 2]], array([0.6, 0.8], dtype=float32))
    """
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=int(cluster_pairs.max()) + 1)
    starts = np.cumsum(counts) - counts
    left, right = cluster_pairs.T
    cluster_pairs = cluster_pairs[np.lexsort((-counts[left], left != right))]
    mean_count = np.mean(counts[counts > 0])
    block = int(np.clip(2 ** np.ceil(np.log2(mean_count)), _SMALLEST_BLOCK, block_rows()))
    n_blocks = -(-counts // block)
    a, b = cluster_pairs.T
    total = int(
        np.sum(np.where(a == b, n_blocks[a] * (n_blocks[a] + 1) // 2, n_blocks[a] * n_blocks[b]))
    )

    def block_pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rows_of = lambda cluster, i: order[
            starts[cluster] + i * block : starts[cluster] + min((i + 1) * block, counts[cluster])
        ]
        for left, right in cluster_pairs.tolist():
            for i in range(n_blocks[left]):
                for j in range(i if left == right else 0, n_blocks[right]):
                    yield rows_of(left, i), rows_of(right, j)

    devices = Devices.all() if devices is None else devices
    shards = devices.count
    fitting = _CHUNK_BYTES // (8 * block * unit.shape[1]) // shards * shards
    chunk = min(max(fitting, shards), padded_size(total, shards))
    kernel = devices.spmd(_reaching, (ROWS, ROWS, SAME), (ROWS, ROWS))
    low = np.float32(threshold - _SLACK)
    parts = [Pairs(np.zeros((0, 2), np.int64), np.zeros(0, np.float32))]
    n_pairs, done, remaining = 0, 0, block_pairs()
    while compared := list(itertools.islice(remaining, chunk)):
        blocks = np.zeros((2, chunk, block, unit.shape[1]), np.float32)
        for i, pair in enumerate(compared):
            for side, rows in enumerate(pair):
                blocks[side, i, : len(rows)] = unit[rows]
        n_hits, bits = kernel(blocks[0], blocks[1], low)
        hits = np.flatnonzero(np.asarray(n_hits)[: len(compared)])
        bits = np.asarray(bits) if len(hits) else bits
        for i in hits:
            parts.append(_exact(blocks[:, i], compared[i], bits[i], threshold))
            n_pairs += len(parts[-1].rows)
            if max_pairs is not None and n_pairs > max_pairs:
                fraction = (done + int(i) + 1) / total
                raise InputError(_too_many(parts, max_pairs, threshold, fraction, counts[left]))
        done += len(compared)
        if progress is not None:
            progress(done, total)
    return _joined(parts)


def _too_many(
    parts: list[Pairs], max_pairs: int, threshold: float, fraction: float, counts: np.ndarray
) -> str:
    """Returns the message that refuses too many pairs.

    Args:
        parts: Pairs that were found so far.
        max_pairs: Largest number of pairs.
        threshold: Smallest dot product of a close pair.
        fraction: Fraction of the search that is done.
        counts: Number of rows of each searched cluster.
    """
    higher = 1 - (1 - threshold) / 2
    n_pairs = sum(len(pairs.rows) for pairs in parts)
    reach = sum(int((pairs.similarity >= np.float32(higher)).sum()) for pairs in parts)
    return (
        f"more than max_pairs={max_pairs} pairs reach threshold={threshold}: {n_pairs} after "
        f"{fraction:.1%} of the search, of which {reach} reach {higher:g}. Give a higher "
        "threshold, because the rows are too alike for this one; or in Python a larger max_pairs, "
        f"for which each pair takes 20 bytes. The largest cluster has {counts.max()} rows"
    )


def _joined(parts: list[Pairs]) -> Pairs:
    """Returns all pairs in lexicographic order, and clears the list to make room for them."""
    rows = np.concatenate([pairs.rows for pairs in parts])
    similarity = np.concatenate([pairs.similarity for pairs in parts])
    parts.clear()
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    return Pairs(rows[order], similarity[order])


def _exact(
    blocks: np.ndarray, rows: tuple[np.ndarray, np.ndarray], bits: np.ndarray, threshold: float
) -> Pairs:
    """Returns the pairs that the bits mark and whose similarity reaches the threshold.

    Args:
        blocks: Two blocks of rows, float32 ``[2, b, d]``, filled up with zeros.
        rows: Row numbers of the two blocks, at most ``b`` each.
        bits: Bits of the pairs that come near the threshold, uint8 ``[b, b / 8]``.
        threshold: Smallest dot product of a close pair.
    """
    i, j = np.nonzero(np.unpackbits(bits, axis=1))
    if rows[0] is rows[1] or (len(rows[0]) and np.array_equal(rows[0], rows[1])):
        i, j = i[i < j], j[i < j]
    if len(i) > 4 * blocks.shape[1]:
        similarity = (blocks[0].astype(np.float64) @ blocks[1].T.astype(np.float64))[i, j]
    else:
        similarity = np.einsum("pd,pd->p", blocks[0][i].astype(np.float64), blocks[1][j])
    similarity = similarity.astype(np.float32)
    near = similarity >= np.float32(threshold)
    ends = np.sort(np.stack([rows[0][i[near]], rows[1][j[near]]], axis=1), axis=1)
    return Pairs(ends.astype(np.int64), similarity[near])


def _reaching(
    a: jax.Array, b: jax.Array, low: jax.Array, *, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Counts and marks the pairs of rows whose dot product reaches ``low``.

    Args:
        a: Left blocks of rows, float32 ``[p, b, d]``.
        b: Right blocks of rows, float32 ``[p, b, d]``.
        low: Smallest product to mark.
        axis_name: Not used, for a pair of blocks needs nothing from other devices.

    Returns:
        Number of marked pairs of rows, int32 ``[p]``, and their bits, uint8 ``[p, b, b / 8]``.
    """
    del axis_name

    def compare(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reached = jnp.dot(pair[0], pair[1].T, precision=HIGHEST) >= low
        return jnp.sum(reached, dtype=jnp.int32), jnp.packbits(reached, axis=1)

    return jax.lax.map(compare, (a, b))
