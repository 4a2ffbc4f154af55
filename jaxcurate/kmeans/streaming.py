"""k-means of rows that do not fit in memory, with one pass over the chunks for each step."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.kmeans.assignment.exact import recheck, rounding_of
from jaxcurate.kmeans.assignment.pruned import (
    PRUNING_SPECS,
    PruningBounds,
    no_bounds,
    search_pruned,
)
from jaxcurate.kmeans.checkpoint import NO_STOPS, Stops, from_devices, to_devices
from jaxcurate.kmeans.kernels.cluster_sums import sums_of_differences
from jaxcurate.kmeans.kernels.scores import Precision, Top2
from jaxcurate.kmeans.lloyd import assigned, measured
from jaxcurate.kmeans.row_stream import RowStream
from jaxcurate.kmeans.rows import Rows
from jaxcurate.kmeans.seeding.d2_draws import Draws, draw_blocks, kept, nearer, take
from jaxcurate.kmeans.seeding.plus_plus import n_ahead, n_candidates, squared_distances_to
from jaxcurate.runtime import collectives
from jaxcurate.runtime.devices import ONE_DEVICE, ROWS, SAME, fetch, padded_size, specs

Item = TypeVar("Item")


class StreamedResult(NamedTuple):
    """Result of the iterations."""

    centroids: np.ndarray
    """Centroids, float32 ``[k, d]``."""
    labels: np.ndarray
    """Nearest centroid of each row, int32 ``[n]``."""
    distances: np.ndarray
    """Squared distance of each row to its centroid, float32 ``[n]``."""
    n_iter: int
    """Number of iterations."""
    distance_fraction: np.ndarray
    """Fraction of the ``n k`` scores computed in each pass, float32 ``[n_iter + 1]``."""
    recheck_fraction: np.ndarray
    """Fraction of the rows rechecked in each pass, float32 ``[n_iter + 1]``."""


class Passes(NamedTuple):
    """State of the iterations between two passes."""

    centroids: np.ndarray
    """Centroids for the next pass, float32 ``[k, d]``."""
    before: np.ndarray
    """Centroids of the last pass, float32 ``[k, d]``."""
    best: Top2
    """Best two centroids of each row in the last pass, on the host; label -1 before the first."""
    bounds: PruningBounds
    """Lower bounds for blocks of rows, chunk by chunk."""
    sums: np.ndarray
    """Sums of the rows of each cluster, float64 ``[k, d]``."""
    counts: np.ndarray
    """Numbers of rows of each cluster, float64 ``[k]``."""
    n_done: np.ndarray | np.int32
    """Number of passes, int32."""
    shares: np.ndarray
    """Fractions of computed scores and of rechecked rows, float32 ``[max_iter + 1, 2]``."""


_PASSES_SPECS = specs(
    Passes, SAME, SAME, specs(Top2, ROWS, ROWS, ROWS), PRUNING_SPECS, SAME, SAME, SAME, SAME
)


def iterate_chunks(
    chunks: RowStream,
    centroids: np.ndarray | None,
    n_clusters: int,
    max_iter: int,
    precision: Precision = "float32",
    *,
    unit: bool = False,
    stops: Stops = NO_STOPS,
) -> StreamedResult:
    """Runs Lloyd's iterations as in :mod:`jaxcurate.kmeans.lloyd`, in one pass for each.

    The sum of each cluster's rows is kept, and updated by the rows that join or leave.

    Args:
        chunks: Rows in chunks.
        centroids: Initial centroids, float32 ``[k, d]``; not used if ``stops`` has a state.
        n_clusters: Number of clusters ``k``.
        max_iter: Largest number of iterations.
        precision: Precision of the first scores; the labels do not depend on it.
        unit: If True, scales the means to length 1.
        stops: State to resume from, and when to report states.
    """
    kernel = chunks.spmd(
        _assign_and_sum,
        n_clusters,
        (ROWS, ROWS, SAME, SAME, ROWS, PRUNING_SPECS, SAME),
        (ROWS, PRUNING_SPECS, SAME, SAME, SAME, SAME),
        precision=precision,
    )
    n, k = len(chunks.x), n_clusters
    state = _nothing_done(chunks, centroids, k, max_iter)
    if stops.state is not None and stops.phase == "iterating":
        resumed = to_devices(stops.state, state, _PASSES_SPECS, n, ONE_DEVICE)
        state = jax.tree.map(np.array, resumed)
    while True:
        current, _, best, bounds, sums, counts, n_iter, fractions = state
        touched, recheck_fraction, distance_fraction = np.full(k, n_iter == 0), 0.0, 0.0

        def launch(chunk: int, span: slice, rows: Rows, state: Passes = state) -> tuple:
            before = Top2(*(_filled(whole[span], rows) for whole in state.best))
            known = PruningBounds(*(whole[chunk] for whole in state.bounds))
            moved = state.before, state.centroids
            results = kernel(rows.x, rows.weights, *moved, before, known, state.n_done)
            return chunk, span, results

        # The host adds the results of a chunk while the devices are busy with the next chunk.
        for chunk, span, results in _one_ahead(launch, chunks):
            now, known, s, c, n_ambiguous, fraction = jax.tree.map(fetch, results)
            recheck_fraction += float(n_ambiguous) / n
            distance_fraction += float(fraction) * (span.stop - span.start) / n
            old, new = best.labels[span], now.labels[: span.stop - span.start]
            changed = old != new
            affected = np.zeros(k, bool)
            affected[new[changed]] = True
            affected[old[changed & (old >= 0)]] = True
            shift = c.astype(np.float64)[affected, None] * current[affected]
            sums[affected] += s[affected] + shift
            counts += c  # whole numbers, whose float64 sum is exact up to 2**53
            touched |= affected
            for whole, chunk_values in zip(best, now, strict=True):
                whole[span] = chunk_values[: span.stop - span.start]
            for whole, chunk_values in zip(bounds, known, strict=True):
                whole[chunk] = chunk_values
        fractions[n_iter] = min(distance_fraction + recheck_fraction, 1.0), recheck_fraction
        if not touched.any() or n_iter == max_iter:
            distances = _measure_chunks(chunks, current, best.labels)
            return StreamedResult(
                current, best.labels, distances, int(n_iter), *fractions[: n_iter + 1].T
            )
        means = sums / np.maximum(counts, 1)[:, None]
        touched &= counts > 0
        if unit:
            lengths = np.linalg.norm(means, axis=1)
            means /= np.maximum(lengths, 1e-30)[:, None]
            touched &= lengths > 1e-6
        new = np.where(touched[:, None], means, current).astype(np.float32)
        state = Passes(new, current, best, bounds, sums, counts, n_iter + np.int32(1), fractions)
        if (n_iter + 1) % stops.iterations == 0:
            stops.tell(
                lambda state=state: from_devices(
                    "iterating", jax.tree.map(np.copy, state), _PASSES_SPECS, n
                )
            )


def _nothing_done(
    chunks: RowStream, centroids: np.ndarray | None, n_clusters: int, max_iter: int
) -> Passes:
    """Returns the state before the first pass, with ``centroids`` ``[k, d]``."""
    n, d = chunks.x.shape
    if centroids is None:
        centroids = np.zeros((n_clusters, d), np.float32)
    shards = chunks.devices.count
    bounds_fit = 4 * n_clusters * len(chunks) * chunks.n_rows // chunks.block <= chunks.spare
    bounds = no_bounds(chunks.n_rows // shards if bounds_fit else 1, d, n_clusters, chunks.block)
    for_all = lambda a: np.zeros((len(chunks), shards * a.shape[0], *a.shape[1:]), a.dtype)
    return Passes(
        np.asarray(centroids),
        np.asarray(centroids),
        Top2(np.full(n, -1, np.int32), np.zeros(n, np.float32), np.zeros(n, np.float32)),
        jax.tree.map(for_all, bounds),
        np.zeros((n_clusters, d)),
        np.zeros(n_clusters),
        np.int32(0),
        np.zeros((max_iter + 1, 2), np.float32),
    )


def _one_ahead(launch: Callable[..., Item], chunks: RowStream) -> Iterator[Item]:
    """Yields the result of ``launch`` for each chunk, after the launch for the next chunk."""
    done = []
    for chunk, (span, rows) in enumerate(chunks):
        launched = launch(chunk, span, rows)
        yield from done
        # Waits before it takes the next chunk, so that only two chunks are in memory.
        done = [jax.block_until_ready(launched)]
    yield from done


def _filled(values: np.ndarray, rows: Rows) -> np.ndarray:
    """Returns values of rows, filled up with zeros for the padding."""
    fill = rows.x.shape[0] - rows.n
    return np.pad(values, (0, fill)) if fill else values


def _measure_chunks(chunks: RowStream, centroids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns squared distances, float32 ``[n]``, of rows to their centroids, in one pass."""
    kernel = chunks.spmd(measured, len(centroids), (ROWS, SAME, ROWS), ROWS)
    distances = np.empty(len(chunks.x), np.float32)
    for span, rows in chunks:
        filled = _filled(labels[span], rows)
        distances[span] = fetch(kernel(rows.x, centroids, filled))[: rows.n]
    return distances


