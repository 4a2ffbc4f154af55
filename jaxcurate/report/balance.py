"""Section on balance: spread of the pool and its subset over clusters and over known groups."""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from jaxcurate.evaluation import ARMS
from jaxcurate.evaluation.balance import gini, normalized_entropy
from jaxcurate.report import plots
from jaxcurate.report.findings import Findings

_FIRST, _LAST = ("pool", "random"), ("curated",)
_FEW = 12
"""Largest number of groups that are listed one by one."""
_MANY = 60
"""Largest number of groups that are listed at all."""


class Group(NamedTuple):
    """Items of one group in each arm."""

    name: str
    """Name of the group."""
    counts: dict[str, int]
    """Number of items by arm."""
    fractions: dict[str, float]
    """Fraction of the items of the arm, by arm."""


class Kind(NamedTuple):
    """Spread over the groups of one kind: clusters, domains or labels."""

    name: str
    """Name of the kind, in the singular."""
    arms: list[str]
    """Arms whose spread is known."""
    n_groups: int
    """Number of groups."""
    present: dict[str, int]
    """Number of groups with items, by arm."""
    entropy: dict[str, float]
    """Normalized entropy by arm."""
    gini: dict[str, float]
    """Gini coefficient by arm."""
    groups: list[Group]
    """At most 60 groups, by descending size in the pool."""
    widest: float
    """Largest fraction of any group in any arm."""
    few: bool
    """True if there are so few groups that all are listed."""
    plots: list[Markup]
    """Plots of the spread."""


def over_clusters(findings: Findings) -> Kind:
    """Returns the spread over the nonempty clusters of the top level, which needs no labels."""
    tree = findings.tree
    top = len(tree.levels)
    sizes = tree.point_counts(top)
    taken = np.bincount(tree.point_labels(top)[findings.indices], minlength=len(sizes))
    counts = {"pool": sizes[sizes > 0], "curated": taken[sizes > 0]}
    sizes_of = "Sizes of the top-level clusters in the pool and in the curated subset: "
    drawn = [
        plots.fractions("clusters", sizes_of + "share of each.", counts, "clusters"),
        plots.lorenz("lorenz", sizes_of + "held together by the largest.", counts, "clusters"),
    ]
    return _kind("top-level cluster", counts, [], drawn)


def over_groups(balance: dict[str, Any]) -> list[Kind]:
    """Returns the spread over each kind of known groups.

    Args:
        balance: the entry ``balance`` of the results of the evaluation.
    """
    kinds = []
    for number, (name, by_arm) in enumerate(balance.items()):
        arms = _ordered(by_arm)
        names = list(by_arm["pool"]["counts"])
        counts = {
            arm: np.array([by_arm[arm]["counts"].get(group, 0) for group in names]) for arm in arms
        }
        drawn = []
        if len(names) > _FEW:
            alt = f"Share of each {name}, sorted, in the {', '.join(arms)}."
            drawn = [
                plots.ranked(f"ranked{number}", alt, counts, f"{name}s"),
                plots.lorenz(f"held{number}", alt, counts, f"{name}s"),
            ]
        kind = _kind(name, counts, names, drawn)
        kinds.append(
            kind._replace(
                entropy={arm: by_arm[arm]["entropy"] for arm in arms},
                gini={arm: by_arm[arm]["gini"] for arm in arms},
            )
        )
    return kinds


def arms_of(kinds: list[Kind]) -> list[str]:
    """Returns the arms in a table of all kinds, in the order of the page."""
    known = {"pool", "random", "curated"}.union(*(kind.arms for kind in kinds))
    return _ordered(known)


def _ordered(arms: Collection[str]) -> list[str]:
    """Returns arms in the order of the page; those of manifests have names that nobody knows."""
    middle = [arm for arm in ARMS if arm not in (*_FIRST, *_LAST)]
    others = sorted(set(arms) - set(ARMS))
    return [arm for arm in (*_FIRST, *middle, *others, *_LAST) if arm in arms]


def _kind(name: str, counts: dict[str, np.ndarray], names: list[str], drawn: list[Markup]) -> Kind:
    fractions = {arm: sizes / max(1, sizes.sum()) for arm, sizes in counts.items()}
    groups = [
        Group(
            group,
            {arm: int(sizes[i]) for arm, sizes in counts.items()},
            {arm: float(fraction[i]) for arm, fraction in fractions.items()},
        )
        for i, group in enumerate(names[:_MANY])
    ]
    return Kind(
        name,
        list(counts),
        len(counts["pool"]),
        {arm: int(np.count_nonzero(sizes)) for arm, sizes in counts.items()},
        {arm: normalized_entropy(sizes) for arm, sizes in counts.items()},
        {arm: gini(sizes) for arm, sizes in counts.items()},
        groups,
        max(float(fraction.max()) for fraction in fractions.values()),
        len(names) <= _FEW,
        drawn,
    )
