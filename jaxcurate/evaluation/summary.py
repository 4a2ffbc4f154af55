"""Results of an evaluation as plain values and as sentences."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcurate.evaluation.balance import balance_of
from jaxcurate.evaluation.compare import Comparison
from jaxcurate.evaluation.intervals import Interval, Verdict, count_comparisons, is_overall
from jaxcurate.sources import Annotations


def balance(notes: Annotations, draws: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Returns the balance of every arm over labels and over domains, where these are known.

    Args:
        notes: labels and domains of the rows of the pool.
        draws: rows that one run of each arm sees, int64, by arm.

    Returns:
        ``{"domain": {"pool": {"counts", "entropy", "gini"}, ...}, "label": {...}}``.

    Examples:
        >>> import numpy as np
        >>> notes = Annotations(np.array(["cat", "cat", "cat", "dog"]), np.array([""] * 4))
        >>> balance(notes, {"pool": np.arange(4)})["label"]["pool"]["counts"]
        {'cat': 3, 'dog': 1}
    """
    balances = {}
    for kind, groups in (("domain", notes.domain), ("label", notes.label)):
        known = np.unique(groups)
        if len(known) > 1:
            balances[kind] = {
                arm: dataclasses.asdict(balance_of(groups[rows], known))
                for arm, rows in draws.items()
            }
    return balances


def to_plain(compared: Comparison) -> dict[str, Any]:
    """Returns a comparison without its losses, as values that JSON can hold.

    Returns:
        ``accuracies``; ``differences`` with the fields of an
        :class:`~jaxcurate.evaluation.Interval`; and ``comparisons``, the number of them over all
        test items and over parts, for which the two families of p-values are corrected.
    """
    return {
        "accuracies": compared.accuracies,
        "differences": {
            pair: {key: dataclasses.asdict(interval) for key, interval in intervals.items()}
            for pair, intervals in compared.differences.items()
        },
        "comparisons": count_comparisons(compared.differences),
    }


def lines(results: Mapping[str, Any]) -> list[str]:
    """Returns the results of an evaluation as sentences: the balance, and every interval.

    Args:
        results: the plain results, as ``evaluation/results.json`` holds them.

    Examples:
        >>> lines({"balance": {"label": {"pool": {"entropy": 0.8}, "curated": {"entropy": 0.97}}}})
        ['label entropy (1 is even): pool 0.80, curated 0.97']
    """
    sentences = []
    for kind, arms in results["balance"].items():
        entropies = ", ".join(f"{arm} {spread['entropy']:.2f}" for arm, spread in arms.items())
        sentences.append(f"{kind} entropy (1 is even): {entropies}")
    accuracies = results.get("accuracies", {})
    measures = [measure for measure in next(iter(accuracies.values()), {}) if is_overall(measure)]
    for measure in measures:
        means = ", ".join(
            f"{arm} {float(np.mean(by_measure[measure])):.3f}"
            for arm, by_measure in accuracies.items()
        )
        kind = " macro accuracy" if measure in ("knn", "ridge") else ""
        sentences.append(f"{measure}{kind}: {means}")
    differences = results.get("differences", {})
    for pair, by_measure in differences.items():
        for measure in measures:
            interval = interval_in_words(by_measure[measure])
            sentences.append(f"{pair}, {measure}: {interval}")
    if "comparisons" in results and differences:
        sentences.append(_corrected(differences, measures, results["comparisons"]["overall"]))
    return sentences


def _corrected(
    differences: Mapping[str, Mapping[str, Any]], measures: list[str], n_comparisons: int
) -> str:
    """Returns a sentence on the verdicts that Holm's correction leaves."""
    left = [
        f"{pair}, {measure}: {verdict}"
        for pair, by_measure in differences.items()
        for measure in measures
        if (verdict := verdicts(by_measure[measure])[1]) != "no difference shown"
    ]
    return (
        f"after Holm's correction for {n_comparisons} comparison(s): "
        f"{'; '.join(left) or 'no difference shown'}"
    )


def verdicts(interval: Mapping[str, Any]) -> tuple[Verdict, Verdict]:
    """Returns the verdict of an interval by itself, and that after Holm's correction.

    Args:
        interval: the fields of an :class:`jaxcurate.evaluation.Interval` as a mapping. Results of
            older releases have no corrected p-value, which counts as 1.

    Examples:
        >>> verdicts({"mean": 0.04, "low": 0.01, "high": 0.07, "values": [0.03, 0.05]})
        ('better', 'no difference shown')
    """
    fields = {name: interval[name] for name in ("mean", "low", "high", "values")}
    made = Interval(**fields, p_holm=interval.get("p_holm", 1.0))
    return made.verdict, made.verdict_holm


def interval_in_words(interval: Mapping[str, Any]) -> str:
    """Returns a paired difference with its interval and its verdict, as a phrase.

    Args:
        interval: the fields of an :class:`jaxcurate.evaluation.Interval` as a mapping.

    Examples:
        >>> interval_in_words({"mean": 0.04, "low": 0.015, "high": 0.065, "values": [0.03, 0.05]})
        '+0.040, 95 % interval +0.015 to +0.065 over 2 seed(s): better'
    """
    return (
        f"{interval['mean']:+.3f}, 95 % interval {interval['low']:+.3f} to "
        f"{interval['high']:+.3f} over {len(interval['values'])} seed(s): {verdicts(interval)[0]}"
    )
