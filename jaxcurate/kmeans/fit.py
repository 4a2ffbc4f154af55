"""k-means from rows to labels: checks, frame, seeding, Lloyd's iterations."""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcurate import parallel
from jaxcurate.kmeans.frame import frame_of
from jaxcurate.kmeans.lazy import Lazy
from jaxcurate.kmeans.lloyd import LLOYD_SPECS, LloydState, assigned, lloyd
from jaxcurate.kmeans.nearest import squared_distances
from jaxcurate.kmeans.oversampling import kmeans_parallel
from jaxcurate.kmeans.rows import Chunks, Rows, chunks_within, place
from jaxcurate.kmeans.scores import Precision
from jaxcurate.kmeans.seeding import greedy_kmeans_plus_plus
from jaxcurate.kmeans.stream import iterate_chunks, seed_chunks
from jaxcurate.parallel import ROWS, SAME
from jaxcurate.pool import Pool

KNOWN_INITS = "'k-means++', 'k-means||', 'random'"
Init = Literal["k-means++", "k-means||", "random"] | np.ndarray


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


def kmeans(
    x: np.ndarray | Pool,
    n_clusters: int,
    init: Init = "k-means++",
    max_iter: int = 50,
    seed: int = 0,
    memory_limit: int | None = None,
    *,
    mesh: Mesh | None = None,
    precision: Precision = "float32",
) -> KMeans:
    """k-means in squared Euclidean distance, exact in float32, on all devices.

    Over several processes (:func:`jaxcurate.parallel.initialize`) all call it with the same
    arguments, and all get the whole result; each reads the rows of its own devices.

    Args:
        x: ``[n, d]`` of real numbers, or a :class:`Pool`. For several processes, a memory map of
            a file that all of them see.
        n_clusters: ``k``, at most ``n``.
        init: ``"k-means++"`` (greedy), ``"k-means||"`` (fewer passes over the rows),
            ``"random"`` (distinct rows), or centroids ``[k, d]``.
        max_iter: Lloyd's iterations at most; they stop once no label changes.
        seed: of the seeding. The same seed and number of devices give the same bits.
        memory_limit: bytes of host and device memory that ``x`` may take; beyond it ``x`` is
            read in chunks, a pass for each iteration. What is a number for each row does not
            count. Several processes share it.
        mesh: the devices to use, from :func:`jaxcurate.parallel.make_mesh`; all by default.
        precision: ``"float32"``, or ``"bfloat16"`` for matrix units that are faster in it. Rows
            whose best two centroids lie within the proven error bound are searched again in
            float32, so that the labels are the same.

    Raises:
        ValueError: naming the argument that cannot be used.

    References:
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 3.
        https://arxiv.org/abs/2405.15613
    """
    x = x.embeddings if isinstance(x, Pool) else np.asarray(x)
    mesh = parallel.make_mesh() if mesh is None else mesh
    frame = frame_of(x, mesh=mesh)
    if not 1 <= n_clusters <= len(x):
        raise ValueError(f"n_clusters={n_clusters}, but x has {len(x)} row(s)")
    if max_iter < 0:
        raise ValueError(f"max_iter={max_iter} is negative")
    if precision not in get_args(Precision):
        raise ValueError(f"precision={precision!r}; known: 'float32', 'bfloat16'")
    key = jax.random.key(seed)
    start = None if isinstance(init, str) else _checked_init(init, n_clusters, x.shape[1])
    start = None if start is None else frame.enter(start)
    if memory_limit is not None and 4 * x.size > memory_limit:
        chunks = chunks_within(x, frame, mesh, memory_limit)
        start = _seeded_chunks(chunks, n_clusters, init, key) if start is None else start
        found = KMeans(*iterate_chunks(chunks, start, max_iter, precision))
    else:
        rows = place(Lazy(x, frame=frame), mesh)
        start = seeded(rows, n_clusters, init, key) if start is None else start
        found = fitted(rows, start, max_iter, precision)
    return replace(
        found,
        centroids=frame.leave(found.centroids),
        distances=frame.leave_squared(found.distances),
    )


