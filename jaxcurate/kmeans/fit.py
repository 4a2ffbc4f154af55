"""Fits of k-means to rows on devices or in chunks: seeding, Lloyd's iterations, assignment."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import jax
import numpy as np

from jaxcurate.artifacts.tree import n_surplus
from jaxcurate.checks import InputError
from jaxcurate.kmeans.checkpoint import NO_STOPS, Stops, from_devices, to_devices
from jaxcurate.kmeans.kernels.scores import Precision
from jaxcurate.kmeans.lloyd import (
    LLOYD_SPECS,
    LloydState,
    assigned,
    lloyd_like,
    measured,
    more_iterations,
    unassigned,
)
from jaxcurate.kmeans.row_stream import RowStream
from jaxcurate.kmeans.rows import Rows
from jaxcurate.kmeans.seeding.parallel import kmeans_parallel
from jaxcurate.kmeans.seeding.plus_plus import (
    SEEDS_SPECS,
    first_seed,
    more_seeds,
    n_candidates,
    seeds_like,
)
from jaxcurate.kmeans.sharded import RING_SPECS, ring_lloyd
from jaxcurate.kmeans.streaming import assign_chunks, iterate_chunks, seed_chunks
from jaxcurate.runtime.devices import ROWS, SAME, fetch, padded_size

InitName = Literal["k-means++", "k-means||", "random"]
NO_SHARDS = "shard_centroids=True goes neither with streaming nor with states"
"""Error for arguments that cannot be combined with centroids split over the devices."""


@dataclass(frozen=True)
class KMeansResult:
    """Clustering of rows ``[n, d]`` in ``k`` clusters.

    Examples:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> result = jc.kmeans(np.array([[0.0, 0], [0, 1], [9, 9], [9, 8]]), 2)
        >>> result.centroids.shape, result.labels.dtype.name, result.distances.tolist()
        ((2, 2), 'int32', [0.25, 0.25, 0.25, 0.25])
    """

    centroids: np.ndarray
    """Centroids, float32 ``[k, d]``."""
    labels: np.ndarray
    """Index of the nearest centroid of each row, int32 ``[n]``."""
    distances: np.ndarray
    """Squared Euclidean distance of each row to its centroid, float32 ``[n]``."""
    n_iter: int
    """Number of Lloyd's iterations."""
    distance_fraction: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """Fraction of the ``n k`` distances that were computed at the start and after each iteration,
    float32 ``[n_iter + 1]``. The other distances could not change a label."""
    recheck_fraction: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """Fraction of the rows whose nearest centroid was rechecked, since rounding could have changed
    it, at the start and after each iteration, float32 ``[n_iter + 1]``."""

    @property
    def inertia(self) -> float:
        """Sum of :attr:`distances`, added up in float64."""
        return float(np.sum(self.distances, dtype=np.float64))

    @property
    def n_surplus(self) -> int:
        """Number of empty clusters whose centroid another cluster has too, as there were fewer
        distinct rows than clusters."""
        return n_surplus(self.centroids, self.labels)


def seeded(
    rows: Rows | RowStream, n_clusters: int, init: str, key: jax.Array, stops: Stops = NO_STOPS
) -> jax.Array | np.ndarray:
    """Returns initial centroids ``[k, d]``, chosen among the rows.

    Raises:
        InputError: ``init`` is not a known name.
    """
    if isinstance(rows, RowStream):
        n, take, chunks = len(rows.x), rows.take, lambda: rows
    else:
        n, take = rows.n, lambda chosen: fetch(_taken(rows.x, chosen))
        chunks = lambda: [(slice(0, n), rows)]
    if init == "k-means++":
        if isinstance(rows, RowStream):
            return seed_chunks(rows, n_clusters, key, stops)
        return _greedily_seeded(rows, n_clusters, key, stops)
    if init == "k-means||":
        return kmeans_parallel(chunks, take, n, n_clusters, key, rows.devices)
    if init == "random":
        return take(np.asarray(jax.random.choice(key, n, (n_clusters,), replace=False)))
    known = ", ".join(map(repr, get_args(InitName)))
    raise InputError(f"init={init!r}; known: {known}, or an array [k, d]")


@jax.jit
def _taken(x: jax.Array, chosen: np.ndarray) -> jax.Array:
    return x[chosen]  # without jit, each operation of this would be compiled for itself


