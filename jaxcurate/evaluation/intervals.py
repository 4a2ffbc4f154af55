"""Paired differences over seeds: their intervals, p-values and verdicts, for one and for many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Verdict = Literal["better", "worse", "no difference shown"]
"""Outcome of a comparison of two arms."""
ERROR_RATE = 0.05
"""Probability with which a verdict may be wrong if there is no difference."""


@dataclass(frozen=True)
class Interval:
    """Mean of a paired difference over seeds, with its confidence interval.

    Examples:
        >>> Interval(0.04, 0.015, 0.065, (0.03, 0.05), p=0.02, p_holm=0.4).verdict
        'better'
        >>> Interval(0.04, 0.015, 0.065, (0.03, 0.05), p=0.02, p_holm=0.4).verdict_holm
        'no difference shown'
    """

    mean: float
    """Mean over seeds."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    values: tuple[float, ...]
    """Difference at each seed."""
    p: float = 1.0
    """p-value of the paired t-test; 1 where the values have no spread, as that of a single seed."""
    p_holm: float = 1.0
    """p-value after Holm's correction for all comparisons of its family."""

    @property
    def verdict(self) -> Verdict:
        """Verdict of the interval by itself."""
        return verdict_of(self.mean, excludes_zero=self.low > 0 or self.high < 0)

    @property
    def verdict_holm(self) -> Verdict:
        """Verdict after Holm's correction."""
        return verdict_of(self.mean, excludes_zero=self.p_holm < ERROR_RATE)


def verdict_of(mean: float, *, excludes_zero: bool) -> Verdict:
    """Returns the verdict on a difference.

    Examples:
        >>> verdict_of(0.02, excludes_zero=False)
        'no difference shown'
    """
    if not excludes_zero or mean == 0:
        return "no difference shown"
    return "better" if mean > 0 else "worse"


def paired_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval:
    """Returns the mean of ``a - b`` over seeds with its Student t confidence interval.

    Args:
        a: values of one arm, one for each seed.
        b: values of another arm with the same seeds.
        level: confidence level of the interval, above 0 and below 1.

    Returns:
        The mean, its interval and its p-value, as if it were the only comparison; with a single
        seed the spread is unknown and the interval infinite. Differences that are equal at all
        seeds, as accuracies on few items may be, give an interval without width, but a p-value of
        1, because they say nothing about the spread.

    References:
        Student: The probable error of a mean (1908).

    Examples:
        >>> curated, random = [0.52, 0.55, 0.53], [0.48, 0.50, 0.50]
        >>> difference = paired_interval(curated, random)
        >>> f"{difference.mean:.3f} ({difference.low:.3f} to {difference.high:.3f})"
        '0.040 (0.015 to 0.065)'
    """
    values = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, -np.inf, np.inf, tuple(values.tolist()))
    error = values.std(ddof=1) / np.sqrt(len(values))
    import scipy.special  # lazily, so that `--help` need not wait for it

    freedom = len(values) - 1
    half = float(scipy.special.stdtrit(freedom, 0.5 + level / 2) * error)
    p = float(2 * scipy.special.stdtr(freedom, -abs(mean) / error)) if error > 0 else 1.0
    return Interval(mean, mean - half, mean + half, tuple(values.tolist()), p, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number, so that verdicts hold for all of them at once.

    With verdicts "better" or "worse" for corrected p-values below 0.05 alone, the probability that
    any of them is wrong is at most 0.05, however the comparisons depend on each other.

    Args:
        p_values: p-value of each comparison.

    References:
        Holm: A simple sequentially rejective multiple test procedure (1979).

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return corrected.tolist()


def is_overall(measure: str) -> bool:
    """Returns whether a measure is over all test items, not over a part such as ``knn/head``.

    Examples:
        >>> is_overall("knn"), is_overall("knn/head")
        (True, False)
    """
    return "/" not in measure


def paired_differences(
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
) -> dict[str, dict[str, Interval]]:
    """Returns the difference of each pair of arms by each measure, with corrected p-values.

    The comparisons of all pairs by the measures over all test items are one family, for which the
    p-values of these are corrected. The comparisons by parts of the test items are another.

    Args:
        accuracies: values by arm and measure, one for each seed, with the same seeds in order.

    Returns:
        Intervals by pair, such as ``curated - random``, and measure.

    Examples:
        >>> found = paired_differences(
        ...     {"curated": {"knn": [0.52, 0.55, 0.53]}, "random": {"knn": [0.48, 0.50, 0.50]}}
        ... )
        >>> found["curated - random"]["knn"].verdict_holm
        'better'
    """
    names = list(accuracies)
    differences = {
        f"{a} - {b}": {
            measure: paired_interval(accuracies[a][measure], accuracies[b][measure])
            for measure in accuracies[a]
        }
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    }
    for in_family in (is_overall, lambda measure: not is_overall(measure)):
        family = [
            (pair, measure)
            for pair, by_measure in differences.items()
            for measure in by_measure
            if in_family(measure)
        ]
        corrected = holm([differences[pair][measure].p for pair, measure in family])
        for (pair, measure), p in zip(family, corrected, strict=True):
            differences[pair][measure] = replace(differences[pair][measure], p_holm=p)
    return differences


def count_comparisons(differences: Mapping[str, Mapping[str, object]]) -> dict[str, int]:
    """Returns the number of comparisons over all test items, and over parts of them.

    Examples:
        >>> count_comparisons({"curated - random": {"knn": 0, "ridge": 0, "knn/head": 0}})
        {'overall': 2, 'parts': 1}
    """
    measures = [measure for by_measure in differences.values() for measure in by_measure]
    n_overall = sum(map(is_overall, measures))
    return {"overall": n_overall, "parts": len(measures) - n_overall}
