"""Growth: new rows join an unchanged tree, and a report names the levels that no longer fit."""

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxcurate.artifacts.lazy_rows import as_rows
from jaxcurate.artifacts.tree import ClusterTree, Metric, check_tree
from jaxcurate.checks import InputError, check_whole
from jaxcurate.kmeans.normalize import checked_shape, fit_normalizer
from jaxcurate.kmeans.predict import chunked
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.kmeans.streaming import assign_chunks
from jaxcurate.neighbors.nearest_rows import directions
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import Devices, RowsLike

FAR = 0.99
"""Quantile of the old rows' distances beyond which a row counts as far."""
FAR_FRACTION = 0.05
"""Fraction of far rows among the new rows above which a refit is due. 1 % of the old are far."""
FEW_CLUSTERS = 0.1
"""Fraction of the clusters up to which it is enough to refit the clusters of the far rows."""
_CHANCE = 0.05
"""Probability of as many far rows by chance above which no refit is due."""
_CHUNK = 65536
_NUMBERS = 2**22

Verdict = Literal["keep", "refit branches", "refit"]


class LevelDrift(NamedTuple):
    """Fit of new rows to one level of a tree, compared with the old rows.

    Distances are Euclidean, from a row (at length 1 in a cosine tree) to the centroid of its
    cluster at this level.
    """

    level: int
    """Number of the level, from 1."""
    mean_old: float
    """Mean distance of the old rows."""
    mean_new: float
    """Mean distance of the new rows."""
    far: float
    """Fraction of the new rows beyond the 99th percentile of the old rows' distances."""
    growth: np.ndarray
    """float64 ``[k]``: new rows for each old row of a cluster. Infinite if it was empty."""
    branches: np.ndarray
    """int64: clusters without which few new rows would be far, the worst first."""
    verdict: Verdict
    """Advice to keep the level, to refit the branches, or to refit everything."""
    reason: str
    """Verdict with its numbers, in one line."""

    def to_plain(self) -> dict[str, Any]:
        """Returns the fields as JSON has them, without :attr:`growth`, which may be infinite."""
        plain = self._asdict() | {"branches": self.branches.tolist()}
        del plain["growth"]
        return plain


def grow(tree: ClusterTree, x: RowsLike, *, devices: Devices | None = None) -> ClusterTree:
    """Adds rows to a tree: each joins the leaf cluster with the nearest centroid.

    Nothing is refitted. Clusters keep their ids, centroids and parents, and old rows keep their
    numbers. New rows have the numbers after them. Distances have the metric of the tree. The
    grown tree has no fingerprint of a pool, since it is not over the old pool.

    Args:
        tree: tree with centroids ``[k, d]``.
        x: new rows ``[m, d]``.
        devices: the devices to use. All by default.

    Returns:
        The tree over the old and the new rows.

    Raises:
        InputError: an argument cannot be used; the message names it.

    Examples:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> from jaxcurate.curation import grow
        >>> leaf = jc.TreeLevel(
        ...     centroids=np.array([[0, 0], [9, 9]], np.float32),
        ...     labels=np.array([0, 0, 1], np.int32),
        ...     distances=np.array([1, 1, 0], np.float32),
        ... )
        >>> grown = grow(jc.ClusterTree((leaf,)), np.array([[8.0, 9], [0, 2]]))
        >>> grown.levels[0].labels
        array([0, 0, 1, 1, 0], dtype=int32)
    """
    x = rows_for_tree(tree, x)
    leaf = tree.levels[0]
    devices = Devices.all() if devices is None else devices
    processes.agree("grow", devices, tree=tree, x=x)
    labels, distances = nearest_centroids(x, leaf.centroids, tree.metric, devices)
    grown = leaf._replace(
        labels=np.concatenate([leaf.labels, labels]),
        distances=np.concatenate([leaf.distances, distances]),
    )
    return replace(tree, levels=(grown, *tree.levels[1:]), pool="")


