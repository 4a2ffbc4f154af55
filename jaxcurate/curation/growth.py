"""Growth: new rows join a tree that stays as it is, and a report says where it no longer fits."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxcurate.artifacts.tree import ClusterTree, SurplusWarning, TreeLevel, check_tree
from jaxcurate.checks import InputError, as_real, check_whole
from jaxcurate.curation.hierarchy import hierarchical_kmeans
from jaxcurate.curation.level import Level
from jaxcurate.kmeans.normalize import checked_shape, fit_normalizer
from jaxcurate.kmeans.predict import chunked
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.kmeans.streaming import assign_chunks
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import Devices

FAR = 0.99
"""The quantile of the old rows' distances beyond which a row counts as far."""
FAR_SHARE = 0.05
"""More of the new rows than this being far calls for a refit; by definition 1 % of the old are."""
FEW_CLUSTERS = 0.1
"""Where far rows lie in at most this share of the clusters, refitting these is enough."""
_CHANCE = 0.05
_CHUNK = 65536

Verdict = Literal["keep", "refit branches", "refit"]


class LevelDrift(NamedTuple):
    """Fit of new rows to one level of a tree, against the rows that were there before.

    Distances are Euclidean, from a row (at length 1 in a cosine tree) to the centroid of its
    cluster at this level.
    """

    level: int
    mean_old: float
    mean_new: float
    far: float
    """Share of new rows beyond the 99th percentile of the old ones."""
    growth: np.ndarray
    """float64 ``[k]``: new rows for each old one; infinite where a cluster was empty."""
    branches: np.ndarray
    """int64: clusters without which few new rows would be far; the worst first."""
    verdict: Verdict
    reason: str
    """The verdict with its numbers, in one line."""

    def to_plain(self) -> dict[str, Any]:
        """Returns as JSON holds it; :attr:`growth`, which may be infinite, is left out."""
        plain = self._asdict() | {"branches": self.branches.tolist()}
        del plain["growth"]
        return plain


def grow(tree: ClusterTree, x: np.ndarray, *, devices: Devices | None = None) -> ClusterTree:
    """Adds rows to a tree: each joins the leaf cluster with the nearest centroid.

    Nothing is refitted: clusters keep their ids, centroids and parents, and old rows their
    numbers; new rows are numbered on from them. Nearest is what the tree's metric has as such.
    The grown tree knows no pool, for it is not over the old one.

    Args:
        tree: with centroids.
        x: the new rows, ``[m, d]``.
        devices: the devices to use; all by default.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    x = _checked_rows(tree, x)
    leaf = tree.levels[0]
    devices = Devices.all() if devices is None else devices
    processes.agree("grow", devices, tree=tree, x=x)
    normalizer = fit_normalizer(leaf.centroids, "tree", metric=tree.metric)
    chunks = chunked(RowView(x, normalizer=normalizer), devices)
    labels, squared = assign_chunks(chunks, normalizer.transform(leaf.centroids))
    grown = leaf._replace(
        labels=np.concatenate([leaf.labels, labels]),
        distances=np.concatenate([leaf.distances, normalizer.inverse_transform_squared(squared)]),
    )
    return replace(tree, levels=(grown, *tree.levels[1:]), pool="")


def drift(tree: ClusterTree, x: np.ndarray, n_old: int) -> list[LevelDrift]:
    """Tells whether a tree still fits, level by level, bottom up.

    A level should be refitted when the new rows lie too far out: when more than 5 % of them are
    beyond the distance that 99 % of the old rows stay within, and so many that chance would
    hardly give them (one in twenty, were the share 5 %). Where far rows lie in a tenth of the
    clusters or fewer, refitting those branches is enough.

    An old row's distance is measured as if its cluster had been made without it, for it has
    pulled the centroid towards itself and a new row has not: in a cluster of ``s`` rows by the
    factor ``s / (s - 1)``. Rows that are alone in their cluster tell nothing and are left out.
    With ten rows a cluster or more, new rows like the old ones are far in 1 to 3 % of cases
    (measured in 2 to 128 dimensions); with four, in up to 11 %: then trust the level above.

    Args:
        tree: over the old and the new rows, from :func:`grow`.
        x: all of these rows, ``[n, d]``.
        n_old: how many of them, the first ones, are old.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    x = _checked_rows(tree, x, all_of=True)
    check_whole("n_old", n_old, 0)
    if not 0 < n_old < len(x):
        raise InputError(f"n_old={n_old} must be at least 1 and leave one of {len(x)} rows as new")
    told = []
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
        told.append(
            LevelDrift(
                number,
                float(distances[:n_old].mean()),
                float(distances[n_old:].mean()),
                float(is_far.mean()),
                growth,
                branches if verdict != "keep" else branches[:0],
                verdict,
                f"level {number}: {verdict}; {is_far.mean():.1%} of {len(is_far)} new rows are "
                f"farther than {FAR:.0%} of the old ones (a refit is due above {FAR_SHARE:.0%})"
                + (f", mostly in {len(branches)} of {k} clusters" if verdict != "keep" else ""),
            )
        )
    return told