def _greedily_seeded(rows: Rows, n_clusters: int, key: jax.Array, stops: Stops) -> jax.Array:
    # Each device holds all centroids, even if they are split over the devices later: every step
    # compares its draws with all of them, for which split ones would have to be sent around.
    specs = (ROWS, ROWS, SAME)
    if stops.state is not None and stops.phase == "seeding":
        m, d = rows.x.shape
        seeds = to_devices(
            stops.state, seeds_like(m, d, n_clusters), SEEDS_SPECS, rows.n, rows.devices
        )
    else:
        begin = rows.spmd(first_seed, n_clusters, specs, SEEDS_SPECS, n_clusters=n_clusters)
        seeds = begin(rows.x, rows.weights, key)
    go_on = rows.spmd(more_seeds, n_clusters, (*specs, SEEDS_SPECS, SAME), SEEDS_SPECS)
    # Choosing this number of centroids costs as much as an iteration.
    every = stops.every(max(1, n_clusters // n_candidates(n_clusters)), n_clusters, rows.devices)
    while (done := int(seeds.n_chosen)) < n_clusters:
        seeds = go_on(rows.x, rows.weights, key, seeds, min(done + every, n_clusters))
        stops.tell(lambda s=seeds: from_devices("seeding", s, SEEDS_SPECS, rows.n))
    return seeds.centroids


def fitted(
    rows: Rows,
    centroids: jax.Array | np.ndarray | None,
    n_clusters: int,
    max_iter: int,
    precision: Precision = "float32",
    *,
    unit: bool = False,
    stops: Stops = NO_STOPS,
) -> KMeansResult:
    """Returns the result of Lloyd's iterations from ``centroids`` ``[k, d]``, still normalized."""
    state = _iterated(rows, centroids, n_clusters, max_iter, precision, unit, stops)
    measure = rows.spmd(measured, n_clusters, (ROWS, SAME, ROWS), ROWS)
    distances = measure(rows.x, np.asarray(state.centroids), state.best.labels)
    n_iter = int(state.n_iter)
    return KMeansResult(
        np.asarray(state.centroids),
        fetch(state.best.labels)[: rows.n],
        fetch(distances)[: rows.n],
        n_iter,
        np.asarray(state.distance_fraction)[: n_iter + 1],
        np.asarray(state.recheck_fraction)[: n_iter + 1],
    )


def fitted_in_a_ring(
    rows: Rows,
    centroids: jax.Array | np.ndarray,
    max_iter: int,
    precision: Precision,
    unit: bool,
) -> KMeansResult:
    """Returns the result of :func:`fitted`, with the centroids split over the devices."""
    kernel = rows.spmd(
        ring_lloyd,
        len(centroids),
        (ROWS, ROWS, ROWS),
        RING_SPECS,
        max_iter=max_iter,
        precision=precision,
        unit=unit,
    )
    k = len(centroids)
    fill = padded_size(k, rows.devices.count) - k
    # Far from all rows, whose entries are at most near 1; a power of two is exact in bfloat16.
    centroids = np.pad(np.asarray(centroids), ((0, fill), (0, 0)), constant_values=2.0**50)
    state = kernel(rows.x, rows.weights, rows.devices.put_rows(centroids)[0])
    n_iter = int(state.n_iter)
    return KMeansResult(
        fetch(state.centroids)[:k],
        fetch(state.labels)[: rows.n],
        fetch(state.distances)[: rows.n],
        n_iter,
        np.ones(n_iter + 1, np.float32),
        np.zeros(n_iter + 1, np.float32),
    )


def iterate(
    rows: Rows | RowStream,
    centroids: jax.Array | np.ndarray | None,
    n_clusters: int,
    max_iter: int,
    precision: Precision = "float32",
    *,
    unit: bool = False,
    shard_centroids: bool = False,
    stops: Stops = NO_STOPS,
) -> jax.Array | np.ndarray:
    """Returns the centroids ``[k, d]`` after Lloyd's iterations, normalized as the rows are.

    Args:
        rows: Rows on the devices, or in chunks.
        centroids: Initial centroids; None if ``stops`` has a state to resume from.
        n_clusters: Number of clusters ``k``.
        max_iter: Largest number of iterations.
        precision: Precision of the products, as in :func:`jaxcurate.kmeans.kmeans`.
        unit: True for spherical k-means.
        shard_centroids: If True, splits the centroids over the devices; without states.
        stops: State to resume from, and when to report states.

    Raises:
        InputError: The centroids are to be split, but the rows are read in chunks.
    """
    if shard_centroids:
        if isinstance(rows, RowStream) or centroids is None:
            raise InputError(NO_SHARDS)
        return fitted_in_a_ring(rows, centroids, max_iter, precision, unit).centroids
    options: dict[str, Any] = dict(precision=precision, unit=unit, stops=stops)
    if isinstance(rows, RowStream):
        start = None if centroids is None else np.asarray(centroids)
        return iterate_chunks(rows, start, n_clusters, max_iter, **options).centroids
    return _iterated(rows, centroids, n_clusters, max_iter, **options).centroids


def _iterated(
    rows: Rows,
    centroids: jax.Array | np.ndarray | None,
    n_clusters: int,
    max_iter: int,
    precision: Precision,
    unit: bool,
    stops: Stops,
) -> LloydState:
    if stops.state is not None and stops.phase == "iterating":
        (n, d), shards = rows.x.shape, rows.devices.count
        like = lloyd_like(n, d, n_clusters, max_iter, rows.block, shards)
        state = to_devices(stops.state, like, LLOYD_SPECS, rows.n, rows.devices)
    else:
        begin = rows.spmd(
            unassigned,
            n_clusters,
            (ROWS, SAME),
            LLOYD_SPECS,
            max_iter=max_iter,
        )
        state = begin(rows.x, np.asarray(centroids))
    go_on = rows.spmd(
        more_iterations,
        n_clusters,
        (ROWS, ROWS, LLOYD_SPECS, SAME),
        LLOYD_SPECS,
        precision=precision,
        unit=unit,
    )
    every = stops.every(1, max_iter + 1, rows.devices)
    while True:
        stop = min(int(state.n_iter) + every, max_iter)
        state = go_on(rows.x, rows.weights, state, stop)
        if int(state.n_iter) == max_iter or not np.asarray(state.touched).any():
            return state
        stops.tell(lambda s=state: from_devices("iterating", s, LLOYD_SPECS, rows.n))


def assign(
    rows: Rows | RowStream, centroids: jax.Array | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest centroid int32 ``[n]`` and its squared distance float32 ``[n]``."""
    if isinstance(rows, RowStream):
        return assign_chunks(rows, np.asarray(centroids))
    kernel = rows.spmd(assigned, len(centroids), (ROWS, SAME), (ROWS, ROWS))
    labels, distances = kernel(rows.x, np.asarray(centroids))
    return fetch(labels)[: rows.n], fetch(distances)[: rows.n]
