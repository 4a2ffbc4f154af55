"""Choice of the clusters and items that the page shows."""

from typing import NamedTuple

import numpy as np

from jaxcurate.report.findings import Findings

N_CLUSTERS = 12
"""Number of clusters that are shown as strips."""
N_STRIP = 12
"""Number of items in a strip."""
N_SHEET = 60
"""Number of kept and of dropped items that are shown."""
N_LISTED = 1000
"""Largest number of clusters in the list of all clusters."""
N_ENDS = 250
"""Number of the largest, and of the smallest, clusters that are always in the list."""
_N_SMALL = 3000
"""Number of items in the list of all clusters, shared among them."""
_NUMBERS = 2**21
"""Largest number of entries of embeddings that are in float64 at a time."""
_N_MEASURED = 1 << 18
"""Largest number of rows of vectors whose distances to centroids are computed for a section."""


class Choice(NamedTuple):
    """Rows of some items of a cluster."""

    cluster: int
    """Number of the cluster at the top level."""
    n_pool: int
    """Number of its items in the pool."""
    n_kept: int
    """Number of its distinct items in the subset."""
    rows: np.ndarray
    """int64 ``[m]``, rows of the items that are shown."""


class Choices(NamedTuple):
    """Clusters and items that the page shows."""

    strips: list[Choice]
    """Clusters whose items are shown as strips, in descending order of size."""
    listed: list[Choice]
    """Clusters in the list of all clusters, in descending order of size."""
    n_filled: int
    """Number of clusters of the top level that are not empty."""
    kept: np.ndarray
    """Rows of some items of the subset."""
    dropped: np.ndarray
    """Rows of some items that are not in the subset."""


def choose(findings: Findings, is_kept: np.ndarray) -> Choices:
    """Returns the clusters and items to show, the same for the same findings.

    Items are chosen at random, and of vectors, those nearest to the centroid of their cluster.

    Args:
        findings: the contents of the page.
        is_kept: bool ``[n]``, True for items of the subset.
    """
    rng = np.random.default_rng(0)
    tree, top = findings.tree, len(findings.tree.levels)
    sizes = tree.point_counts(top)
    n_kept = np.bincount(tree.point_labels(top)[is_kept], minlength=len(sizes))
    strips = _spread(sizes)
    listed = _listed(sizes, strips, rng)

    def of(clusters: np.ndarray, most: int) -> list[Choice]:
        choices = []
        for cluster in clusters.tolist():
            members = tree.members(top, cluster)
            if findings.kind == "vector":
                rows = _central(findings, cluster, members, most, len(clusters), rng)
            else:
                rows = _mixed(members, is_kept, most, rng)
            choices.append(Choice(cluster, int(sizes[cluster]), int(n_kept[cluster]), rows))
        return choices

    return Choices(
        of(strips, N_STRIP),
        of(listed, int(np.clip(_N_SMALL // len(listed), 1, N_STRIP))),
        int(np.count_nonzero(sizes)),
        *(_some(np.flatnonzero(part), N_SHEET, rng) for part in (is_kept, ~is_kept)),
    )


def _by_size(sizes: np.ndarray) -> np.ndarray:
    """Returns clusters that are not empty, in descending order of size."""
    return np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]


def _spread(sizes: np.ndarray) -> np.ndarray:
    """Returns clusters from the largest to the smallest, by even ratios of size."""
    order = _by_size(sizes)
    distance = np.log(sizes[order[0]] / sizes[order])
    taken = np.zeros(len(order), bool)
    for target in np.linspace(0, distance[-1], min(N_CLUSTERS, len(order))):
        taken[np.argmin(np.where(taken, np.inf, abs(distance - target)))] = True
    return order[taken]


def _listed(sizes: np.ndarray, strips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns all clusters, or if they are too many, those of the strips and some others.

    The others are the largest, the smallest, and random clusters, in descending order of size.
    """
    order = _by_size(sizes)
    if len(order) <= N_LISTED:
        return order
    taken = np.isin(order, strips)
    taken[:N_ENDS] = taken[-N_ENDS:] = True
    taken[rng.choice(np.flatnonzero(~taken), N_LISTED - int(taken.sum()), replace=False)] = True
    return order[taken]


def _mixed(
    rows: np.ndarray, is_kept: np.ndarray, most: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns random items of a cluster: kept items in up to half of the places, then others."""
    kept, others = rows[is_kept[rows]], rows[~is_kept[rows]]
    n_kept = min(len(kept), max(-(-most // 2), most - len(others)))
    return np.concatenate([_some(kept, n_kept, rng), _some(others, most - n_kept, rng)])


def _some(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(rows, min(most, len(rows)), replace=False)


def _central(
    findings: Findings,
    cluster: int,
    members: np.ndarray,
    most: int,
    n_clusters: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Returns the items nearest to the centroid of a cluster, the nearest first.

    Of a large cluster, only some random items are compared.
    """
    rows = np.sort(_some(members, max(most, _N_MEASURED // n_clusters), rng))
    step = max(1, _NUMBERS // findings.pool.embeddings.shape[1])
    blocks = [rows[begin : begin + step] for begin in range(0, len(rows), step)]
    centroid = _centroid(findings, cluster, blocks)
    squared = [np.square(_measured(findings, block) - centroid).sum(axis=1) for block in blocks]
    return rows[np.argsort(np.concatenate(squared), kind="stable")[:most]]


def _measured(findings: Findings, rows: np.ndarray) -> np.ndarray:
    """Returns embeddings, float64 ``[m, d]``, at length 1 in a cosine tree."""
    x = np.asarray(findings.pool.embeddings[rows], np.float64)
    if findings.tree.metric == "cosine":
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return x


def _centroid(findings: Findings, cluster: int, blocks: list[np.ndarray]) -> np.ndarray:
    """Returns the centroid of a top cluster, or the mean of rows if the tree has no centroids."""
    known = findings.tree.levels[-1].centroids
    if known.shape[1]:
        return np.asarray(known[cluster], np.float64)
    total = np.sum([_measured(findings, block).sum(axis=0) for block in blocks], axis=0)
    return total / sum(map(len, blocks))
