"""k-means from rows to labels: checks, frame, seeding, Lloyd's iterations."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import jax
import numpy as np

from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import Metric, n_surplus, warn_of_surplus
from jaxcurate.checks import (
    InputError,
    as_real,
    check_choice,
    check_seed,
    check_whole,
    faults_of,
    refuse,
)
from jaxcurate.kmeans.checkpoint import NO_STOPS, KMeansState, Stops, from_devices, to_devices
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
from jaxcurate.kmeans.normalize import Frame, frame_of
from jaxcurate.kmeans.row_view import Lazy
from jaxcurate.kmeans.rows import Chunks, Rows, chunks_within, fits, place
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
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import ROWS, SAME, Devices, fetch, padded_size

InitName = Literal["k-means++", "k-means||", "random"]
Init = InitName | np.ndarray


@dataclass(frozen=True)
class KMeans:
    """A clustering of rows ``[n, d]`` in ``k`` clusters."""

    centroids: np.ndarray
    """float32 ``[k, d]``."""
    labels: np.ndarray
    """int32 ``[n]``, the nearest centroid of each row."""
    distances: np.ndarray
    """float32 ``[n]``, squared Euclidean, to the own centroid."""
    n_iter: int
    """Lloyd's iterations done."""
    compared: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """float32 ``[n_iter + 1]``: of the distances between rows and centroids, the share that was
    worked out at the start and after each iteration. The others could not change a label."""
    in_doubt: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """float32 ``[n_iter + 1]``: the share of rows that were searched again, for certainty."""

    @property
    def inertia(self) -> float:
        """The sum of :attr:`distances`, in float64."""
        return float(np.sum(self.distances, dtype=np.float64))

    @property
    def n_surplus(self) -> int:
        """Clusters that are empty because another has the same centroid: more were asked for
        than there are distinct rows."""
        return n_surplus(self.centroids, self.labels)


def kmeans(
    x: np.ndarray | Pool,
    n_clusters: int,
    init: Init = "k-means++",
    max_iter: int = 50,
    seed: int = 0,
    memory_limit: int | None = None,
    *,
    metric: Metric = "euclidean",
    precision: Precision = "float32",
    shard_centroids: bool = False,
    devices: Devices | None = None,
    state: KMeansState | None = None,
    on_state: Callable[[KMeansState], None] | None = None,
    state_every: int = 10,
) -> KMeans:
    """k-means in squared Euclidean distance, exact in float32, on all devices.

    Over several processes (:func:`jaxcurate.runtime.processes.initialize`) all call it with the
    same arguments, and all get the whole result; each reads the rows of its own devices.

    Args:
        x: ``[n, d]`` of real numbers of any type that float32 can hold, or a :class:`Pool`. For
            several processes, a memory map of a file that all of them see.
        n_clusters: ``k``, at most ``n``. Where fewer rows are distinct some clusters are empty,
            and a :class:`~jaxcurate.tree.SurplusWarning` says so.
        init: ``"k-means++"`` (greedy), ``"k-means||"`` (fewer passes over the rows),
            ``"random"`` (distinct rows), or centroids ``[k, d]``.
        max_iter: Lloyd's iterations at most; they stop once no label changes.
        seed: of the seeding, within [0, 2**32). The same seed and number of devices give the
            same bits.
        memory_limit: bytes of host and device memory to stay within; where ``x`` takes more it is
            read in chunks, a pass for each iteration. A quarter of it goes to the rows at least,
            even where a few numbers for each row, and the centroids, leave less. Several
            processes share it.
        metric: ``"euclidean"``, or ``"cosine"`` for spherical k-means: rows and centroids have
            length 1, and distances are ``2 - 2 cos``.
        precision: ``"float32"``, or ``"bfloat16"`` for matrix units that are faster in it. Rows
            whose best two centroids lie within the proven error bound are searched again in
            float32, so that the labels are the same.
        shard_centroids: split the centroids over the devices too, for more than one of them can
            hold. All distances are worked out then. In memory, and without states.
        devices: the devices to use; all by default.
        state: where to go on, from ``on_state``, with the other arguments as they were. The
            result has the bits of a run without interruption.
        on_state: called now and then with what has to be kept to go on.
        state_every: iterations, or as much of the seeding, between two calls of ``on_state``.

    Raises:
        ValueError: naming the argument that cannot be used.

    References:
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 3.
        https://arxiv.org/abs/2405.15613
    """
    x = as_real(x.embeddings if isinstance(x, Pool) else x)
    devices = Devices.all() if devices is None else devices
    processes.agree(
        "kmeans",
        devices,
        x=x,
        n_clusters=n_clusters,
        init=init,
        max_iter=max_iter,
        seed=seed,
        memory_limit=memory_limit,
        metric=metric,
        precision=precision,
        shard_centroids=shard_centroids,
        state=state,
        on_state=on_state,
        state_every=state_every,
    )
    check_choice("metric", metric, get_args(Metric))
    check_choice("precision", precision, get_args(Precision))
    check_seed(seed)
    for name, value, least in (
        ("n_clusters", n_clusters, 1),
        ("max_iter", max_iter, 0),
        ("memory_limit", 0 if memory_limit is None else memory_limit, 0),
        ("state_every", state_every, 1),
    ):
        check_whole(name, value, least)
    frame = frame_of(x, devices=devices, metric=metric)
    if n_clusters > len(x):
        raise InputError(f"n_clusters={n_clusters}, but x has {len(x)} row(s)")
    key = jax.random.key(seed)
    streamed = not fits(*x.shape, memory_limit)
    if streamed and x.dtype == np.float32:
        frame = frame.rounded()  # rows enter it in every pass
    start = None if isinstance(init, str) else _checked_init(init, n_clusters, x.shape[1])
    start = None if start is None else _entered(start, frame)
    if shard_centroids and (streamed or state is not None or on_state is not None):
        raise InputError("shard_centroids=True goes neither with streaming nor with states")
    stops = Stops(state, on_state, state_every)
    options = dict(precision=precision, unit=frame.unit, stops=stops)
    inside = Lazy(x, frame=frame)
    if streamed:
        rows = chunks_within(inside, devices, memory_limit, n_clusters)
    else:
        rows = place(inside, devices)
    if start is None and stops.phase != "iterating":
        start = seeded(rows, n_clusters, init, key, stops)
    if streamed:
        found = KMeans(*iterate_chunks(rows, start, n_clusters, max_iter, **options))
    elif shard_centroids:
        found = _fitted_in_a_ring(rows, start, max_iter, precision, frame.unit)
    else:
        found = fitted(rows, start, n_clusters, max_iter, **options)
    found = replace(
        found,
        centroids=frame.leave(found.centroids),
        distances=frame.leave_squared(found.distances),
    )
    warn_of_surplus({"k-means": (found.n_surplus, n_clusters)})
    return found


