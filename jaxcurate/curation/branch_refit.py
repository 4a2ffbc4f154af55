"""Refits: branches of a grown tree that its rows no longer fit are clustered anew."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jaxcurate.artifacts.tree import ClusterTree, SurplusWarning, TreeLevel
from jaxcurate.checks import InputError
from jaxcurate.curation.growth import LevelDrift, nearest_centroids, rows_for_tree
from jaxcurate.curation.hierarchy import Progress, hierarchical_kmeans
from jaxcurate.curation.level import Level
from jaxcurate.kmeans.fit import InitName
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import Devices, RowsLike


def branches_to_refit(
    tree: ClusterTree, drifts: Sequence[LevelDrift]
) -> tuple[int, np.ndarray] | None:
    """Returns the branches that :func:`drift` advises to refit, for :func:`refit_branches`.

    Args:
        tree: the grown tree.
        drifts: what :func:`drift` returns for it, bottom up.

    Returns:
        The lowest level that is to be refitted in branches, and the clusters from which they hang.
        A leaf has nothing below it: its parent at level 2 is named instead. None if no level is to
        be refitted in branches, or if the tree has leaves alone.

    Examples:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> from jaxcurate.curation import branches_to_refit, drift, grow
        >>> old = np.repeat(10 * np.eye(12), 20, axis=0)
        >>> old += np.random.default_rng(0).normal(size=old.shape)
        >>> tree = jc.hierarchical_kmeans(old, [jc.Level(60), jc.Level(12)])
        >>> new = old[:20] + 5  # around one of the groups
        >>> grown = grow(tree, new)
        >>> drifts = drift(grown, np.concatenate([old, new]), len(old))
        >>> level, clusters = branches_to_refit(grown, drifts)
        >>> level, len(clusters)
        (2, 1)
    """
    for level in drifts:
        if level.verdict == "refit branches":
            if level.level > 1:
                return level.level, level.branches
            if len(tree.levels) > 1:
                return 2, np.unique(tree.levels[1].labels[level.branches])
    return None


def refit_branches(
    tree: ClusterTree,
    x: RowsLike,
    level: int,
    clusters: Sequence[int] | np.ndarray,
    *,
    levels: Sequence[Level] = (),
    seed: int = 0,
    max_iter: int = 50,
    init: InitName = "k-means++",
    memory_limit: int | None = None,
    devices: Devices | None = None,
    progress: Progress | None = None,
) -> ClusterTree:
    """Clusters the rows below some clusters anew, into as many clusters at each level below them.

    The new clusters take the ids of the clusters that they replace, and hang from the nearest of
    ``clusters``. Everything else, including these clusters and their centroids, stays the same bit
    for bit. If there are now fewer rows than clusters, the remaining clusters stay, empty.

    Args:
        tree: tree over ``x``.
        x: rows ``[n, d]``.
        level: level of the clusters, at least 2.
        clusters: ids of the clusters whose branches are refitted. One of them has rows.
        levels: settings of the levels that the tree was made with, bottom up, whose rounds of
            resampling are repeated. There are none by default.
        seed: seed of all random numbers.
        max_iter: largest number of Lloyd's iterations of each k-means.
        init: seeding of the centroids, as in :func:`jaxcurate.hierarchical_kmeans`.
        memory_limit: bytes that the rows may take, as in :func:`jaxcurate.hierarchical_kmeans`.
        devices: the devices to use. All by default.
        progress: called as by :func:`jaxcurate.hierarchical_kmeans`.

    Returns:
        The tree with the new branches.

    Raises:
        InputError: an argument cannot be used; the message names it.

    Examples:
        The top cluster has two leaves that do not separate the two groups of its rows:

        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> from jaxcurate.curation import refit_branches
        >>> x = np.array([[0.0, 0], [0, 1], [9, 9], [9, 8]], np.float32)
        >>> leaves = jc.TreeLevel(x[[0, 2]], np.array([0, 1, 0, 1], np.int32), np.zeros(4))
        >>> top = jc.TreeLevel(x[:1], np.zeros(2, np.int32), np.zeros(2))
        >>> tree = refit_branches(jc.ClusterTree((leaves, top)), x, level=2, clusters=[0])
        >>> labels = tree.levels[0].labels
        >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
        True
    """
    x = rows_for_tree(tree, x, all_of=True)
    devices = Devices.all() if devices is None else devices
    processes.agree(
        "refit_branches",
        devices,
        tree=tree,
        x=x,
        level=level,
        clusters=clusters,
        levels=levels,
        seed=seed,
        max_iter=max_iter,
        init=init,
        memory_limit=memory_limit,
    )
    if not 2 <= level <= len(tree.levels):
        raise InputError(f"level={level} must be from 2 to {len(tree.levels)}: it has none below")
    if levels and len(levels) < level - 1:
        raise InputError(f"levels has {len(levels)} settings for the {level - 1} levels below")
    clusters = np.unique(np.asarray(clusters))
    ids = [clusters]
    for number in range(level, 1, -1):
        below = [tree.children(number, cluster) for cluster in ids[-1]]
        ids.append(np.sort(np.concatenate([*below, np.zeros(0, np.int64)])))
    ids = ids[:0:-1]  # of the branches' clusters at levels 1, 2, ...
    rows = np.flatnonzero(np.isin(tree.point_labels(level), clusters))
    if not len(rows):
        raise InputError(f"clusters={clusters.tolist()} of level {level} have no rows to cluster")
    sizes = np.minimum.accumulate([len(rows), *map(len, ids)])[1:].tolist()
    plain = [Level(k) for k in sizes]
    settings = [
        replace(setting, n_clusters=k, n_splits=1, n_fit=None)
        for setting, k in zip(levels or plain, sizes, strict=False)
    ]
    with warnings.catch_warnings():  # the clusters that remain, empty, are no surprise
        warnings.simplefilter("ignore", SurplusWarning)
        branch = hierarchical_kmeans(
            x,
            settings,
            seed,
            rows=rows,
            max_iter=max_iter,
            init=init,
            metric=tree.metric,
            memory_limit=memory_limit,
            devices=devices,
            progress=progress,
        )
    top = branch.levels[-1].centroids
    among = tree.levels[level - 1].centroids[clusters]
    parents = clusters[nearest_centroids(top, among, tree.metric, devices)[0]]
    return replace(tree, levels=_grafted(tree, branch, rows, ids, parents))


def _grafted(
    tree: ClusterTree,
    branches: ClusterTree,
    rows: np.ndarray,
    ids: Sequence[np.ndarray],
    parents: np.ndarray,
) -> tuple[TreeLevel, ...]:
    """Returns the levels of a tree with new branches below some clusters.

    Args:
        tree: old tree.
        branches: tree over the same points that was fitted to ``rows``.
        rows: int64 ``[m]``, rows of the clusters.
        ids: for each level of the branches, the ids that its clusters take, at least as many.
        parents: the clusters from which the topmost clusters of the branches hang.
    """
    level = len(branches.levels) + 1
    levels = [TreeLevel(*(np.array(array) for array in old)) for old in tree.levels[:level]]
    leaf = branches.levels[0]
    leaf = leaf._replace(labels=leaf.labels[rows], distances=leaf.distances[rows])
    below = rows
    for number, new in enumerate((leaf, *branches.levels[1:])):
        old = levels[number]
        old.labels[below] = ids[number][new.labels]
        old.distances[below] = new.distances
        # Ids beyond the new clusters stay, empty, with their centroids and parents.
        below = ids[number][: len(new.centroids)]
        old.centroids[below] = new.centroids
    levels[-1].labels[below] = parents
    # Also those that stay: their parents' centroids are new.
    for lower, upper, made in zip(levels[:-1], levels[1:], ids, strict=True):
        offsets = lower.centroids[made].astype(np.float64) - upper.centroids[upper.labels[made]]
        upper.distances[made] = np.sum(offsets**2, axis=1)
    return (*levels, *tree.levels[level:])
