"""k-means of rows that do not fit in memory: the same steps, a pass over the chunks for each."""

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


class Found(NamedTuple):
    """Where the iterations ended."""

    centroids: np.ndarray
    """float32 ``[k, d]``."""
    labels: np.ndarray
    """int32 ``[n]``."""
    distances: np.ndarray
    """float32 ``[n]``, squared, to the own centroid."""
    n_iter: int
    distance_fraction: np.ndarray
    """float32 ``[n_iter + 1]``: for each pass the share of ``n k`` scores worked out."""
    recheck_fraction: np.ndarray
    """float32 ``[n_iter + 1]``: for each pass the share of rows searched again."""


class Passes(NamedTuple):
    """Where the iterations stand between two passes."""

    centroids: np.ndarray
    """float32 ``[k, d]``, to which the rows are to be assigned."""
    before: np.ndarray
    """float32 ``[k, d]``, to which they were assigned in the last pass."""
    best: Top2
    """Best two centroids of each row in the last pass, on the host; the label is -1 before the
    first."""
    bounds: PruningBounds
    """Lower bounds for blocks of rows, chunk by chunk."""
    sums: np.ndarray
    """float64 ``[k, d]``, what the rows of each cluster add up to."""
    counts: np.ndarray
    """float64 ``[k]``, how many they are."""
    n_done: np.ndarray | np.int32
    """int32, passes."""
    shares: np.ndarray
    """float32 ``[max_iter + 1, 2]``, of scores worked out and of rows searched again."""


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
) -> Found:
    """Returns Lloyd's iterations as in :mod:`jaxcurate.kmeans.lloyd`, one pass for each.

    What a cluster's rows add up to is kept, and changed by those that join or leave.

    Args:
        chunks: the rows.
        centroids: float32 ``[k, d]``, where to begin; not looked at where ``stops`` has a state.
        n_clusters: ``k``.
        max_iter: iterations at most.
        precision: of the distances that are tried first.
        unit: bring the means to length 1.
        stops: where to go on, and where to tell of it.
    """
    kernel = chunks.devices.spmd(
        _assign_and_sum,
        (ROWS, ROWS, SAME, SAME, ROWS, PRUNING_SPECS, SAME),
        (ROWS, PRUNING_SPECS, SAME, SAME, SAME, SAME),
        block=chunks.block,
        precision=precision,
    )
    n, k = len(chunks.x), n_clusters
    at = _nothing_done(chunks, centroids, k, max_iter)
    if stops.state is not None and stops.phase == "iterating":
        at = jax.tree.map(np.array, to_devices(stops.state, at, _PASSES_SPECS, n, ONE_DEVICE))
    while True:
        current, _, best, bounds, sums, counts, n_iter, shares = at
        touched, recheck_fraction, share = np.full(k, n_iter == 0), 0.0, 0.0

        def launch(chunk: int, part: slice, rows: Rows, at: Passes = at) -> tuple:
            own = Top2(*(_filled(whole[part], rows) for whole in at.best))
            known = PruningBounds(*(whole[chunk] for whole in at.bounds))
            results = kernel(rows.x, rows.weights, at.before, at.centroids, own, known, at.n_done)
            return chunk, part, results

        # The host takes in what one chunk gave while the devices are busy with the next.
        for chunk, part, results in _one_ahead(launch, chunks):
            now, known, s, c, ambiguous, distance_fraction = jax.tree.map(fetch, results)
            recheck_fraction += float(ambiguous) / n
            share += float(distance_fraction) * (part.stop - part.start) / n
            old, new = best.labels[part], now.labels[: part.stop - part.start]
            changed = old != new
            here = np.zeros(k, bool)
            here[new[changed]] = True
            here[old[changed & (old >= 0)]] = True
            sums[here] += s[here] + c.astype(np.float64)[here, None] * current[here]
            counts += c  # of a chunk whole numbers, of all chunks exact up to 2**53
            touched |= here
            for whole, of_chunk in zip(best, now, strict=True):
                whole[part] = of_chunk[: part.stop - part.start]
            for whole, of_chunk in zip(bounds, known, strict=True):
                whole[chunk] = of_chunk
        shares[n_iter] = min(share + recheck_fraction, 1.0), recheck_fraction
        if not touched.any() or n_iter == max_iter:
            distances = _measure_chunks(chunks, current, best.labels)
            return Found(current, best.labels, distances, int(n_iter), *shares[: n_iter + 1].T)
        means = sums / np.maximum(counts, 1)[:, None]
        touched &= counts > 0
        if unit:
            lengths = np.linalg.norm(means, axis=1)
            means /= np.maximum(lengths, 1e-30)[:, None]
            touched &= lengths > 1e-6
        new = np.where(touched[:, None], means, current).astype(np.float32)
        at = Passes(new, current, best, bounds, sums, counts, n_iter + np.int32(1), shares)
        if (n_iter + 1) % stops.iterations == 0:
            stops.tell(
                lambda at=at: from_devices("iterating", jax.tree.map(np.copy, at), _PASSES_SPECS, n)
            )