def refit_branch(
    tree: ClusterTree,
    x: np.ndarray,
    level: int,
    cluster: int,
    *,
    n_resamples: int = 0,
    n_per_cluster: int = 1,
    seed: int = 0,
    devices: Devices | None = None,
) -> ClusterTree:
    """Clusters the rows below one cluster anew, into as many clusters at each level below it.

    The new clusters take the ids of those that they replace; everything else, the cluster itself
    included, stays as it is to the bit. Where there are now fewer rows than clusters, those left
    over stay as empty clusters.

    Args:
        tree: over ``x``.
        x: ``[n, d]``.
        level: of the cluster, at least 2.
        cluster: whose branch is refitted; it has rows.
        n_resamples: rounds of resampling at each level below.
        n_per_cluster: of these rounds.
        seed: of everything random.
        devices: the devices to use; all by default.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    x = _checked_rows(tree, x, all_of=True)
    devices = Devices.all() if devices is None else devices
    processes.agree(
        "refit_branch",
        devices,
        tree=tree,
        x=x,
        level=level,
        cluster=cluster,
        n_resamples=n_resamples,
        n_per_cluster=n_per_cluster,
        seed=seed,
    )
    if not 2 <= level <= len(tree.levels):
        raise InputError(f"level={level} must be from 2 to {len(tree.levels)}: it has none below")
    rows = tree.members(level, cluster)
    if not len(rows):
        raise InputError(f"cluster={cluster} of level {level} has no rows to cluster")
    ids = [tree.children(level, cluster)]
    for number in range(level - 1, 1, -1):
        below = [tree.children(number, int(one)) for one in ids[-1]]
        ids.append(np.sort(np.concatenate(below)))
    ids.reverse()  # of the branch's clusters at levels 1, 2, ...
    sizes = np.minimum.accumulate([len(rows), *map(len, ids)])[1:]
    settings = [Level(int(k), n_resamples, n_per_cluster) for k in sizes]
    with warnings.catch_warnings():  # clusters left over are told of above
        warnings.simplefilter("ignore", SurplusWarning)
        branch = hierarchical_kmeans(x[rows], settings, seed, metric=tree.metric, devices=devices)
    return replace(tree, levels=_grafted(tree, branch, rows, ids, level))


def _grafted(
    tree: ClusterTree,
    branch: ClusterTree,
    rows: np.ndarray,
    ids: Sequence[np.ndarray],
    level: int,
) -> tuple[TreeLevel, ...]:
    """Returns the tree's levels with a branch in the place of what was below a cluster.

    Args:
        tree: the old one.
        branch: over its ``rows``.
        rows: int64 ``[m]``.
        ids: for each of the branch's levels, the ids that its clusters take, at least as many.
        level: of the cluster that the branch hangs from.
    """
    levels = [TreeLevel(*(np.array(array) for array in one)) for one in tree.levels[:level]]
    below = rows
    for number, new in enumerate(branch.levels):
        old = levels[number]
        old.labels[below] = ids[number][new.labels]
        old.distances[below] = new.distances
        # Ids beyond the new clusters stay, empty, with their centroids and parents.
        below = ids[number][: len(new.centroids)]
        old.centroids[below] = new.centroids
    # Also those that stay: their parents' centroids are new.
    for lower, upper, made in zip(levels[:-1], levels[1:], ids, strict=True):
        offsets = lower.centroids[made].astype(np.float64) - upper.centroids[upper.labels[made]]
        upper.distances[made] = np.sum(offsets**2, axis=1)
    return (*levels, *tree.levels[level:])


def _checked_rows(tree: ClusterTree, x: np.ndarray, *, all_of: bool = False) -> np.ndarray:
    """Returns rows for the tree, as an array; refused are others, or where asked not all of its
    own."""
    check_tree(tree)
    x = as_real(x)
    checked_shape(x, "x")
    width = tree.levels[0].centroids.shape[1]
    if not width:
        raise InputError("tree has no centroids: it was made from labels alone")
    if x.shape[1] != width:
        raise InputError(f"x has {x.shape[1]} columns, but the tree's centroids have {width}")
    if all_of and tree.n_points != len(x):
        raise InputError(f"x has {len(x)} rows, but the tree has {tree.n_points} points")
    fit_normalizer(
        x, metric=tree.metric
    )  # refuses numbers that cannot be used, rows of no direction
    return x


def _distances(tree: ClusterTree, x: np.ndarray, level: int, labels: np.ndarray) -> np.ndarray:
    """Returns of each row to the centroid of its cluster at a level, float64 ``[n]``."""
    centroids, out = tree.levels[level - 1].centroids, np.empty(len(x))
    for begin in range(0, len(x), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        rows = np.asarray(x[part], np.float64)
        if tree.metric == "cosine":
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        out[part] = np.linalg.norm(rows - centroids[labels[part]], axis=1)
    return out


def _worst(labels: np.ndarray, is_far: np.ndarray, k: int) -> np.ndarray:
    """Returns the fewest clusters without which at most :data:`FAR_SHARE` of the new rows are
    far."""
    far = np.bincount(labels, is_far, k)
    excess = far.sum() - FAR_SHARE * len(labels)
    order = np.argsort(-far, kind="stable")
    return order[: int(np.searchsorted(np.cumsum(far[order]), excess)) + 1 if excess > 0 else 0]


def _verdict(is_far: np.ndarray, n_branches: int, n_filled: int) -> Verdict:
    n = len(is_far)
    import scipy.stats  # takes half a second, which `--help` need not wait for

    by_chance = scipy.stats.binom.sf(int(is_far.sum()) - 1, n, FAR_SHARE)
    if is_far.mean() <= FAR_SHARE or by_chance > _CHANCE:
        return "keep"
    return "refit branches" if n_branches <= FEW_CLUSTERS * n_filled else "refit"
