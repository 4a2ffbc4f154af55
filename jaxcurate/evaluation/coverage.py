"""Measures of a subset: how evenly it is spread over a tree, and how well it covers the pool."""

from typing import NamedTuple

import numpy as np

from jaxcurate.artifacts.lazy_rows import as_rows
from jaxcurate.artifacts.tree import ClusterTree, Metric, check_tree
from jaxcurate.checks import InputError, checked_rows
from jaxcurate.evaluation.balance import gini, normalized_entropy
from jaxcurate.kmeans.normalize import fit_normalizer
from jaxcurate.kmeans.predict import chunked
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.kmeans.streaming import assign_chunks
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import Devices, RowsLike

_CENTROIDS = 65536
"""Largest number of subset rows whose distances are computed at a time."""
_NUMBERS = 2**24
"""Largest number of their entries, which are in memory several times."""


class LevelBalance(NamedTuple):
    """Spread of rows over those clusters of one level that have rows of the pool."""

    level: int
    """Number of the level; 1 is the lowest."""
    n_clusters: int
    """Number of clusters with rows of the pool."""
    empty: float
    """Fraction of these clusters that have none of the given rows."""
    entropy: float
    """Entropy of the clusters' fractions over its maximum: 1 if all are equally large."""
    gini: float
    """Gini coefficient of the clusters' sizes: 0 if all are equally large."""


class Coverage(NamedTuple):
    """Summary of the distances from rows of the pool to the nearest row of a subset.

    Distances are Euclidean; for the cosine metric, between rows scaled to length 1.
    """

    mean: float
    """Mean distance."""
    error: float
    """Standard error of the mean; 0 if all rows of the pool were measured."""
    largest: float
    """Largest distance."""
    n_measured: int
    """Number of rows of the pool that were measured."""


def level_balance(tree: ClusterTree, rows: np.ndarray) -> list[LevelBalance]:
    """Returns the balance of a subset over every level of a tree, bottom up.

    Args:
        tree: the tree over the pool.
        rows: rows of the pool, whole numbers ``[m]``; a row that is given twice counts twice.

    Raises:
        InputError: the tree has no such row.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate import ClusterTree
        >>> tree = ClusterTree.from_labels([np.array([0, 0, 0, 0, 1, 2])])
        >>> [skewed] = level_balance(tree, np.array([0, 1, 2, 4]))
        >>> skewed.n_clusters, round(skewed.empty, 3), round(skewed.entropy, 3)
        (3, 0.333, 0.512)
        >>> [even] = level_balance(tree, np.array([0, 4, 5]))
        >>> round(even.empty, 3), round(even.entropy, 3)
        (0.0, 1.0)
    """
    check_tree(tree)
    rows = np.asarray(rows)
    checked_rows(np.unique(rows), tree.n_points)
    rows = rows.astype(np.int64)  # numpy makes floats of an empty list
    balances = []
    for number in range(1, len(tree.levels) + 1):
        filled = tree.point_counts(number) > 0
        labels = tree.point_labels(number)[rows]
        taken = np.bincount(labels, minlength=len(filled))[filled]
        empty = float(np.mean(taken == 0))
        entropy = normalized_entropy(taken)
        balances.append(LevelBalance(number, len(taken), empty, entropy, gini(taken)))
    return balances


