"""k-means of rows that do not fit in memory: the same steps, a pass over the chunks for each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate import parallel
from jaxcurate.kmeans.active import search_moved
from jaxcurate.kmeans.lloyd import assigned
from jaxcurate.kmeans.nearest import rounding_of, settle
from jaxcurate.kmeans.rows import Chunks
from jaxcurate.kmeans.scores import Best, Precision
from jaxcurate.kmeans.seeding import choose_blocks, n_candidates, squared_distances_to
from jaxcurate.kmeans.sums import sums_of_differences
from jaxcurate.parallel import ROWS, SAME


class Found(NamedTuple):
    """Where the iterations ended."""

    centroids: np.ndarray
    """float32 ``[k, d]``."""
    labels: np.ndarray
    """int32 ``[n]``."""
    distances: np.ndarray
    """float32 ``[n]``, squared, to the own centroid."""
    n_iter: int
    compared: list[float]
    """For each pass the share of ``n k`` scores worked out."""
    in_doubt: list[float]
    """For each pass the share of rows searched again."""


def iterate_chunks(
    chunks: Chunks, centroids: np.ndarray, max_iter: int, precision: Precision = "float32"
) -> Found:
    """Lloyd's iterations as in :func:`jaxcurate.kmeans.lloyd.lloyd`, one pass for each.

    Args:
        chunks: the rows.
        centroids: float32 ``[k, d]``, where to begin.
        max_iter: iterations at most.
        precision: of the distances that are tried first.
    """
    kernel = parallel.spmd(
        _assign_and_sum,
        chunks.mesh,
        (ROWS, ROWS, SAME, SAME, ROWS),
        (ROWS, ROWS, SAME, SAME, SAME, SAME),
        block=chunks.block,
        precision=precision,
    )
    n, k = len(chunks.x), len(centroids)
    best = Best(np.zeros(n, np.int32), np.zeros(n, np.float32), np.zeros(n, np.float32))
    distances = np.empty(n, np.float32)
    moved, shares = np.ones(k, bool), []
    for n_iter in range(max_iter + 1):
        sums, counts = np.zeros(centroids.shape, np.float64), np.zeros(k, np.float64)
        touched, in_doubt, compared = np.full(k, n_iter == 0), 0.0, 0.0
        for part, rows in chunks:
            padding = (0, rows.x.shape[0] - rows.n)
            before = Best(*(np.pad(whole[part], padding) for whole in best))
            now, squared, s, c, doubt, share = kernel(
                rows.x, rows.weights, centroids, moved, before
            )
            for whole, new in zip(best, now, strict=True):
                whole[part] = parallel.fetch(new)[: rows.n]
            distances[part] = parallel.fetch(squared)[: rows.n]
            sums += np.asarray(s)
            counts += np.asarray(c)
            in_doubt += float(doubt) / n
            compared = float(share)
            old, new = before.labels[: rows.n], best.labels[part]
            touched[old[old != new]] = touched[new[old != new]] = True
        shares.append((min(compared + in_doubt, 1.0), in_doubt))
        if not touched.any() or n_iter == max_iter:
            return Found(
                centroids, best.labels, distances, n_iter, *map(list, zip(*shares, strict=True))
            )
        moves = sums / np.maximum(counts, 1)[:, None]
        new = np.where(touched[:, None], centroids + moves, centroids).astype(np.float32)
        moved, centroids = (new != centroids).any(axis=1), new
    raise AssertionError("unreachable")


def assign_chunks(chunks: Chunks, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 ``[n]`` and squared distances float32 ``[n]``, in one pass."""
    kernel = parallel.spmd(assigned, chunks.mesh, (ROWS, SAME), (ROWS, ROWS), block=chunks.block)
    labels = np.empty(len(chunks.x), np.int32)
    distances = np.empty(len(chunks.x), np.float32)
    for part, rows in chunks:
        own, squared = kernel(rows.x, centroids)
        labels[part] = parallel.fetch(own)[: rows.n]
        distances[part] = parallel.fetch(squared)[: rows.n]
    return labels, distances


