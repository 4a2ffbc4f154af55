"""Measures of a subset: how evenly it is spread over a tree, and how well it covers the pool."""

from typing import NamedTuple

import numpy as np

from jaxcurate.artifacts.tree import ClusterTree, Metric, check_tree
from jaxcurate.checks import InputError, as_real, checked_rows
from jaxcurate.evaluation.balance import gini, normalized_entropy
from jaxcurate.kmeans.normalize import fit_normalizer
from jaxcurate.kmeans.predict import chunked
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.kmeans.streaming import assign_chunks
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import Devices

_CENTROIDS = 65536


class LevelBalance(NamedTuple):
    """Spread of rows over the clusters of one level that have any point of the pool."""

    level: int
    n_clusters: int
    """Clusters with points of the pool."""
    empty: float
    """Share of these clusters that have none of the rows."""
    entropy: float
    """Entropy of the clusters' shares, over that of equal shares: 1 is even."""
    gini: float
    """Gini coefficient of the clusters' sizes: 0 is even."""


class Coverage(NamedTuple):
    """Distances from rows of the pool to the nearest row of a subset: Euclidean, for the cosine
    metric between rows of length 1."""

    mean: float
    error: float
    """Standard error of the mean; 0 where all rows of the pool were measured."""
    largest: float
    n_measured: int


def level_balance(tree: ClusterTree, rows: np.ndarray) -> list[LevelBalance]:
    """Returns the balance of rows over every level, bottom up.

    Args:
        tree: over the pool.
        rows: whole numbers ``[m]``; a row that is there twice counts twice.

    Raises:
        ValueError: a row is not one of the tree's.
    """
    check_tree(tree)
    rows = np.asarray(rows)
    checked_rows(np.unique(rows), tree.n_points)
    rows = rows.astype(np.int64)  # an empty list is of floats
    told = []
    for number in range(1, len(tree.levels) + 1):
        filled = tree.point_counts(number) > 0
        labels = tree.point_labels(number)[rows]
        taken = np.bincount(labels, minlength=len(filled))[filled]
        empty = float(np.mean(taken == 0))
        told.append(LevelBalance(number, len(taken), empty, normalized_entropy(taken), gini(taken)))
    return told


def coverage(
    x: np.ndarray,
    rows: np.ndarray,
    *,
    n_measured: int | None = None,
    seed: int = 0,
    metric: Metric = "euclidean",
    devices: Devices | None = None,
) -> Coverage:
    """Returns how far the pool lies from a subset: small where everything has something like it
    there.

    Args:
        x: the pool, ``[n, d]``.
        rows: the subset, whole numbers ``[m]``, at least one.
        n_measured: measure so many rows of the pool, drawn by the seed; all by default.
        seed: of the draw.
        metric: ``"euclidean"``, or ``"cosine"`` for directions alone.
        devices: the devices to use; all by default.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    x = as_real(x)
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
    for begin in range(0, len(rows), _CENTROIDS):  # no more distances are held than for so many
        centroids = normalizer.transform(x[rows[begin : begin + _CENTROIDS]])
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
    """Returns KL divergence of where points lie from the uniform density on a box, in nats.

    The density is that of Gaussian kernels, evaluated on a grid and renormalised on the box.

    Args:
        points: ``[n, d]`` with d of 1, 2 or 3.
        low: the box's lower corner, ``[d]``.
        high: its upper corner, ``[d]``.
        bandwidth: of the kernels, along each axis; by default a twelfth of the side, as in the
            reference.
        n_grid: grid points along each axis; 300 by default, 60 where there are three axes.

    Raises:
        ValueError: naming the argument that cannot be used.

    References:
        Vo et al. 2024, section 4.1. https://arxiv.org/abs/2405.15613
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
    block = max(1, 2**24 // density.shape[0])
    for begin in range(0, len(points), block):
        part = points[begin : begin + block]
        kernels = []
        for axis in range(len(low)):
            grid = np.linspace(low[axis], high[axis], n_grid, endpoint=False)
            offsets = (grid[None, :] - part[:, axis, None]) / width[axis]
            kernels.append(np.exp(-0.5 * offsets**2))
        before = np.ones((len(part), 1))
        for kernel in kernels[:-1]:
            before = (before[:, :, None] * kernel[:, None, :]).reshape(len(part), -1)
        density += before.T @ kernels[-1]
    share = density[density > 0] / density.sum()
    return float((share * np.log(share * density.size)).sum())
