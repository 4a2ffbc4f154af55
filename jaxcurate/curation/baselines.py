"""Baselines of balanced sampling: uniform sampling, and sampling balanced over one level.

Each takes what :func:`jaxcurate.sample` takes, and is that function on a flatter tree.
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
    """Returns rows at random, every one as likely, whatever its cluster.

    Arguments and result are those of :func:`jaxcurate.sample`; of the tree only its number of
    points counts.

    Raises:
        ValueError: naming the argument that cannot be used; ``strategy="closest"`` is one, since
            there is no centroid to be close to.
    """
    check_tree(tree)
    if strategy == "closest":
        raise InputError("strategy='closest' means nothing to uniform sampling")
    one = ClusterTree.from_labels([np.zeros(tree.n_points, np.int32)])
    return sample(one, size, strategy, max_repeats, seed, rows=rows, ids=ids)


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
    """Returns rows balanced over the clusters of one level; those below and above it do not count.

    Arguments and result are those of :func:`jaxcurate.sample`.

    Args:
        level: counts from 1. Distances are to the centroids of level 1: another level knows no
            ``strategy="closest"``.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    return sample(flat(tree, level), size, strategy, max_repeats, seed, rows=rows, ids=ids)


def flat(tree: ClusterTree, level: int = 1) -> ClusterTree:
    """Returns the tree of one level only, over the points."""
    check_tree(tree)
    labels = tree.point_labels(level)
    distances = tree.levels[0].distances
    if level > 1:
        distances = np.full(tree.n_points, np.nan, np.float32)
    one = TreeLevel(tree.levels[level - 1].centroids, labels, distances)
    return replace(tree, levels=(one,))
