"""Spread of the pool and its subset: over clusters, which need no labels, and over groups."""

from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from jaxcurate.evaluation import ARMS
from jaxcurate.evaluation.balance import gini, normalized_entropy
from jaxcurate.report import plots
from jaxcurate.report.findings import Findings

_FIRST, _LAST = ("pool", "random"), ("curated",)
_ORDER = (*_FIRST, *(arm for arm in ARMS if arm not in (*_FIRST, *_LAST)), *_LAST)
"""The arms in the order of the page."""
_FEW = 12
_MANY = 60


class Group(NamedTuple):
    """One group, and what each arm has of it."""

    name: str
    counts: dict[str, int]
    shares: dict[str, float]


class Kind(NamedTuple):
    """The spread over groups of one kind: domains, labels."""

    name: str
    arms: list[str]
    n_groups: int
    present: dict[str, int]
    """Arm to groups of which it has any item."""
    entropy: dict[str, float]
    gini: dict[str, float]
    groups: list[Group]
    """The pool's largest first; not all where there are very many."""
    widest: float
    """The largest share of any."""
    few: bool
    """Whether the groups can be told one by one."""
    plots: list[Markup]


def over_clusters(findings: Findings) -> Kind:
    """Returns the spread over top-level clusters that are not empty; known without any label."""
    tree = findings.tree
    top = len(tree.levels)
    sizes = tree.point_counts(top)
    taken = np.bincount(tree.point_labels(top)[findings.indices], minlength=len(sizes))
    counts = {"pool": sizes[sizes > 0], "curated": taken[sizes > 0]}
    told = "Sizes of the top-level clusters in the pool and in the curated subset: "
    drawn = [
        plots.shares("clusters", told + "share of each.", counts, "clusters"),
        plots.lorenz("lorenz", told + "held together by the largest.", counts, "clusters"),
    ]
    return _kind("top-level cluster", counts, [], drawn)


def over_groups(balance: dict[str, Any]) -> list[Kind]:
    """Returns the spread over each kind of known groups, from ``results["balance"]``."""
    kinds = []
    for number, (name, by_arm) in enumerate(balance.items()):
        arms = [arm for arm in _ORDER if arm in by_arm]
        names = list(by_arm["pool"]["counts"])
        counts = {
            arm: np.array([by_arm[arm]["counts"].get(one, 0) for one in names]) for arm in arms
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
    """Returns the arms that a table of all kinds has to show: these three, and others where
    known."""
    known = {"pool", "random", "curated"}.union(*(kind.arms for kind in kinds))
    return [arm for arm in _ORDER if arm in known]


def _kind(name: str, counts: dict[str, np.ndarray], names: list[str], drawn: list[Markup]) -> Kind:
    shares = {arm: sizes / max(1, sizes.sum()) for arm, sizes in counts.items()}
    groups = [
        Group(
            one,
            {arm: int(sizes[i]) for arm, sizes in counts.items()},
            {arm: float(share[i]) for arm, share in shares.items()},
        )
        for i, one in enumerate(names[:_MANY])
    ]
    return Kind(
        name,
        list(counts),
        len(counts["pool"]),
        {arm: int(np.count_nonzero(sizes)) for arm, sizes in counts.items()},
        {arm: normalized_entropy(sizes) for arm, sizes in counts.items()},
        {arm: gini(sizes) for arm, sizes in counts.items()},
        groups,
        max(float(share.max()) for share in shares.values()),
        len(names) <= _FEW,
        drawn,
    )