def measure_coverage(
    x: RowsLike,
    rows: np.ndarray,
    *,
    n_measured: int | None = None,
    seed: int = 0,
    metric: Metric = "euclidean",
    devices: Devices | None = None,
) -> Coverage:
    """Returns the distances from rows of the pool to the nearest row of a subset.

    They are small if the subset holds a row similar to each row of the pool.

    Args:
        x: the pool, float ``[n, d]``.
        rows: the subset, rows of the pool, whole numbers ``[m]``, at least one.
        n_measured: number of rows of the pool to measure, drawn by the seed; all by default.
        seed: seed of that draw.
        metric: ``"euclidean"``, or ``"cosine"`` for directions alone.
        devices: the devices to use; all by default.

    Raises:
        InputError: naming the argument that cannot be used.

    Examples:
        >>> import numpy as np
        >>> x = np.arange(10.0)[:, None]
        >>> covered = measure_coverage(x, np.array([2, 7]))
        >>> covered.mean, covered.largest
        (1.2, 2.0)
    """
    x = as_rows(x)
    devices = Devices.all() if devices is None else devices
    processes.agree(
        "coverage", devices, x=x, rows=rows, n_measured=n_measured, seed=seed, metric=metric
    )
    rows = checked_rows(np.unique(rows), len(x))
    if not len(rows):
        raise InputError("rows is empty: nothing covers the pool")
    if n_measured is not None and n_measured < 1:
        raise InputError(f"n_measured={n_measured} must be at least 1")
    if n_measured is not None and n_measured < len(x):
        drawn = np.random.default_rng([seed, 3]).choice(len(x), n_measured, replace=False)
        measured = x[np.sort(drawn)]
    else:
        measured = x
    normalizer = fit_normalizer(measured, metric=metric)
    chunks = chunked(RowView(measured, normalizer=normalizer), devices)
    nearest = np.full(len(measured), np.inf, np.float32)
    step = max(1, min(_CENTROIDS, _NUMBERS // x.shape[1]))
    for begin in range(0, len(rows), step):  # bounds the memory for distances
        centroids = normalizer.transform(x[rows[begin : begin + step]])
        nearest = np.minimum(nearest, assign_chunks(chunks, centroids)[1])
    distances = np.sqrt(nearest.astype(np.float64)) * normalizer.scale
    whole = len(measured) == len(x)
    error = 0.0 if whole or len(measured) < 2 else distances.std(ddof=1) / len(measured) ** 0.5
    return Coverage(float(distances.mean()), float(error), float(distances.max()), len(measured))


def kl_to_uniform(
    points: np.ndarray,
    low: np.ndarray | float,
    high: np.ndarray | float,
    bandwidth: np.ndarray | float | None = None,
    n_grid: int | None = None,
) -> float:
    """Returns the KL divergence of the density of points from the uniform density on a box.

    The density is a Gaussian kernel density estimate, evaluated on a grid and renormalized on
    the box.

    Args:
        points: float ``[n, d]`` with 1, 2 or 3 columns.
        low: lower corner of the box, ``[d]``.
        high: upper corner of the box, ``[d]``.
        bandwidth: standard deviation of the kernels along each axis; by default a twelfth of the
            side of the box, as in the reference.
        n_grid: number of grid points along each axis; by default 300, and 60 for three axes.

    Returns:
        The divergence in nats: 0 for points that are spread uniformly.

    Raises:
        InputError: naming the argument that cannot be used.

    References:
        Vo et al. 2024, section 4.1. https://arxiv.org/abs/2405.15613

    Examples:
        >>> import numpy as np
        >>> even = np.linspace(0.05, 0.95, 10)[:, None]
        >>> round(kl_to_uniform(even, 0.0, 1.0), 2)
        0.01
        >>> round(kl_to_uniform(even / 3, 0.0, 1.0), 2)
        0.86
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or not 1 <= points.shape[1] <= 3 or not len(points):
        raise InputError(f"points must be [n, d] with d of 1, 2 or 3, not {points.shape}")
    low, high = (np.broadcast_to(corner, points.shape[1]) for corner in (low, high))
    if not (high > low).all():
        raise InputError("high must lie above low")
    width = np.broadcast_to((high - low) / 12 if bandwidth is None else bandwidth, low.shape)
    if not (width > 0).all():
        raise InputError(f"bandwidth={bandwidth} must be above 0")
    n_grid = n_grid or (60 if len(low) == 3 else 300)
    density = np.zeros((n_grid ** (len(low) - 1), n_grid))
    n_at_once = max(1, 2**24 // density.shape[0])
    for begin in range(0, len(points), n_at_once):
        some = points[begin : begin + n_at_once]
        kernels = []
        for axis in range(len(low)):
            grid = np.linspace(low[axis], high[axis], n_grid, endpoint=False)
            offsets = (grid[None, :] - some[:, axis, None]) / width[axis]
            kernels.append(np.exp(-0.5 * offsets**2))
        before = np.ones((len(some), 1))
        for kernel in kernels[:-1]:
            before = (before[:, :, None] * kernel[:, None, :]).reshape(len(some), -1)
        density += before.T @ kernels[-1]
    fraction = density[density > 0] / density.sum()
    return float((fraction * np.log(fraction * density.size)).sum())