def _nothing_done(
    chunks: RowStream, centroids: np.ndarray | None, n_clusters: int, max_iter: int
) -> Passes:
    """Returns where iterations from ``centroids`` ``[k, d]`` begin."""
    n, d = chunks.x.shape
    if centroids is None:
        centroids = np.zeros((n_clusters, d), np.float32)
    shards = chunks.devices.count
    gaps_fit = 4 * n_clusters * len(chunks) * chunks.n_rows // chunks.block <= chunks.spare
    bounds = no_bounds(chunks.n_rows // shards if gaps_fit else 1, d, n_clusters, chunks.block)
    of_all = lambda a: np.zeros((len(chunks), shards * a.shape[0], *a.shape[1:]), a.dtype)
    return Passes(
        np.asarray(centroids),
        np.asarray(centroids),
        Top2(np.full(n, -1, np.int32), np.zeros(n, np.float32), np.zeros(n, np.float32)),
        jax.tree.map(of_all, bounds),
        np.zeros((n_clusters, d)),
        np.zeros(n_clusters),
        np.int32(0),
        np.zeros((max_iter + 1, 2), np.float32),
    )


def _one_ahead(launch: Callable[..., Item], chunks: RowStream) -> Iterator[Item]:
    """Yields what ``launch`` gives for each chunk, told when the next one has been launched."""
    done = []
    for chunk, (part, rows) in enumerate(chunks):
        launched = launch(chunk, part, rows)
        yield from done
        # Before the next one is asked for: two chunks are alive then, this and the one ahead.
        done = [jax.block_until_ready(launched)]
    yield from done


def _filled(values: np.ndarray, rows: Rows) -> np.ndarray:
    """Returns a value for each of the rows, and zeros for their padding."""
    fill = rows.x.shape[0] - rows.n
    return np.pad(values, (0, fill)) if fill else values


def _measure_chunks(chunks: RowStream, centroids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns squared distances float32 ``[n]`` to the own centroids, in one pass."""
    kernel = chunks.devices.spmd(measured, (ROWS, SAME, ROWS), ROWS, block=chunks.block)
    distances = np.empty(len(chunks.x), np.float32)
    for part, rows in chunks:
        own = _filled(labels[part], rows)
        distances[part] = fetch(kernel(rows.x, centroids, own))[: rows.n]
    return distances


def assign_chunks(chunks: RowStream, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels int32 ``[n]`` and squared distances float32 ``[n]``, in one pass."""
    kernel = chunks.devices.spmd(assigned, (ROWS, SAME), (ROWS, ROWS), block=chunks.block)
    labels = np.empty(len(chunks.x), np.int32)
    distances = np.empty(len(chunks.x), np.float32)
    for part, rows in chunks:
        own, squared = kernel(rows.x, centroids)
        labels[part] = fetch(own)[: rows.n]
        distances[part] = fetch(squared)[: rows.n]
    return labels, distances


class Picks(NamedTuple):
    """Where the seeding stands between two centroids."""

    centroids: np.ndarray
    """float32 ``[k, d]``; zeros where none is chosen yet."""
    closest: np.ndarray
    """float32 ``[n]``, squared distances to the nearest centroid."""
    n_chosen: np.ndarray | np.int32
    """int32."""


_PICKS_SPECS = specs(Picks, SAME, ROWS, SAME)


def seed_chunks(
    chunks: RowStream, n_clusters: int, key: jax.Array, stops: Stops = NO_STOPS
) -> np.ndarray:
    """Returns greedy k-means++ as in :mod:`jaxcurate.kmeans.seeding.plus_plus`, one pass for each
    centroid.

    Holds ``2 + floor(ln k)`` numbers for each row on the host. ``k`` passes take long on a large
    store: ``"k-means||"`` needs six.

    Returns:
        float32 ``[k, d]``.
    """
    n, d = chunks.x.shape
    trials = n_candidates(n_clusters)
    kernel = chunks.devices.spmd(
        _improve, (ROWS, ROWS, ROWS, SAME), (ROWS, ROWS), block=chunks.block
    )
    # Padding lies behind the rows of the last chunk alone, so that blocks follow each other.
    n_padded = padded_size(n, chunks.block)
    nothing = np.zeros((n_clusters, d), np.float32), np.zeros(n_padded, np.float32)
    at = Picks(*nothing, np.int32(0))
    if stops.state is not None and stops.phase == "seeding":
        at = jax.tree.map(np.array, to_devices(stops.state, at, _PICKS_SPECS, n, ONE_DEVICE))
    every, told = stops.every(max(1, n_clusters // trials), n_clusters), int(at.n_chosen)
    while at.n_chosen < n_clusters:
        if at.n_chosen >= told + every:
            told = int(at.n_chosen)
            stops.tell(
                lambda at=at: from_devices("seeding", jax.tree.map(np.copy, at), _PICKS_SPECS, n)
            )
        n_tried = trials if at.n_chosen else 1
        draws = _drawn(
            chunks,
            at.closest,
            jax.random.fold_in(key, at.n_chosen),
            n_ahead(n_clusters, d) if at.n_chosen else 1,
        )
        while at.n_chosen < n_clusters and int(jnp.sum(kept(draws))) >= n_tried:
            centroids, closest, i = at
            which, draws = take(draws, n_tried)
            candidates = draws.rows[which]
            improved = np.zeros((n_tried, n_padded), np.float32)
            costs = np.zeros(n_tried, np.float64)
            for part, rows in chunks:
                before = np.full(rows.x.shape[0], np.inf, np.float32)
                if i:
                    before[: rows.n] = closest[part]
                now, sums = kernel(rows.x, rows.weights, before, candidates)
                improved[:, part] = fetch(now)[: rows.n].T
                costs += fetch(sums).astype(np.float64).sum(axis=0)
            best = int(np.argmin(costs))
            centroids[i] = candidates[best]
            draws = nearer(draws, centroids[i])
            at = Picks(centroids, improved[best], i + np.int32(1))
    return at.centroids


def _drawn(chunks: RowStream, closest: np.ndarray, key: jax.Array, n_draws: int) -> Draws:
    """Works as :func:`jaxcurate.kmeans.seeding.d2_draws.draw`, with ``closest`` padded to whole
    blocks."""
    block = chunks.block
    # Where every row lies on a centroid any row will do.
    mass = closest if closest.any() else np.arange(len(closest)) < len(chunks.x)
    blocks = mass.astype(np.float32).reshape(-1, block)
    sums = jnp.asarray(blocks.sum(axis=1))
    chosen, rest, chances = map(np.asarray, draw_blocks(key, n_draws, sums, block))
    mass = blocks[chosen]
    inner = (np.cumsum(mass, axis=1) <= rest[:, None]).sum(axis=1)
    inner = np.minimum(inner, block - 1)
    empty = np.take_along_axis(mass, inner[:, None], axis=1)[:, 0] == 0
    inner[empty] = mass[empty].argmax(axis=1)
    at = chosen * block + inner
    then = jnp.asarray(closest[at])
    return Draws(
        jnp.asarray(chunks.take(at)),
        jnp.asarray(at),
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
    """Returns the best; what is known of neighbourhoods; by how much the sums ``[k, d]`` of the
    rows' differences from their centroids, and the counts, change by rows that join and leave; how
    many rows were in doubt; and the share of scores worked out."""
    moved = jnp.any(centroids != old, axis=1) | (n_iter == 0)
    best, ambiguous, share, bounds = search_pruned(
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
    recheck_fraction = jnp.sum(ambiguous, dtype=jnp.int32)
    sums, counts, recheck_fraction = collectives.psum((*change, recheck_fraction), axis_name)
    return best, bounds, sums, counts, recheck_fraction, share


def _improve(
    x: jax.Array,
    weights: jax.Array,
    closest: jax.Array,
    candidates: jax.Array,
    *,
    block: int,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array]:
    """Returns squared distances ``[n, c]`` with each candidate taken, and their sums by blocks."""
    del axis_name  # the host adds up the blocks
    squared = squared_distances_to(candidates, x, jnp.sum(x**2, axis=1))
    improved = jnp.minimum(squared, closest[None, :]) * weights[None, :]
    return improved.T, jnp.sum(improved.reshape(len(candidates), -1, block), axis=2).T
