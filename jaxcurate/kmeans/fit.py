"""k-means from rows to labels: checks, frame, seeding, Lloyd's iterations."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcurate import parallel
from jaxcurate.kmeans.frame import frame_of
from jaxcurate.kmeans.lloyd import LLOYD_SPECS, assigned, lloyd
from jaxcurate.kmeans.seeding import greedy_kmeans_plus_plus
from jaxcurate.parallel import ROWS, SAME
from jaxcurate.pool import Pool

Init = Literal["k-means++", "random"] | np.ndarray


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
    *,
    mesh: Mesh | None = None,
) -> KMeans:
    """k-means in squared Euclidean distance, exact in float32, on all devices.

    Args:
        x: ``[n, d]`` of real numbers, or a :class:`Pool`.
        n_clusters: ``k``, at most ``n``.
        init: ``"k-means++"`` (greedy), ``"random"`` (distinct rows), or centroids ``[k, d]``.
        max_iter: Lloyd's iterations at most; they stop once no label changes.
        seed: of the seeding. The same seed and number of devices give the same bits.
        mesh: the devices to use, from :func:`jaxcurate.parallel.make_mesh`; all by default.

    Raises:
        ValueError: naming the argument that cannot be used.

    References:
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 3.
        https://arxiv.org/abs/2405.15613
    """
    x = x.embeddings if isinstance(x, Pool) else np.asarray(x)
    frame = frame_of(x)
    if not 1 <= n_clusters <= len(x):
        raise ValueError(f"n_clusters={n_clusters}, but x has {len(x)} row(s)")
    if max_iter < 0:
        raise ValueError(f"max_iter={max_iter} is negative")
    rows = place(frame.enter(x), parallel.make_mesh() if mesh is None else mesh)
    if isinstance(init, str):
        start = seeded(rows, n_clusters, init, jax.random.key(seed))
    else:
        start = frame.enter(_checked_init(init, n_clusters, x.shape[1]))
    centroids, n_iter = iterate(rows, start, max_iter)
    labels, distances = assign(rows, centroids)
    return KMeans(frame.leave(centroids), labels, frame.leave_squared(distances), n_iter)


class Rows(NamedTuple):
    """Rows on the devices, padded to a shape that the kernels can split."""

    x: jax.Array
    """float32 ``[m, d]``, in a :class:`~jaxcurate.kmeans.frame.Frame`."""
    weights: jax.Array
    """float32 ``[m]``: 1 for a row, 0 for padding."""
    n: int
    """The rows that are real; they come first."""
    mesh: Mesh | None
    block: int


def place(x: np.ndarray, mesh: Mesh | None, at_least: int = 0) -> Rows:
    """Puts rows ``[n, d]``, already in their frame, on the devices of ``mesh``.

    Args:
        x: float32 ``[n, d]``.
        mesh: from :func:`jaxcurate.parallel.make_mesh`.
        at_least: pad to so many rows, so that calls of varying ``n`` share a compilation.
    """
    # Blocks of 256 rows keep a block's scores in a CPU core's cache; an accelerator wants more.
    block = 256 if jax.default_backend() == "cpu" else 4096
    x_placed, weights = parallel.put_rows(x, mesh, block, at_least)
    return Rows(x_placed, weights, len(x), mesh, block)


def seeded(rows: Rows, n_clusters: int, init: str, key: jax.Array) -> jax.Array:
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
    if init == "random":
        chosen = jax.random.choice(key, rows.n, (n_clusters,), replace=False)
        return rows.x[chosen]
    raise ValueError(f"init={init!r}; known: 'k-means++', 'random', or an array [k, d]")


def iterate(
    rows: Rows, centroids: jax.Array | np.ndarray, max_iter: int
) -> tuple[jax.Array, int]:
    """Lloyd's iterations from ``centroids`` ``[k, d]``; the new ones, and how many were done."""
    kernel = parallel.spmd(
        lloyd,
        rows.mesh,
        (ROWS, ROWS, SAME),
        LLOYD_SPECS,
        max_iter=max_iter,
        block=rows.block,
    )
    state = kernel(rows.x, rows.weights, np.asarray(centroids))
    return state.centroids, int(state.n_iter)


def assign(
    rows: Rows, centroids: jax.Array | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 ``[n]`` and squared distances float32 ``[n]``, on the host."""
    kernel = parallel.spmd(
        assigned, rows.mesh, (ROWS, SAME), (ROWS, ROWS), block=rows.block
    )
    labels, distances = kernel(rows.x, np.asarray(centroids))
    return np.asarray(labels)[: rows.n], np.asarray(distances)[: rows.n]


def _checked_init(init: np.ndarray, n_clusters: int, n_columns: int) -> np.ndarray:
    init = np.asarray(init)
    if init.shape != (n_clusters, n_columns):
        raise ValueError(
            f"init has shape {init.shape}, but n_clusters and x ask for {(n_clusters, n_columns)}"
        )
    if not np.isfinite(init).all():
        raise ValueError("init has a NaN or an infinity")
    return init
