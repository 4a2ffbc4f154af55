"""k-means of rows that do not fit in memory: the same steps, a pass over the chunks for each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate import parallel
from jaxcurate.kmeans.active import search_moved
from jaxcurate.kmeans.lloyd import assigned
from jaxcurate.kmeans.nearest import rounding_of, settle, squared_distances
from jaxcurate.kmeans.rows import Chunks
from jaxcurate.kmeans.scores import Best, Precision
from jaxcurate.kmeans.seeding import choose_blocks, n_candidates, squared_distances_to
from jaxcurate.kmeans.state import NO_STOPS, Stops, from_devices, to_devices
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
    compared: np.ndarray
    """float32 ``[n_iter + 1]``: for each pass the share of ``n k`` scores worked out."""
    in_doubt: np.ndarray
    """float32 ``[n_iter + 1]``: for each pass the share of rows searched again."""


class Passes(NamedTuple):
    """Where the iterations stand between two passes."""

    centroids: np.ndarray
    """float32 ``[k, d]``, to which the rows are to be assigned."""
    moved: np.ndarray
    """bool ``[k]``: those that are not where they were in the last pass."""
    best: Best
    """Of the last pass, on the host."""
    n_done: np.ndarray
    """int32, passes."""
    shares: np.ndarray
    """float32 ``[max_iter + 1, 2]``, of scores worked out and of rows searched again."""


_PASSES_SPECS = Passes(SAME, SAME, Best(ROWS, ROWS, ROWS), SAME, SAME)


def iterate_chunks(
    chunks: Chunks,
    centroids: np.ndarray | None,
    n_clusters: int,
    max_iter: int,
    precision: Precision = "float32",
    *,
    unit: bool = False,
    stops: Stops = NO_STOPS,
) -> Found:
    """Lloyd's iterations as in :mod:`jaxcurate.kmeans.lloyd`, one pass for each.

    Args:
        chunks: the rows.
        centroids: float32 ``[k, d]``, where to begin; not looked at where ``stops`` has a state.
        n_clusters: ``k``.
        max_iter: iterations at most.
        precision: of the distances that are tried first.
        unit: bring the means to length 1.
        stops: where to go on, and where to tell of it.
    """
    kernel = parallel.spmd(
        _assign_and_sum,
        chunks.mesh,
        (ROWS, ROWS, SAME, SAME, ROWS),
        (ROWS, ROWS, SAME, SAME, SAME, SAME),
        block=chunks.block,
        precision=precision,
    )
    n, d = chunks.x.shape
    at = Passes(
        np.zeros((n_clusters, d), np.float32) if centroids is None else np.asarray(centroids),
        np.ones(n_clusters, bool),
        Best(np.zeros(n, np.int32), np.zeros(n, np.float32), np.zeros(n, np.float32)),
        np.int32(0),
        np.zeros((max_iter + 1, 2), np.float32),
    )
    if stops.phase == "iterating":
        at = jax.tree.map(np.array, to_devices(stops.state, at, _PASSES_SPECS, n, None))
    distances = np.empty(n, np.float32)
    while True:
        centroids, moved, best, n_iter, shares = at
        sums, counts = np.zeros(centroids.shape, np.float64), np.zeros(n_clusters, np.float64)
        touched, in_doubt = np.full(n_clusters, n_iter == 0), 0.0
        for part, rows in chunks:
            padding = (0, rows.x.shape[0] - rows.n)
            before = Best(*(np.pad(whole[part], padding) for whole in best))
            now, squared, s, c, doubt, compared = kernel(
                rows.x, rows.weights, centroids, moved, before
            )
            for whole, new in zip(best, now, strict=True):
                whole[part] = parallel.fetch(new)[: rows.n]
            distances[part] = parallel.fetch(squared)[: rows.n]
            sums += np.asarray(s)
            counts += np.asarray(c)
            in_doubt += float(doubt) / n
            old, new = before.labels[: rows.n], best.labels[part]
            touched[old[old != new]] = touched[new[old != new]] = True
        shares[n_iter] = min(float(compared) + in_doubt, 1.0), in_doubt
        if not touched.any() or n_iter == max_iter:
            return Found(centroids, best.labels, distances, int(n_iter), *shares[: n_iter + 1].T)
        means = centroids + sums / np.maximum(counts, 1)[:, None]
        if unit:
            lengths = np.linalg.norm(means, axis=1)
            means /= np.maximum(lengths, 1e-30)[:, None]
            touched &= lengths > 1e-6
        new = np.where(touched[:, None], means, centroids).astype(np.float32)
        moved = (new != centroids).any(axis=1)
        at = Passes(new, moved, best, n_iter + np.int32(1), shares)
        if (n_iter + 1) % stops.iterations == 0:
            stops.tell(
                lambda at=at: from_devices("iterating", jax.tree.map(np.copy, at), _PASSES_SPECS, n)
            )


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


class Picks(NamedTuple):
    """Where the seeding stands between two centres."""

    centres: np.ndarray
    """float32 ``[k, d]``; zeros where none is chosen yet."""
    closest: np.ndarray
    """float32 ``[n]``, squared distances to the nearest centre."""
    n_chosen: np.ndarray
    """int32."""


_PICKS_SPECS = Picks(SAME, ROWS, SAME)


def seed_chunks(
    chunks: Chunks, n_clusters: int, key: jax.Array, stops: Stops = NO_STOPS
) -> np.ndarray:
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
    is_row = (np.arange(n_padded) < n).astype(np.float32)
    at = Picks(np.zeros((n_clusters, chunks.x.shape[1]), np.float32), is_row, np.int32(0))
    if stops.phase == "seeding":
        at = jax.tree.map(np.array, to_devices(stops.state, at, _PICKS_SPECS, n, None))
    every = stops.every(max(1, n_clusters // trials), n_clusters)
    while at.n_chosen < n_clusters:
        centres, closest, i = at
        # Where every row lies on a centre any row will do.
        blocks = (closest if closest.any() else is_row).reshape(-1, block)
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
        centres[i] = candidates[best]
        at = Picks(centres, improved[best], i + np.int32(1))
        if at.n_chosen % every == 0:
            stops.tell(
                lambda at=at: from_devices("seeding", jax.tree.map(np.copy, at), _PICKS_SPECS, n)
            )
    return at.centres


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
    squared = squared_distances(x, centroids, best.labels, block=block)
    sums = sums_of_differences(x, weights, best.labels, centroids)
    in_doubt = jnp.sum(doubt, dtype=jnp.float32)
    sums, counts, in_doubt = parallel.psum((*sums, in_doubt), axis_name)
    return best, squared, sums, counts, in_doubt, share


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
