"""Baselines of balanced sampling: uniform sampling, and sampling balanced over one level.

Each has the arguments of :func:`jaxcurate.sample` and calls it with a flatter tree.
"""

from dataclasses import replace

import numpy as np

from jaxcurate.artifacts.tree import ClusterTree, TreeLevel, check_tree
from jaxcurate.checks import InputError
from jaxcurate.curation.sampling import Strategy, sample


def sample_uniform(
    tree: ClusterTree,
    size: int,
    strategy: Strategy = "random",
    max_repeats: int = 1,
    seed: int = 0,
    *,
    rows: np.ndarray | None = None,
    ids: np.ndarray | None = None,
) -> np.ndarray:
    """Returns rows drawn uniformly at random, without regard to clusters.

    Args:
        tree: tree over ``n`` points, of which only the number of points is used.
        size: number of rows.
        strategy: ``"random"``, the only one that uniform sampling has.
        max_repeats: largest number of times that a row may be taken.
        seed: seed of the random order of the rows.
        rows: distinct numbers ``[m]`` of the rows that may be taken. All by default.
        ids: distinct strings or whole numbers ``[n]``, as in :func:`jaxcurate.sample`.

    Returns:
        int64 ``[size]``, sorted.

    Raises:
        InputError: an argument cannot be used; the message names it.

    Examples:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> from jaxcurate.curation import sample_uniform
        >>> tree = jc.ClusterTree.from_labels([np.repeat([0, 1], [98, 2])])
        >>> sample_uniform(tree, 4)
        array([28, 37, 79, 83])
    """
    check_tree(tree)
    if strategy == "closest":
        raise InputError("strategy='closest' means nothing to uniform sampling")
    single = ClusterTree.from_labels([np.zeros(tree.n_points, np.int32)])
    return sample(single, size, strategy, max_repeats, seed, rows=rows, ids=ids)


def sample_flat(
    tree: ClusterTree,
    size: int,
    strategy: Strategy = "random",
    max_repeats: int = 1,
    seed: int = 0,
    *,
    rows: np.ndarray | None = None,
    ids: np.ndarray | None = None,
    level: int = 1,
) -> np.ndarray:
    """Returns rows balanced over the clusters of one level, without regard to other levels.

    Args:
        tree: tree over ``n`` points.
        size: number of rows.
        strategy: ``"random"``, or at level 1 also ``"closest"``: a tree has the distances of
            points to the centroids of level 1 alone.
        max_repeats: largest number of times that a row may be taken.
        seed: seed of the random order of the rows.
        rows: distinct numbers ``[m]`` of the rows that may be taken. All by default.
        ids: distinct strings or whole numbers ``[n]``, as in :func:`jaxcurate.sample`.
        level: number of the level, from 1.

    Returns:
        int64 ``[size]``, sorted.

    Raises:
        InputError: an argument cannot be used; the message names it.

    Examples:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> from jaxcurate.curation import sample_flat
        >>> tree = jc.ClusterTree.from_labels([np.repeat([0, 1], [98, 2])])
        >>> sample_flat(tree, 4)[-2:]
        array([98, 99])
    """
    return sample(flat(tree, level), size, strategy, max_repeats, seed, rows=rows, ids=ids)


def flat(tree: ClusterTree, level: int = 1) -> ClusterTree:
    """Returns a tree over the same points that has one level alone.

    Args:
        tree: tree over ``n`` points.
        level: number of the level to keep, from 1.

    Examples:
        >>> import jaxcurate as jc
        >>> tree = jc.ClusterTree.from_labels([[0, 1, 2, 2], [0, 0, 1]])
        >>> flat(tree, level=2).levels[0].labels
        array([0, 0, 1, 1], dtype=int32)
    """
    check_tree(tree)
    labels = tree.point_labels(level)
    distances = tree.levels[0].distances
    if level > 1:
        distances = np.full(tree.n_points, np.nan, np.float32)
    single = TreeLevel(tree.levels[level - 1].centroids, labels, distances)
    return replace(tree, levels=(single,))