def drift(tree: ClusterTree, x: RowsLike, n_old: int) -> list[LevelDrift]:
    """Measures whether a tree still fits its rows, level by level, bottom up.

    A row is far if it lies beyond the distance that 99 % of the old rows stay within. A level
    should be refitted if more than 5 % of the new rows are far, and so many that a fraction of
    5 % would give as many with a probability of at most 5 %. If far rows lie in a tenth of the
    clusters or fewer, it is enough to refit these branches.

    The distance of an old row is measured as if its cluster had been made without it, because an
    old row has pulled the centroid towards itself and a new row has not: in a cluster of ``s``
    rows it is multiplied by ``s / (s - 1)``. Rows that are alone in their cluster are left out.
    With ten or more rows a cluster, 1 to 3 % of new rows from the distribution of the old rows
    are far (measured in 2 to 128 dimensions). With four rows it is up to 11 %; then trust the
    level above.

    Args:
        tree: tree over the old and the new rows, from :func:`grow`.
        x: old and new rows ``[n, d]``.
        n_old: number of old rows, which come first.

    Returns:
        The fit of each level, bottom up.

    Raises:
        InputError: an argument cannot be used; the message names it.

    Examples:
        Ten old rows lie within 1 of their centroid, and one of two new rows lies outside:

        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> from jaxcurate.curation import drift
        >>> x = np.array([[-1.0], [1]] * 5 + [[0], [7]])
        >>> leaf = jc.TreeLevel(
        ...     np.zeros((1, 1), np.float32), np.zeros(12, np.int32), np.abs(x[:, 0])
        ... )
        >>> found = drift(jc.ClusterTree((leaf,)), x, n_old=10)[0]
        >>> found.mean_old, found.mean_new, found.far
        (1.0, 3.5, 0.5)
    """
    x = rows_for_tree(tree, x, all_of=True)
    check_whole("n_old", n_old, 0)
    if not 0 < n_old < len(x):
        raise InputError(f"n_old={n_old} must be at least 1 and leave one of {len(x)} rows as new")
    drifts = []
    for number in range(1, len(tree.levels) + 1):
        labels = tree.point_labels(number)
        k = tree.n_clusters(number)
        old, new = (np.bincount(part, minlength=k) for part in np.split(labels, [n_old]))
        distances = _distances(tree, x, number, labels)
        sizes = old[labels[:n_old]]
        unbiased = (distances[:n_old] * sizes / np.maximum(sizes - 1, 1))[sizes > 1]
        limit = np.quantile(unbiased, FAR) if len(unbiased) else np.inf
        is_far = distances[n_old:] > limit
        with np.errstate(divide="ignore", invalid="ignore"):
            growth = np.where(new > 0, new / old, 0.0)
        branches = _worst(labels[n_old:], is_far, k)
        verdict = _verdict(is_far, len(branches), int(np.count_nonzero(old + new)))
        drifts.append(
            LevelDrift(
                number,
                float(distances[:n_old].mean()),
                float(distances[n_old:].mean()),
                float(is_far.mean()),
                growth,
                branches if verdict != "keep" else branches[:0],
                verdict,
                f"level {number}: {verdict}; {is_far.mean():.1%} of {len(is_far)} new rows are "
                f"farther than {FAR:.0%} of the old ones (a refit is due above {FAR_FRACTION:.0%})"
                + (f", mostly in {len(branches)} of {k} clusters" if verdict != "keep" else ""),
            )
        )
    return drifts


def nearest_centroids(
    x: RowsLike, centroids: np.ndarray, metric: Metric, devices: Devices
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest centroid of each row ``[m, d]``, and the squared distance to it."""
    normalizer = fit_normalizer(centroids, "tree", metric=metric)
    chunks = chunked(RowView(x, normalizer=normalizer), devices)
    labels, squared = assign_chunks(chunks, normalizer.transform(centroids))
    return labels, normalizer.inverse_transform_squared(squared)


def rows_for_tree(tree: ClusterTree, x: RowsLike, *, all_of: bool = False) -> RowsLike:
    """Returns rows as an array, after checking that they fit the tree.

    Args:
        tree: tree whose centroids have the width of the rows.
        x: rows to check.
        all_of: require as many rows as the tree has points.
    """
    check_tree(tree)
    x = as_rows(x)
    checked_shape(x, "x")
    width = tree.levels[0].centroids.shape[1]
    if not width:
        raise InputError("tree has no centroids: it was made from labels alone")
    if x.shape[1] != width:
        raise InputError(f"x has {x.shape[1]} columns, but the tree's centroids have {width}")
    if all_of and tree.n_points != len(x):
        raise InputError(f"x has {len(x)} rows, but the tree has {tree.n_points} points")
    fit_normalizer(x, metric=tree.metric)  # refuses bad numbers, and zeros in a cosine tree
    return x


def _distances(tree: ClusterTree, x: RowsLike, level: int, labels: np.ndarray) -> np.ndarray:
    """Returns the distance of each row to the centroid of its cluster, float64 ``[n]``."""
    centroids, out = tree.levels[level - 1].centroids, np.empty(len(x))
    step = max(1, min(_CHUNK, _NUMBERS // x.shape[1]))
    for begin in range(0, len(x), step):
        chunk = slice(begin, begin + step)
        rows = np.asarray(x[chunk], np.float64)
        if tree.metric == "cosine":
            rows = directions(rows)
        out[chunk] = np.linalg.norm(rows - centroids[labels[chunk]], axis=1)
    return out


def _worst(labels: np.ndarray, is_far: np.ndarray, k: int) -> np.ndarray:
    """Returns the fewest clusters without which at most :data:`FAR_FRACTION` of rows are far."""
    far = np.bincount(labels, is_far, k)
    excess = far.sum() - FAR_FRACTION * len(labels)
    order = np.argsort(-far, kind="stable")
    return order[: int(np.searchsorted(np.cumsum(far[order]), excess)) + 1 if excess > 0 else 0]


def _verdict(is_far: np.ndarray, n_branches: int, n_filled: int) -> Verdict:
    """Returns the verdict on a level whose far rows lie in a number of its filled clusters."""
    n = len(is_far)
    import scipy.stats  # takes half a second, which `--help` need not wait for

    by_chance = scipy.stats.binom.sf(int(is_far.sum()) - 1, n, FAR_FRACTION)
    if is_far.mean() <= FAR_FRACTION or by_chance > _CHANCE:
        return "keep"
    return "refit branches" if n_branches <= FEW_CLUSTERS * n_filled else "refit"
