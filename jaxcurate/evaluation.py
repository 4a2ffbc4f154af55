"""Where labels meet a subset: its balance, and the arms of the comparison by pretraining."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxcurate.balance import balance_of
from jaxcurate.experiment import Comparison
from jaxcurate.sources import Annotations

Draws = Mapping[str, list[np.ndarray]]
"""For each arm its pool rows, int64, one array for each seed."""


def draw_arms(
    curated: np.ndarray, redraw: Callable[[int], np.ndarray], n_pool: int, n_seeds: int, seed: int
) -> Draws:
    """The rows that each arm trains on.

    The curated and the random arm are drawn anew for every seed, so that the spread over seeds
    is that of the method and not of one draw.

    Args:
        curated: the exported subset, which is the first seed's.
        redraw: draws such a subset with another seed.
        n_pool: rows of the pool.
        n_seeds: how many draws.
        seed: the first.
    """
    seeds = range(seed, seed + n_seeds)
    size = min(len(curated), n_pool)
    return {
        "curated": [curated if s == seed else redraw(s) for s in seeds],
        "random": [
            np.sort(np.random.default_rng([s, 1]).choice(n_pool, size, replace=False))
            for s in seeds
        ],
        "pool": [np.arange(n_pool) for _ in seeds],
    }


def balance(notes: Annotations, draws: Draws) -> dict[str, dict[str, Any]]:
    """The balance of every arm's first draw over labels and over domains, where these are known.

    Returns:
        ``{"domain": {"pool": {"counts", "entropy", "gini"}, ...}, "label": {...}}``.
    """
    told = {}
    for kind, groups in (("domain", notes.domain), ("label", notes.label)):
        known = np.unique(groups)
        if len(known) > 1:
            told[kind] = {
                arm: dataclasses.asdict(balance_of(groups[rows[0]], known))
                for arm, rows in draws.items()
            }
    return told


def to_plain(compared: Comparison) -> dict[str, Any]:
    """A comparison without its losses, as JSON holds it."""
    return {
        "accuracies": compared.accuracies,
        "differences": {
            pair: {measure: dataclasses.asdict(one) for measure, one in by_measure.items()}
            for pair, by_measure in compared.differences.items()
        },
    }


def lines(results: Mapping[str, Any]) -> list[str]:
    """What an evaluation found, in words: the balance, and every interval as it is."""
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
    """A paired difference with its interval, and what it says."""
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
