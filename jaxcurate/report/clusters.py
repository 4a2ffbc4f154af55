"""Section that lets the reader open any cluster of the top level."""

from typing import NamedTuple

import numpy as np

from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.report.choose import N_ENDS, Choice, Choices
from jaxcurate.report.items import Item

_IN_GROUP = 50
"""Number of clusters that a group holds."""
_N_PARTS = 20_000
"""Number of sub-clusters that are listed, shared among the clusters."""


class Part(NamedTuple):
    """Cluster of the level below the top."""

    number: int
    """Number of the cluster at its level."""
    n_pool: int
    """Number of its items in the pool."""
    n_kept: int
    """Number of its distinct items in the subset."""


class Cluster(NamedTuple):
    """Cluster of the top level."""

    number: int
    """Number of the cluster."""
    n_pool: int
    """Number of its items in the pool."""
    n_kept: int
    """Number of its distinct items in the subset."""
    items: list[Item]
    """Items that are shown."""
    parts: list[Part]
    """Largest sub-clusters that are not empty, in descending order of size."""
    n_parts: int
    """Number of sub-clusters that are not empty."""


class Clusters(NamedTuple):
    """Clusters of the top level, all of them unless they are too many."""

    groups: list[list[Cluster]]
    """Clusters in descending order of size, at most 50 in a group."""
    n_listed: int
    """Number of clusters that are listed."""
    n_filled: int
    """Number of clusters that are not empty."""
    n_empty: int
    """Number of empty clusters."""
    n_ends: int
    """Number of the largest, and of the smallest, clusters that are always listed."""
    has_parts: bool
    """True if there is a level below the top."""


def clusters(
    tree: ClusterTree, choices: Choices, items: dict[int, Item], is_kept: np.ndarray
) -> Clusters:
    """Returns the clusters of the section.

    Args:
        tree: tree over the pool.
        choices: clusters and rows to show.
        items: items by row.
        is_kept: bool ``[n]``, True for items of the subset.
    """
    top = len(tree.levels)
    most = int(np.clip(_N_PARTS // len(choices.listed), 4, 100))
    below = below_kept = np.zeros(0, np.int64)
    if top > 1:
        below = tree.point_counts(top - 1)
        below_kept = np.bincount(tree.point_labels(top - 1)[is_kept], minlength=len(below))

    def cluster(choice: Choice) -> Cluster:
        filled = np.zeros(0, np.int64)
        if top > 1:
            filled = tree.children(top, choice.cluster)
            filled = filled[below[filled] > 0]
            filled = filled[np.argsort(-below[filled], kind="stable")]
        parts = [Part(c, int(below[c]), int(below_kept[c])) for c in filled[:most].tolist()]
        shown = [items[row] for row in choice.rows.tolist()]
        return Cluster(choice.cluster, choice.n_pool, choice.n_kept, shown, parts, len(filled))

    listed = [cluster(choice) for choice in choices.listed]
    return Clusters(
        [listed[begin : begin + _IN_GROUP] for begin in range(0, len(listed), _IN_GROUP)],
        len(listed),
        choices.n_filled,
        tree.n_clusters(top) - choices.n_filled,
        N_ENDS,
        top > 1,
    )
