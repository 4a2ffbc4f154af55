"""The tree, level by level."""

from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.evaluation.balance import gini
from jaxcurate.report import plots
from jaxcurate.report.numbers import count


class LevelSizes(NamedTuple):
    """Points per cluster of one level; all but ``n_empty`` is of clusters that are not empty."""

    number: int
    n_clusters: int
    n_empty: int
    smallest: int
    median: float
    mean: float
    largest: int
    gini: float
    plot: Markup


def level_sizes(tree: ClusterTree) -> list[LevelSizes]:
    """Returns the sizes at every level, bottom up."""
    told = []
    for number in range(1, len(tree.levels) + 1):
        all_sizes = tree.point_counts(number)
        sizes = all_sizes[all_sizes > 0]
        alt = (
            f"Histogram of cluster sizes at level {number}: {count(len(sizes))} clusters of "
            f"{count(int(sizes.min()))} to {count(int(sizes.max()))} points."
        )
        told.append(
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
    return told
