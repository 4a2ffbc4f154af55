"""Section on the tree: the sizes of clusters at every level."""

from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.evaluation.balance import gini
from jaxcurate.report import plots
from jaxcurate.report.numbers import count


class LevelSizes(NamedTuple):
    """Numbers of points in the clusters of one level; statistics are over nonempty clusters."""

    number: int
    """Number of the level; 1 is the lowest."""
    n_clusters: int
    """Number of clusters."""
    n_empty: int
    """Number of empty clusters."""
    smallest: int
    """Smallest number of points."""
    median: float
    """Median number of points."""
    mean: float
    """Mean number of points."""
    largest: int
    """Largest number of points."""
    gini: float
    """Gini coefficient of the sizes."""
    plot: Markup
    """Histogram of the sizes."""


def level_sizes(tree: ClusterTree) -> list[LevelSizes]:
    """Returns the sizes of clusters at every level, bottom up."""
    levels = []
    for number in range(1, len(tree.levels) + 1):
        all_sizes = tree.point_counts(number)
        sizes = all_sizes[all_sizes > 0]
        alt = (
            f"Histogram of cluster sizes at level {number}: {count(len(sizes))} clusters of "
            f"{count(int(sizes.min()))} to {count(int(sizes.max()))} points."
        )
        levels.append(
            LevelSizes(
                number,
                len(all_sizes),
                len(all_sizes) - len(sizes),
                int(sizes.min()),
                float(np.median(sizes)),
                float(sizes.mean()),
                int(sizes.max()),
                gini(sizes),
                plots.cluster_sizes(f"level{number}", alt, sizes),
            )
        )
    return levels
