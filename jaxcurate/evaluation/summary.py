"""Where labels meet a subset: its balance, and what a comparison by pretraining found."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcurate.evaluation.balance import balance_of
from jaxcurate.evaluation.compare import Comparison
from jaxcurate.sources import Annotations


def balance(notes: Annotations, draws: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Returns the balance of every arm over labels and over domains, where these are known.

    Args:
        notes: of the pool's rows.
        draws: for each arm the rows that one of its runs sees, int64.

    Returns:
        ``{"domain": {"pool": {"counts", "entropy", "gini"}, ...}, "label": {...}}``.
    """
    told = {}
    for kind, groups in (("domain", notes.domain), ("label", notes.label)):
        known = np.unique(groups)
        if len(known) > 1:
            told[kind] = {
                arm: dataclasses.asdict(balance_of(groups[rows], known))
                for arm, rows in draws.items()
            }
    return told


def to_plain(compared: Comparison) -> dict[str, Any]:
    """Returns a comparison without its losses, as JSON holds it."""
    return {
        "accuracies": compared.accuracies,
        "differences": {
            pair: {measure: dataclasses.asdict(one) for measure, one in by_measure.items()}
            for pair, by_measure in compared.differences.items()
        },
    }


def lines(results: Mapping[str, Any]) -> list[str]:
    """Returns what an evaluation found, in words: the balance, and every interval as it is."""
    told = []
    for kind, arms in results["balance"].items():
        entropies = ", ".join(f"{arm} {one['entropy']:.2f}" for arm, one in arms.items())
        told.append(f"{kind} entropy (1 is even): {entropies}")
    for measure in ("knn", "ridge"):
        means = {
            arm: float(np.mean(by_measure[measure]))
            for arm, by_measure in results.get("accuracies", {}).items()
        }
        if means:
            accuracies = ", ".join(f"{arm} {mean:.3f}" for arm, mean in means.items())
            told.append(f"{measure} macro accuracy: {accuracies}")
    for pair, by_measure in results.get("differences", {}).items():
        for measure in ("knn", "ridge"):
            one = by_measure[measure]
            told.append(f"{pair}, {measure}: {interval_in_words(one)}")
    return told


def interval_in_words(one: Mapping[str, Any]) -> str:
    """Returns a paired difference with its interval, and what it says."""
    if one["low"] > 0:
        verdict = "better"
    elif one["high"] < 0:
        verdict = "worse"
    else:
        verdict = "no difference shown"
    return (
        f"{one['mean']:+.3f}, 95 % interval {one['low']:+.3f} to {one['high']:+.3f} "
        f"over {len(one['values'])} seed(s): {verdict}"
    )
