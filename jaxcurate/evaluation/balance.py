"""Measures of how evenly a subset is spread over known groups, for evaluation: entropy, Gini."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Balance:
    """Spread of items over groups."""

    counts: dict[str, int]
    """Number of items in each group, the largest group first."""
    entropy: float
    """Entropy of the groups' fractions over its maximum: 1 if all groups are equally large, 0 if
    all items are in one group."""
    gini: float
    """Gini coefficient of the groups' sizes: 0 if all groups are equally large."""


def balance_of(groups: Sequence[str] | np.ndarray, known: Sequence[str] | np.ndarray) -> Balance:
    """Returns the spread of items over all known groups, including those without items.

    Args:
        groups: the group of each item, ``[n]``.
        known: the names of the groups, each once.

    Examples:
        >>> spread = balance_of(["cat", "cat", "dog"], ["cat", "dog", "eel"])
        >>> spread.counts
        {'cat': 2, 'dog': 1, 'eel': 0}
        >>> round(spread.entropy, 3)
        0.579
    """
    names, counts = np.unique(np.asarray(groups), return_counts=True)
    counted = dict(zip(names.tolist(), counts.tolist(), strict=True))
    sizes = {str(name): counted.get(name, 0) for name in known}
    by_size = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))
    array = np.array(list(by_size.values()), np.float64)
    return Balance(by_size, normalized_entropy(array), gini(array))


def normalized_entropy(counts: np.ndarray) -> float:
    """Returns the entropy of ``counts / sum(counts)`` over its maximum, ``log(k)``.

    Args:
        counts: sizes of the groups, ``[k]``.

    Returns:
        A number from 0 (all items in one group) to 1 (all groups equally large); 1 where there
        are no items or fewer than two groups.

    Examples:
        >>> import numpy as np
        >>> normalized_entropy(np.array([5, 5]))
        1.0
        >>> round(normalized_entropy(np.array([90, 5, 5])), 3)
        0.359
    """
    if len(counts) < 2 or not counts.sum():
        return 1.0
    fractions = counts[counts > 0] / counts.sum()
    return float(-(fractions * np.log(fractions)).sum() / np.log(len(counts)))


def gini(counts: np.ndarray) -> float:
    """Returns the Gini coefficient of the sizes of groups.

    Args:
        counts: sizes of the groups, ``[k]``.

    Returns:
        0 where all groups are equally large or empty, and ``1 - 1 / k`` where all items are in
        one group.

    References:
        Gini: Variabilità e mutabilità (1912).

    Examples:
        >>> import numpy as np
        >>> gini(np.array([5, 5, 5, 5]))
        0.0
        >>> gini(np.array([20, 0, 0, 0]))
        0.75
    """
    if not counts.sum():
        return 0.0
    ordered, k = np.sort(counts), len(counts)
    return float(2 * (np.arange(1, k + 1) * ordered).sum() / (k * ordered.sum()) - (k + 1) / k)