def seeded(
    rows: Rows | Chunks, n_clusters: int, init: str, key: jax.Array, stops: Stops = NO_STOPS
) -> jax.Array | np.ndarray:
    """Initial centroids ``[k, d]``, chosen among the rows.

    Raises:
        ValueError: ``init`` is not a known name.
    """
    if isinstance(rows, Chunks):
        n, take, chunks = len(rows.x), rows.take, lambda: rows
    else:
        n, take = rows.n, lambda chosen: fetch(rows.x[chosen])
        chunks = lambda: [(slice(0, n), rows)]
    if init == "k-means++":
        seed = seed_chunks if isinstance(rows, Chunks) else _greedily_seeded
        return seed(rows, n_clusters, key, stops)
    if init == "k-means||":
        return kmeans_parallel(chunks, take, n, n_clusters, key, rows.devices)
    if init == "random":
        return take(np.asarray(jax.random.choice(key, n, (n_clusters,), replace=False)))
    known = ", ".join(map(repr, get_args(InitName)))
    raise InputError(f"init={init!r}; known: {known}, or an array [k, d]")


def _greedily_seeded(rows: Rows, n_clusters: int, key: jax.Array, stops: Stops) -> jax.Array:
    specs, options = (ROWS, ROWS, SAME), dict(block=rows.block)
    if stops.phase == "seeding":
        m, d = rows.x.shape
        seeds = to_devices(
            stops.state, seeds_like(m, d, n_clusters), SEEDS_SPECS, rows.n, rows.devices
        )
    else:
        begin = rows.devices.spmd(first_seed, specs, SEEDS_SPECS, n_clusters=n_clusters, **options)
        seeds = begin(rows.x, rows.weights, key)
    go_on = rows.devices.spmd(more_seeds, (*specs, SEEDS_SPECS, SAME), SEEDS_SPECS, **options)
    # So many centres cost as much as an iteration.
    every = stops.every(max(1, n_clusters // n_candidates(n_clusters)), n_clusters, rows.devices)
    while (done := int(seeds.n_chosen)) < n_clusters:
        seeds = go_on(rows.x, rows.weights, key, seeds, min(done + every, n_clusters))
        stops.tell(lambda s=seeds: from_devices("seeding", s, SEEDS_SPECS, rows.n))
    return seeds.centres


def fitted(
    rows: Rows,
    centroids: jax.Array | np.ndarray | None,
    n_clusters: int,
    max_iter: int,
    precision: Precision = "float32",
    *,
    unit: bool = False,
    stops: Stops = NO_STOPS,
) -> KMeans:
    """Lloyd's iterations from ``centroids`` ``[k, d]``, all in the frame of the rows."""
    state = _iterated(rows, centroids, n_clusters, max_iter, precision, unit, stops)
    measure = rows.devices.spmd(measured, (ROWS, SAME, ROWS), ROWS, block=rows.block)
    distances = measure(rows.x, np.asarray(state.centroids), state.best.labels)
    n_iter = int(state.n_iter)
    return KMeans(
        np.asarray(state.centroids),
        fetch(state.best.labels)[: rows.n],
        fetch(distances)[: rows.n],
        n_iter,
        np.asarray(state.compared)[: n_iter + 1],
        np.asarray(state.in_doubt)[: n_iter + 1],
    )


def _fitted_in_a_ring(
    rows: Rows,
    centroids: jax.Array | np.ndarray,
    max_iter: int,
    precision: Precision,
    unit: bool,
) -> KMeans:
    """As :func:`fitted`, with the centroids split over the devices."""
    kernel = rows.devices.spmd(
        ring_lloyd,
        (ROWS, ROWS, ROWS),
        RING_SPECS,
        max_iter=max_iter,
        block=rows.block,
        precision=precision,
        unit=unit,
    )
    k = len(centroids)
    fill = padded_size(k, rows.devices.count) - k
    # Far from all rows, which are near 1 in their frame; a power of two is exact in bfloat16.
    centroids = np.pad(np.asarray(centroids), ((0, fill), (0, 0)), constant_values=2.0**50)
    state = kernel(rows.x, rows.weights, rows.devices.put_rows(centroids)[0])
    n_iter = int(state.n_iter)
    return KMeans(
        fetch(state.centroids)[:k],
        fetch(state.labels)[: rows.n],
        fetch(state.distances)[: rows.n],
        n_iter,
        np.ones(n_iter + 1, np.float32),
        np.zeros(n_iter + 1, np.float32),
    )


def iterate(
    rows: Rows | Chunks, centroids: jax.Array | np.ndarray, max_iter: int, *, unit: bool = False
) -> jax.Array | np.ndarray:
    """Centroids ``[k, d]`` after Lloyd's iterations, all in the frame of the rows."""
    k = len(centroids)
    if isinstance(rows, Chunks):
        return iterate_chunks(rows, np.asarray(centroids), k, max_iter, unit=unit).centroids
    return _iterated(rows, centroids, k, max_iter, "float32", unit, NO_STOPS).centroids


def _iterated(
    rows: Rows,
    centroids: jax.Array | np.ndarray | None,
    n_clusters: int,
    max_iter: int,
    precision: Precision,
    unit: bool,
    stops: Stops,
) -> LloydState:
    if stops.phase == "iterating":
        shards = rows.devices.count
        like = lloyd_like(*rows.x.shape, n_clusters, max_iter, rows.block, shards)
        state = to_devices(stops.state, like, LLOYD_SPECS, rows.n, rows.devices)
    else:
        begin = rows.devices.spmd(
            unassigned,
            (ROWS, SAME),
            LLOYD_SPECS,
            max_iter=max_iter,
            block=rows.block,
        )
        state = begin(rows.x, np.asarray(centroids))
    go_on = rows.devices.spmd(
        more_iterations,
        (ROWS, ROWS, LLOYD_SPECS, SAME),
        LLOYD_SPECS,
        block=rows.block,
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


def assign(rows: Rows | Chunks, centroids: jax.Array | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 ``[n]`` and squared distances float32 ``[n]``, on the host."""
    if isinstance(rows, Chunks):
        return assign_chunks(rows, np.asarray(centroids))
    kernel = rows.devices.spmd(assigned, (ROWS, SAME), (ROWS, ROWS), block=rows.block)
    labels, distances = kernel(rows.x, np.asarray(centroids))
    return fetch(labels)[: rows.n], fetch(distances)[: rows.n]


def _checked_init(init: np.ndarray, n_clusters: int, n_columns: int) -> np.ndarray:
    init = as_real(init, "init")
    if init.shape != (n_clusters, n_columns):
        raise InputError(
            f"init has shape {init.shape}, but n_clusters and x ask for {(n_clusters, n_columns)}"
        )
    refuse([faults_of(init, range(len(init)))], "init")
    return init


def _entered(init: np.ndarray, frame: Frame) -> np.ndarray:
    """Given centroids in the frame of the rows, which may be far from them."""
    with np.errstate(over="ignore"):
        start = frame.enter(init)
    if not np.isfinite(start).all():
        raise InputError("init lies too far from x, compared with how far x extends")
    return start