def seeded(rows: Rows, n_clusters: int, init: str, key: jax.Array) -> jax.Array | np.ndarray:
    """Initial centroids ``[k, d]``, chosen among the rows.

    Raises:
        ValueError: ``init`` is not a known name.
    """
    if init == "k-means++":
        kernel = parallel.spmd(
            greedy_kmeans_plus_plus,
            rows.mesh,
            (ROWS, ROWS, SAME),
            SAME,
            n_clusters=n_clusters,
            block=rows.block,
        )
        return kernel(rows.x, rows.weights, key)
    take = lambda chosen: parallel.fetch(rows.x[chosen])
    if init == "k-means||":
        whole = lambda: [(slice(0, rows.n), rows)]
        return kmeans_parallel(whole, take, rows.n, n_clusters, key, rows.mesh)
    if init == "random":
        return take(_distinct(rows.n, n_clusters, key))
    raise ValueError(f"init={init!r}; known: {KNOWN_INITS}, or an array [k, d]")


def _seeded_chunks(chunks: Chunks, n_clusters: int, init: str, key: jax.Array) -> np.ndarray:
    """:func:`seeded` for rows in chunks."""
    n = len(chunks.x)
    if init == "k-means++":
        return seed_chunks(chunks, n_clusters, key)
    if init == "k-means||":
        return kmeans_parallel(lambda: chunks, chunks.take, n, n_clusters, key, chunks.mesh)
    if init == "random":
        return chunks.take(_distinct(n, n_clusters, key))
    raise ValueError(f"init={init!r}; known: {KNOWN_INITS}, or an array [k, d]")


def _distinct(n: int, n_clusters: int, key: jax.Array) -> np.ndarray:
    """The numbers of distinct rows, ``[k]``."""
    return np.asarray(jax.random.choice(key, n, (n_clusters,), replace=False))


def fitted(
    rows: Rows,
    centroids: jax.Array | np.ndarray,
    max_iter: int,
    precision: Precision = "float32",
) -> KMeans:
    """Lloyd's iterations from ``centroids`` ``[k, d]``, all in the frame of the rows."""
    state = _iterated(rows, centroids, max_iter, precision)
    measure = parallel.spmd(_measured, rows.mesh, (ROWS, SAME, ROWS), ROWS)
    distances = measure(rows.x, np.asarray(state.centroids), state.best.labels)
    n_iter = int(state.n_iter)
    return KMeans(
        np.asarray(state.centroids),
        parallel.fetch(state.best.labels)[: rows.n],
        parallel.fetch(distances)[: rows.n],
        n_iter,
        np.asarray(state.compared)[: n_iter + 1],
        np.asarray(state.in_doubt)[: n_iter + 1],
    )


def iterate(
    rows: Rows,
    centroids: jax.Array | np.ndarray,
    max_iter: int,
    precision: Precision = "float32",
) -> tuple[jax.Array, int]:
    """Lloyd's iterations from ``centroids`` ``[k, d]``; the new ones, and how many were done."""
    state = _iterated(rows, centroids, max_iter, precision)
    return state.centroids, int(state.n_iter)


def _iterated(
    rows: Rows, centroids: jax.Array | np.ndarray, max_iter: int, precision: Precision
) -> LloydState:
    kernel = parallel.spmd(
        lloyd,
        rows.mesh,
        (ROWS, ROWS, SAME),
        LLOYD_SPECS,
        max_iter=max_iter,
        block=rows.block,
        precision=precision,
    )
    return kernel(rows.x, rows.weights, np.asarray(centroids))


def _measured(
    x: jax.Array, centroids: jax.Array, labels: jax.Array, *, axis_name: str | None
) -> jax.Array:
    del axis_name  # every row is on its own
    return squared_distances(x, centroids, labels)


def assign(rows: Rows, centroids: jax.Array | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 ``[n]`` and squared distances float32 ``[n]``, on the host."""
    kernel = parallel.spmd(assigned, rows.mesh, (ROWS, SAME), (ROWS, ROWS), block=rows.block)
    labels, distances = kernel(rows.x, np.asarray(centroids))
    return parallel.fetch(labels)[: rows.n], parallel.fetch(distances)[: rows.n]


def _checked_init(init: np.ndarray, n_clusters: int, n_columns: int) -> np.ndarray:
    init = np.asarray(init)
    if init.shape != (n_clusters, n_columns):
        raise ValueError(
            f"init has shape {init.shape}, but n_clusters and x ask for {(n_clusters, n_columns)}"
        )
    if not np.isfinite(init).all():
        raise ValueError("init has a NaN or an infinity")
    return init
