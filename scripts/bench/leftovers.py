#!/usr/bin/env python3
"""Compares rules for the rows that are left over where a quota does not divide evenly.

    python scripts/bench/leftovers.py [WORK_DIR]

A node gives each child the same number of rows. The remainder goes one each to some of the
children that have more rows. This script compares the following choices:

- random: children at random, the rule of ``jc.sample``
- largest, smallest: children with the most or the fewest points
- closest: children closest to the centroid of their parent; at random at the top, without parent
- spread: a child at random, then always the child farthest from all before it
- random, deeper: the random rule on trees with one small level more at the top

Samples of each rule are nested and depend on the tree and the seed alone. The pools are the rings
of the published simulation, the digits of scikit-learn with classes of geometrically falling sizes,
and the pool of ``configs/weblike.py``, if WORK_DIR holds one.

For each pool, size and rule the table gives the normalized entropy over the known groups (rings,
classes or domains), its mean over trees and draws and the standard deviation of one draw; the
entropies over the top clusters and over the leaves; and the mean number of rows of each group, in
the order of the groups' sizes in the pool, the largest first. All samples are drawn by the loop
below, whose random draws are checked against ``jc.sample``.
"""

import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

import jaxcurate as jc
from jaxcurate.evaluation import level_balance, normalized_entropy
from jaxcurate.sources.synthetic.simulations import rings
from jaxcurate.stateless_random import priorities

RULES = ("random", "largest", "smallest", "closest", "spread")
TREES, DRAWS = range(3), range(5)
DECAY = 0.6
"""Ratio of the sizes of a class of digits and the next one."""


class Case(NamedTuple):
    """Pool with known groups, the levels of its trees, one more at their top, and the sizes."""

    name: str
    x: np.ndarray
    groups: np.ndarray
    levels: tuple[jc.Level, ...]
    above: jc.Level
    sizes: tuple[int, ...]


def cases(work_dir: str | None) -> Iterator[Case]:
    """Yields the pools that are compared."""
    x, ring = rings(0)
    levels = (jc.Level(1000, 10, 5), jc.Level(100, 10, 2))
    yield Case("rings", x, ring, levels, jc.Level(10, 5, 2), (50, 250, 500, 1000, 2000))
    yield digits()
    if work_dir:
        pool = jc.Pool.load(f"{work_dir}/pool")
        domains = np.unique([id.split("/")[0] for id in pool.ids.tolist()], return_inverse=True)[1]
        levels = (jc.Level(1000, 10, 10), jc.Level(100, 10, 5))
        sizes = (50, 250, 500, 1000, 2000)
        yield Case("web-like", pool.embeddings, domains, levels, jc.Level(10, 5, 2), sizes)


def digits() -> Case:
    """Returns the digits of scikit-learn, of which the later classes keep ever fewer."""
    from sklearn.datasets import load_digits

    x, labels = load_digits(return_X_y=True)
    rank = np.empty(len(labels), int)
    for label in range(10):
        rank[labels == label] = np.arange((labels == label).sum())
    kept = rank < 170 * DECAY**labels
    levels = (jc.Level(100, 5, 5), jc.Level(20, 5, 2))
    return Case("digits", x[kept], labels[kept], levels, jc.Level(5, 3, 2), (10, 25, 50, 100, 200))


def trees_of(x: np.ndarray, levels: tuple[jc.Level, ...]) -> list[jc.ClusterTree]:
    """Returns a tree for each seed."""
    return [jc.hierarchical_kmeans(x, levels, seed) for seed in TREES]


def rank_of(rule: str, tree: jc.ClusterTree, level: int, seed: int) -> np.ndarray:
    """Returns the place of each cluster of a level in the order of a rule, int ``[k]``."""
    counts = tree.point_counts(level)
    if rule == "spread":
        return spread(tree, level, priorities(len(counts), seed, level))
    above = tree.levels[level].distances if level < len(tree.levels) else np.zeros(len(counts))
    first = {"random": 0 * counts, "largest": -counts, "smallest": counts, "closest": above}[rule]
    return np.argsort(np.lexsort((priorities(len(counts), seed, level), first)))