def assign_chunks(chunks: RowStream, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest centroid int32 ``[n]`` and its squared distance float32 ``[n]``."""
    kernel = chunks.spmd(assigned, len(centroids), (ROWS, SAME), (ROWS, ROWS))
    labels = np.empty(len(chunks.x), np.int32)
    distances = np.empty(len(chunks.x), np.float32)
    for span, rows in chunks:
        nearest, squared = kernel(rows.x, centroids)
        labels[span] = fetch(nearest)[: rows.n]
        distances[span] = fetch(squared)[: rows.n]
    return labels, distances


class Picks(NamedTuple):
    """State of the seeding between two centroids."""

    centroids: np.ndarray
    """Chosen centroids, float32 ``[k, d]``, followed by zeros."""
    closest: np.ndarray
    """Squared distance of each row to the nearest centroid, float32 ``[n]``."""
    n_chosen: np.ndarray | np.int32
    """Number of chosen centroids, int32."""


_PICKS_SPECS = specs(Picks, SAME, ROWS, SAME)


def seed_chunks(
    chunks: RowStream, n_clusters: int, key: jax.Array, stops: Stops = NO_STOPS
) -> np.ndarray:
    """Returns centroids of greedy k-means++, in one pass over the rows for each centroid.

    The method is that of :mod:`jaxcurate.kmeans.seeding.plus_plus`. The host holds
    ``2 + floor(ln k)`` numbers for each row. ``"k-means||"`` needs six passes instead of ``k``.

    Returns:
        float32 ``[k, d]``.
    """
    n, d = chunks.x.shape
    trials = n_candidates(n_clusters)
    kernel = chunks.spmd(_improve, n_clusters, (ROWS, ROWS, ROWS, SAME), (ROWS, ROWS))
    # Only the last chunk has padding, after its rows, so that blocks are contiguous.
    n_padded = padded_size(n, chunks.block)
    nothing = np.zeros((n_clusters, d), np.float32), np.zeros(n_padded, np.float32)
    state = Picks(*nothing, np.int32(0))
    if stops.state is not None and stops.phase == "seeding":
        resumed = to_devices(stops.state, state, _PICKS_SPECS, n, ONE_DEVICE)
        state = jax.tree.map(np.array, resumed)
    every, reported = stops.every(max(1, n_clusters // trials), n_clusters), int(state.n_chosen)
    while state.n_chosen < n_clusters:
        if state.n_chosen >= reported + every:
            reported = int(state.n_chosen)
            stops.tell(
                lambda state=state: from_devices(
                    "seeding", jax.tree.map(np.copy, state), _PICKS_SPECS, n
                )
            )
        n_tried = trials if state.n_chosen else 1
        draws = _drawn(
            chunks,
            state.closest,
            jax.random.fold_in(key, state.n_chosen),
            n_ahead(n_clusters, d) if state.n_chosen else 1,
        )
        while state.n_chosen < n_clusters and int(jnp.sum(kept(draws))) >= n_tried:
            centroids, closest, i = state
            indices, draws = take(draws, n_tried)
            candidates = draws.rows[indices]
            improved = np.zeros((n_tried, n_padded), np.float32)
            costs = np.zeros(n_tried, np.float64)
            for span, rows in chunks:
                before = np.full(rows.x.shape[0], np.inf, np.float32)
                if i:
                    before[: rows.n] = closest[span]
                now, sums = kernel(rows.x, rows.weights, before, candidates)
                improved[:, span] = fetch(now)[: rows.n].T
                costs += fetch(sums).astype(np.float64).sum(axis=0)
            best = int(np.argmin(costs))
            centroids[i] = candidates[best]
            draws = nearer(draws, centroids[i])
            state = Picks(centroids, improved[best], i + np.int32(1))
    return state.centroids


def _drawn(chunks: RowStream, closest: np.ndarray, key: jax.Array, n_draws: int) -> Draws:
    """Returns draws as :func:`jaxcurate.kmeans.seeding.d2_draws.draw` does, made on the host."""
    block = chunks.block
    # If every row lies on a centroid, any row may be drawn.
    mass = closest if closest.any() else np.arange(len(closest)) < len(chunks.x)
    blocks = mass.astype(np.float32).reshape(-1, block)
    sums = jnp.asarray(blocks.sum(axis=1))
    chosen, rest, chances = map(np.asarray, draw_blocks(key, n_draws, sums, block))
    mass = blocks[chosen]
    inner = (np.cumsum(mass, axis=1) <= rest[:, None]).sum(axis=1)
    inner = np.minimum(inner, block - 1)
    empty = np.take_along_axis(mass, inner[:, None], axis=1)[:, 0] == 0
    inner[empty] = mass[empty].argmax(axis=1)
    index = chosen * block + inner
    then = jnp.asarray(closest[index])
    return Draws(
        jnp.asarray(chunks.take(index)),
        jnp.asarray(index),
        then,
        then,
        jnp.asarray(chances),
        jnp.int32(0),
    )


def _assign_and_sum(
    x: jax.Array,
    weights: jax.Array,
    old: jax.Array,
    centroids: jax.Array,
    before: Top2,
    bounds: PruningBounds,
    n_iter: jax.Array,
    *,
    block: int,
    precision: Precision,
    axis_name: str | None,
) -> tuple[Top2, PruningBounds, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Assigns the rows of a chunk, and adds up the rows that join or leave each cluster.

    Returns:
        The best two centroids; the new lower bounds; the changes of the sums ``[k, d]`` of the
        rows' differences from their centroids, and of the counts ``[k]``; the number of ambiguous
        rows; and the fraction of the scores that were computed.
    """
    moved = jnp.any(centroids != old, axis=1) | (n_iter == 0)
    best, ambiguous, distance_fraction, bounds = search_pruned(
        x,
        weights,
        old,
        centroids,
        moved,
        before,
        bounds,
        n_iter,
        rounding_of(x, precision),
        block=block,
        precision=precision,
        axis_name=axis_name,
    )
    best = recheck(x, centroids, best, ambiguous)
    weights = jnp.where(best.labels != before.labels, weights, 0)
    every = jnp.ones_like(moved)
    joined, left = (
        sums_of_differences(x, weights, labels, centroids, every)
        for labels in (best.labels, before.labels)
    )
    change = jax.tree.map(jnp.subtract, joined, left)
    n_ambiguous = jnp.sum(ambiguous, dtype=jnp.int32)
    sums, counts, n_ambiguous = collectives.psum((*change, n_ambiguous), axis_name)
    return best, bounds, sums, counts, n_ambiguous, distance_fraction


def _improve(
    x: jax.Array,
    weights: jax.Array,
    closest: jax.Array,
    candidates: jax.Array,
    *,
    block: int,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array]:
    """Returns squared distances ``[n, c]`` after the choice of each candidate, and block sums."""
    del axis_name  # the host adds up the blocks
    squared = squared_distances_to(candidates, x, jnp.sum(x**2, axis=1))
    improved = jnp.minimum(squared, closest[None, :]) * weights[None, :]
    return improved.T, jnp.sum(improved.reshape(len(candidates), -1, block), axis=2).T
