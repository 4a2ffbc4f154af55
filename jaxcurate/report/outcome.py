"""Outcome of the evaluation, in words, tables and plots."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from jaxcurate.evaluation import ARMS
from jaxcurate.evaluation.compare import UNTRAINED
from jaxcurate.evaluation.summary import interval_in_words
from jaxcurate.report import plots
from jaxcurate.report.findings import Findings

MEASURES = {"knn": "k-NN", "ridge": "ridge"}
NAMES = {name: arm.description for name, arm in ARMS.items()} | {UNTRAINED: "no pretraining"}


class Difference(NamedTuple):
    """One paired difference."""

    what: str
    probe: str
    mean: float
    low: float
    high: float
    n_seeds: int
    word: str
    """``better``, ``worse``, ``no difference shown``, or ``one seed: no interval``."""


class Verdict(NamedTuple):
    """The first thing to know."""

    sentence: str
    against: str
    differences: list[Difference]
    parts: dict[str, list[str]]
    """Word (better, worse) to the parts of the test data where it holds."""


class PartRow(NamedTuple):
    """One part of the held-out data."""

    name: str
    means: dict[str, float]
    difference: Difference | None


class Outcome(NamedTuple):
    """The section of the evaluation."""

    arms: list[str]
    n_seeds: int
    verdict: Verdict | None
    differences: list[Difference]
    parts: dict[str, list[PartRow]]
    """Probe to rows."""
    n_intervals: int
    accuracy_plots: dict[str, Markup]
    forests: dict[str, Markup]
    part_forests: dict[str, Markup]
    loss_plot: Markup | None


def outcome(findings: Findings) -> Outcome | None:
    """Returns what was compared; None where nothing was."""
    results = findings.results or {}
    accuracies = results.get("accuracies")
    if not accuracies:
        return None
    differences = results.get("differences", {})
    of_curated = [pair for pair in differences if pair.startswith("curated - ")]
    main = next((pair for pair in ("curated - random", *of_curated) if pair in of_curated), None)
    measures = list(next(iter(accuracies.values())))
    probes = {key: name for key, name in MEASURES.items() if key in measures}
    forests, part_forests, accuracy_plots, parts = {}, {}, {}, {}
    for key, probe in probes.items():
        by_arm = {arm: by_measure[key] for arm, by_measure in accuracies.items()}
        accuracy_plots[probe] = plots.accuracies(
            f"accuracy-{key}", f"{probe} accuracy of every arm, a dot for each seed.", by_arm
        )
        own = {
            f"vs {pair.removeprefix('curated - ')}": differences[pair][key] for pair in of_curated
        }
        if own:
            alt = f"{probe}: curated minus each other arm, with 95 % intervals."
            forests[probe] = plots.forest(f"forest-{key}", alt, own)
        own_parts = {"all": key} | {
            m.split("/", 1)[1]: m for m in measures if m.startswith(f"{key}/")
        }
        if main and 1 < len(own_parts) <= 25:
            alt = f"{probe}: {main} for each part of the held-out data, with 95 % intervals."
            part_forests[probe] = plots.forest(
                f"parts-{key}", alt, {name: differences[main][m] for name, m in own_parts.items()}
            )
        parts[probe] = [
            PartRow(
                name,
                {arm: float(np.mean(by_measure[m])) for arm, by_measure in accuracies.items()},
                _difference(main, probe, differences[main][m]) if main else None,
            )
            for name, m in own_parts.items()
        ]
    told = [
        _difference(pair, probe, by_measure[key])
        for pair, by_measure in differences.items()
        for key, probe in probes.items()
    ]
    arms = list(accuracies)
    curves = {arm: findings.losses[arm] for arm in arms if arm in findings.losses}
    drawn = None
    if curves and all(curve.size for curve in curves.values()):
        drawn = plots.losses("losses", "Training loss by step for every arm.", curves)
    return Outcome(
        arms,
        len(next(iter(accuracies.values()))[measures[0]]),
        _verdict(main, [one for one in told if one.what == main], parts) if main else None,
        told,
        parts,
        sum(len(by_measure) for by_measure in differences.values()),
        accuracy_plots,
        forests,
        part_forests,
        drawn,
    )


def _difference(pair: str, probe: str, one: Mapping[str, Any]) -> Difference:
    if math.isfinite(one["low"]) and math.isfinite(one["high"]):
        word = interval_in_words(one).rsplit(": ", 1)[1]
    else:
        word = "one seed: no interval"
    values = one["values"]
    return Difference(pair, probe, one["mean"], one["low"], one["high"], len(values), word)


def _verdict(
    pair: str, differences: list[Difference], parts: Mapping[str, list[PartRow]]
) -> Verdict:
    arm = pair.removeprefix("curated - ")
    other = NAMES.get(arm, arm)
    found = {one.word for one in differences}
    if found == {"better"}:
        sentence = f"Training on the curated subset was better than training on {other}."
    elif found == {"worse"}:
        sentence = f"Training on the curated subset was worse than training on {other}."
    elif found == {"no difference shown"}:
        sentence = f"No difference shown between the curated subset and {other}."
    elif found == {"one seed: no interval"}:
        sentence = f"One seed cannot tell the curated subset from {other}: there is no interval."
    else:
        each = "; ".join(f"by {one.probe}, {one.word}" for one in differences)
        sentence = f"The curated subset against {other}: {each}."
    by_word: dict[str, list[str]] = {}
    for probe, rows in parts.items():
        for row in rows:
            word = row.difference.word if row.difference is not None else ""
            if row.name != "all" and word in ("better", "worse"):
                by_word.setdefault(word, []).append(f"{row.name} ({probe})")
    return Verdict(sentence, other, differences, by_word)