def spread(tree: jc.ClusterTree, level: int, order: np.ndarray) -> np.ndarray:
    """Returns the place of each cluster of a level among its siblings, farthest first, int ``[k]``.

    Args:
        tree: the tree.
        level: number of the level.
        order: numbers ``[k]``, of which the lowest among siblings comes first.
    """
    centroids, rank = tree.levels[level - 1].centroids, np.zeros(len(order), int)
    is_top = level == len(tree.levels)
    parents = np.zeros(len(order), int) if is_top else tree.levels[level].labels
    for parent in np.unique(parents):
        children = np.flatnonzero(parents == parent)
        gaps = np.full(len(children), np.inf)
        chosen = int(np.argmin(order[children]))
        for place in range(len(children)):
            rank[children[chosen]] = place
            apart = np.linalg.norm(centroids[children] - centroids[children[chosen]], axis=1)
            gaps = np.minimum(gaps, apart)
            gaps[chosen] = -1  # also equal centroids come once
            chosen = int(np.argmax(gaps))
    return rank


def split(counts: np.ndarray, size: int, rank: np.ndarray) -> np.ndarray:
    """Returns the quotas of the children of one node, int ``[m]``."""
    even = max(c for c in range(size + 1) if np.minimum(counts, c).sum() <= size)
    quotas = np.minimum(counts, even)
    open_ = np.flatnonzero(counts > even)
    quotas[open_[np.argsort(rank[open_])[: size - quotas.sum()]]] += 1
    return quotas


def draw(tree: jc.ClusterTree, size: int, rule: str, seed: int) -> np.ndarray:
    """Returns a balanced sample by a loop over all nodes, int, sorted."""
    quotas, parents = np.array([size]), np.zeros(tree.n_clusters(len(tree.levels)), int)
    for level in range(len(tree.levels), 0, -1):
        counts, rank = tree.point_counts(level), rank_of(rule, tree, level, seed)
        below = np.zeros(len(counts), int)
        for node in np.flatnonzero(quotas):
            children = np.flatnonzero(parents == node)
            below[children] = split(counts[children], quotas[node], rank[children])
        quotas, parents = below, tree.levels[level - 1].labels
    order = np.lexsort((priorities(tree.n_points, seed), tree.levels[0].labels))
    counts = tree.point_counts(1)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[place < np.repeat(quotas, counts)])


def measure(case: Case, trees: list[jc.ClusterTree], size: int, rule: str, depth: str = "") -> None:
    """Prints the line of one rule."""
    entropies, levels, taken = [], [], []
    by_size = np.argsort(-np.bincount(case.groups), kind="stable")
    for tree in trees:
        for seed in DRAWS:
            rows = draw(tree, size, rule, seed)
            if rule == "random" and not np.array_equal(rows, jc.sample(tree, size, seed=seed)):
                raise SystemExit(f"{case.name}, {size} rows: jc.sample draws other rows")
            counts = np.bincount(case.groups[rows], minlength=len(by_size))[by_size]
            entropies.append(normalized_entropy(counts))
            levels.append([level.entropy for level in level_balance(tree, rows)])
            taken.append(counts)
    leaves, *_, top = np.mean(levels, axis=0)
    deviation = np.std(np.reshape(entropies, (len(trees), -1)), axis=1).mean()
    of_groups = " ".join(f"{n:.0f}" for n in np.mean(taken, axis=0))
    print(
        f"{case.name:<10}{size:>6}  {rule + depth:<16}{np.mean(entropies):>9.3f}{deviation:>8.3f}"
        f"{top:>8.3f}{leaves:>8.3f}   {of_groups}",
        flush=True,
    )


def main() -> None:
    given = sys.argv[1:]
    if len(given) > 1 or given[:1] in (["-h"], ["--help"]):
        raise SystemExit(f"usage: {sys.argv[0]} [WORK_DIR]")
    print(f"{'pool':<10}{'rows':>6}  {'rule':<16}{'entropy':>9}{'+-':>8}{'top':>8}{'leaves':>8}")
    for case in cases(given[0] if given else None):
        trees = trees_of(case.x, case.levels)
        deeper = trees_of(case.x, (*case.levels, case.above))
        for size in case.sizes:
            for rule in RULES:
                measure(case, trees, size, rule)
            measure(case, deeper, size, "random", ", deeper")


if __name__ == "__main__":
    main()
