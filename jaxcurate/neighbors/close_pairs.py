"""Pairs of rows that are close: sought within clusters and across neighboring ones."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from jaxcurate.kmeans.kernels.scores import HIGHEST
from jaxcurate.kmeans.rows import block_rows
from jaxcurate.neighbors.nearest_rows import nearest_rows
from jaxcurate.runtime.devices import ROWS, SAME, Devices, padded_size

_BATCH_BYTES = 2**26
_SMALLEST_TILE = 32
_SLACK = 1e-4
"""Margin by which a float32 product may fall short; what passes is measured again in float64."""


class Pairs(NamedTuple):
    """Pairs of rows with their similarity."""

    rows: np.ndarray
    """int64 ``[p, 2]``, the smaller row first; sorted."""
    similarity: np.ndarray
    """float32 ``[p]``: the product of the two rows."""


def neighboring_clusters(
    centroids: np.ndarray,
    counts: np.ndarray,
    n_neighbors: int,
    devices: Devices | None = None,
) -> np.ndarray:
    """Returns pairs of clusters to be searched: each with itself, and with those nearest to it.

    Args:
        centroids: ``[k, d]``.
        counts: int ``[k]``; clusters without rows are left out.
        n_neighbors: number of the nearest others.
        devices: the devices to use; all by default.

    Returns:
        int64 ``[p, 2]``, the smaller cluster first, each pair once.
    """
    filled = np.flatnonzero(counts)
    n_neighbors = min(n_neighbors, len(filled) - 1)
    found = [np.stack([filled, filled], axis=1)]
    if n_neighbors:
        points = centroids[filled]
        # A centroid is among its own nearest, unless others lie on it.
        near = nearest_rows(points, points, n_neighbors + 1, "euclidean", devices=devices).rows
        own = np.arange(len(filled))[:, None]
        rank = np.argsort(near == own, axis=1, kind="stable")  # itself last, or the most distant
        near = np.take_along_axis(near, rank, axis=1)[:, :n_neighbors]
        pairs = np.stack([np.broadcast_to(own, near.shape).ravel(), near.ravel()], axis=1)
        found.append(filled[np.sort(pairs, axis=1)])
    return np.unique(np.concatenate(found), axis=0)


def close_pairs(
    unit: np.ndarray,
    labels: np.ndarray,
    cluster_pairs: np.ndarray,
    threshold: float,
    *,
    everyone: bool = True,
    devices: Devices | None = None,
    told: Callable[[int, int], None] | None = None,
) -> Pairs:
    """Returns rows of the same cluster, or of two that form a pair, whose product reaches a
    threshold.

    Rows are compared tile by tile, so that nothing larger than a batch of tiles is held. Whether
    a pair counts is decided in float64, and depends neither on tiles nor on devices.

    Args:
        unit: float32 ``[n, d]`` of rows of length 1 or 0, possibly a memory map.
        labels: int ``[n]``.
        cluster_pairs: from :func:`neighboring_clusters`.
        threshold: above 0.
        everyone: return all pairs; otherwise those of a maximum spanning forest: at most
            ``n - 1``, which connect the same rows at this threshold and at any higher one.
        devices: the devices to use; all by default.
        told: told how many pairs of tiles are done, and of how many.

    Returns:
        The pairs.
    """
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=int(cluster_pairs.max()) + 1)
    starts = np.cumsum(counts) - counts
    typical = np.mean(counts[counts > 0])
    tile = int(np.clip(2 ** np.ceil(np.log2(typical)), _SMALLEST_TILE, block_rows()))
    n_tiles = -(-counts // tile)
    a, b = cluster_pairs.T
    total = int(
        np.sum(np.where(a == b, n_tiles[a] * (n_tiles[a] + 1) // 2, n_tiles[a] * n_tiles[b]))
    )

    def tile_pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rows_of = lambda cluster, i: order[
            starts[cluster] + i * tile : starts[cluster] + min((i + 1) * tile, counts[cluster])
        ]
        for one, other in cluster_pairs.tolist():
            for i in range(n_tiles[one]):
                for j in range(i if one == other else 0, n_tiles[other]):
                    yield rows_of(one, i), rows_of(other, j)

    devices = Devices.all() if devices is None else devices
    shards = devices.count
    fitting = _BATCH_BYTES // (8 * tile * unit.shape[1]) // shards * shards
    batch = min(max(fitting, shards), padded_size(total, shards))
    kernel = devices.spmd(_reaching, (ROWS, ROWS, SAME), (ROWS, ROWS))
    low = np.float32(threshold - _SLACK)
    found = [Pairs(np.zeros((0, 2), np.int64), np.zeros(0, np.float32))]
    held, done, remaining = 0, 0, tile_pairs()
    while some := list(itertools.islice(remaining, batch)):
        tiles = np.zeros((2, batch, tile, unit.shape[1]), np.float32)
        for place, pair in enumerate(some):
            for side, rows in enumerate(pair):
                tiles[side, place, : len(rows)] = unit[rows]
        n_hits, bits = kernel(tiles[0], tiles[1], low)
        hit = np.flatnonzero(np.asarray(n_hits)[: len(some)])
        bits = np.asarray(bits) if len(hit) else bits
        for place in hit:
            pairs = _exact(tiles[:, place], some[place], bits[place], threshold)
            if not everyone and len(pairs.rows) > 2 * tile:
                pairs = spanning_forest(pairs)
            found.append(pairs)
            held += len(pairs.rows)
        if not everyone and held > 4 * len(unit):
            found = [spanning_forest(_joined(found))]
            held = len(found[0].rows)
        done += len(some)
        if told is not None:
            told(done, total)
    pairs = _joined(found)
    return pairs if everyone else spanning_forest(pairs)


def spanning_forest(pairs: Pairs) -> Pairs:
    """Returns a maximum spanning forest: the strongest pairs that connect what all of them
    connect."""
    if not len(pairs.rows):
        return pairs
    rows, local = np.unique(pairs.rows, return_inverse=True)
    i, j = local.reshape(-1, 2).T
    weights = 2.0 - pairs.similarity.astype(np.float64)  # above 0, which would mean no edge
    graph = coo_array((weights, (i, j)), shape=(len(rows), len(rows)))
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    ends = np.sort(np.stack([rows[tree.row], rows[tree.col]], axis=1), axis=1)
    return _joined([Pairs(ends, (2.0 - tree.data).astype(np.float32))])


def _joined(found: list[Pairs]) -> Pairs:
    rows = np.concatenate([pairs.rows for pairs in found])
    similarity = np.concatenate([pairs.similarity for pairs in found])
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    return Pairs(rows[order], similarity[order])


def _exact(
    tiles: np.ndarray, rows: tuple[np.ndarray, np.ndarray], bits: np.ndarray, threshold: float
) -> Pairs:
    """Returns the pairs that a tile's bits mark, measured in float64 and held against the
    threshold."""
    i, j = np.nonzero(np.unpackbits(bits, axis=1))
    if rows[0] is rows[1] or (len(rows[0]) and np.array_equal(rows[0], rows[1])):
        i, j = i[i < j], j[i < j]
    if len(i) > 4 * tiles.shape[1]:
        similarity = (tiles[0].astype(np.float64) @ tiles[1].T.astype(np.float64))[i, j]
    else:
        similarity = np.einsum("pd,pd->p", tiles[0][i].astype(np.float64), tiles[1][j])
    near = similarity >= threshold
    ends = np.sort(np.stack([rows[0][i[near]], rows[1][j[near]]], axis=1), axis=1)
    return Pairs(ends.astype(np.int64), similarity[near].astype(np.float32))


def _reaching(
    a: jax.Array, b: jax.Array, low: jax.Array, *, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Returns for each pair of tiles ``[p, t, d]``: how many products reach ``low``, and which, as
    bits."""
    del axis_name  # every pair of tiles is on its own

    def one(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reached = jnp.dot(pair[0], pair[1].T, precision=HIGHEST) >= low
        return jnp.sum(reached, dtype=jnp.int32), jnp.packbits(reached, axis=1)

    return jax.lax.map(one, (a, b))