def seed_chunks(chunks: Chunks, n_clusters: int, key: jax.Array) -> np.ndarray:
    """Greedy k-means++ as in :mod:`jaxcurate.kmeans.seeding`, one pass for each centre.

    Holds ``2 + floor(ln k)`` numbers for each row on the host. ``k`` passes take long on a large
    store: ``"k-means||"`` needs six.

    Returns:
        float32 ``[k, d]``.
    """
    block, n = chunks.block, len(chunks.x)
    trials = n_candidates(n_clusters)
    kernel = parallel.spmd(
        _improve, chunks.mesh, (ROWS, ROWS, ROWS, SAME), (ROWS, ROWS), block=block
    )
    # Padding lies behind the rows of the last chunk alone, so that blocks follow each other.
    n_padded = parallel.padded_size(n, block)
    closest = np.zeros(n_padded, np.float32)
    closest[:n] = 1
    centres = np.zeros((n_clusters, chunks.x.shape[1]), np.float32)
    for i in range(n_clusters):
        potential = closest
        if not potential.any():  # every row lies on a centre: any row will do
            potential = (np.arange(n_padded) < n).astype(np.float32)
        blocks = potential.reshape(-1, block)
        chosen, rest = choose_blocks(
            jax.random.fold_in(key, i), jnp.asarray(blocks.sum(axis=1)), trials if i else 1
        )
        mass = blocks[np.asarray(chosen)]
        inner = (np.cumsum(mass, axis=1) <= np.asarray(rest)[:, None]).sum(axis=1)
        inner = np.minimum(inner, block - 1)
        empty = np.take_along_axis(mass, inner[:, None], axis=1)[:, 0] == 0
        inner[empty] = mass[empty].argmax(axis=1)
        candidates = chunks.take(np.asarray(chosen) * block + inner)
        improved = np.zeros((len(candidates), n_padded), np.float32)
        costs = np.zeros(len(candidates), np.float64)
        for part, rows in chunks:
            before = np.full(rows.x.shape[0], np.inf, np.float32)
            if i:
                before[: rows.n] = closest[part]
            now, sums = kernel(rows.x, rows.weights, before, candidates)
            improved[:, part] = parallel.fetch(now)[: rows.n].T
            costs += parallel.fetch(sums).astype(np.float64).sum(axis=0)
        best = int(np.argmin(costs))
        centres[i], closest = candidates[best], improved[best]
    return centres


def _assign_and_sum(
    x: jax.Array,
    weights: jax.Array,
    centroids: jax.Array,
    moved: jax.Array,
    before: Best,
    *,
    block: int,
    precision: Precision,
    axis_name: str | None,
) -> tuple[Best, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """The best; squared distances ``[n]``; sums ``[k, d]`` of the rows' differences from their
    centroid; counts; how many rows were in doubt; and the share of scores worked out."""
    rounding = rounding_of(x, precision)
    best, doubt, share = search_moved(
        x, weights, centroids, moved, before, rounding, block=block, precision=precision
    )
    best = settle(x, centroids, best, doubt)
    differences = x - centroids[best.labels]
    sums = sums_of_differences(x, weights, best.labels, centroids)
    in_doubt = jnp.sum(doubt, dtype=jnp.float32)
    sums, counts, in_doubt = parallel.psum((*sums, in_doubt), axis_name)
    return best, jnp.sum(differences**2, axis=1), sums, counts, in_doubt, share


def _improve(
    x: jax.Array,
    weights: jax.Array,
    closest: jax.Array,
    candidates: jax.Array,
    *,
    block: int,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array]:
    """Squared distances ``[n, c]`` with each candidate taken, and their sums by blocks."""
    del axis_name  # the host adds up the blocks
    squared = squared_distances_to(candidates, x, jnp.sum(x**2, axis=1))
    improved = jnp.minimum(squared, closest[None, :]) * weights[None, :]
    return improved.T, jnp.sum(improved.reshape(len(candidates), -1, block), axis=2).T
