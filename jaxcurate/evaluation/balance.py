"""Measures of how evenly a subset is spread over known groups: entropy, Gini. For evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Balance:
    """The spread of items over groups."""

    counts: dict[str, int]
    """Items in each group, the largest first."""
    entropy: float
    """Entropy of the groups' shares, over that of equal shares: 1 is even; 0, all in one group."""
    gini: float
    """Gini coefficient of the groups' sizes: 0 is even."""


def balance_of(groups: Sequence[str] | np.ndarray, known: Sequence[str] | np.ndarray) -> Balance:
    """Returns the spread of items over all groups that are known, those without items included.

    Args:
        groups: the group of each item, ``[n]``.
        known: the names of the groups, each once.
    """
    names, counts = np.unique(np.asarray(groups), return_counts=True)
    found = dict(zip(names.tolist(), counts.tolist(), strict=True))
    sizes = {str(name): found.get(name, 0) for name in known}
    by_size = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))
    array = np.array(list(by_size.values()), np.float64)
    return Balance(by_size, normalized_entropy(array), gini(array))


def normalized_entropy(counts: np.ndarray) -> float:
    """Returns entropy of shares ``counts / sum(counts)``, over the logarithm of their number."""
    if len(counts) < 2 or not counts.sum():
        return 1.0
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(len(counts)))


def gini(counts: np.ndarray) -> float:
    """Returns the Gini coefficient of sizes ``[k]``."""
    if not counts.sum():
        return 0.0
    ordered, k = np.sort(counts), len(counts)
    return float(2 * (np.arange(1, k + 1) * ordered).sum() / (k * ordered.sum()) - (k + 1) / k)
