"""Section on the evaluation: its outcome in sentences, tables and plots."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from jaxcurate.evaluation import ARMS, PROBES
from jaxcurate.evaluation.compare import UNTRAINED
from jaxcurate.evaluation.intervals import is_overall
from jaxcurate.evaluation.summary import verdicts
from jaxcurate.report import plots
from jaxcurate.report.findings import Findings

NAMES = {name: arm.description for name, arm in ARMS.items()} | {UNTRAINED: "no pretraining"}
"""Descriptions of the arms in the page."""


class Difference(NamedTuple):
    """Paired difference of accuracies."""

    pair: str
    """Arms that are compared, such as ``curated - random``."""
    probe: str
    """Name of the probe."""
    mean: float
    """Mean over seeds."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n_seeds: int
    """Number of seeds."""
    verdict: str
    """Verdict ``better``, ``worse``, ``no difference shown``, or ``one seed: no interval``."""
    corrected: str
    """Verdict after Holm's correction; empty if the results have none."""


class Verdict(NamedTuple):
    """Main result of the evaluation."""

    sentence: str
    """Result in one sentence."""
    against: str
    """Description of the arm that the curated subset is compared with."""
    differences: list[Difference]
    """Paired difference for each probe."""
    parts: dict[str, list[str]]
    """Parts of the test data by the verdict (better, worse) on them."""


class PartRow(NamedTuple):
    """Results on one part of the held-out data."""

    name: str
    """Name of the part."""
    means: dict[str, float]
    """Mean accuracy by arm."""
    difference: Difference | None
    """Paired difference between the curated and the main other arm."""


class ArmFacts(NamedTuple):
    """Training of the runs of an arm."""

    rows: int
    """Number of rows that a run trains on."""
    steps: int
    """Number of steps."""
    images: int
    """Number of images seen."""
    epochs: float
    """Number of passes over the rows."""


class Outcome(NamedTuple):
    """Contents of the section."""

    arms: list[str]
    """Arms that were compared."""
    n_seeds: int
    """Number of seeds."""
    verdict: Verdict | None
    """Main result, if the curated subset was compared with another arm."""
    differences: list[Difference]
    """Paired differences of all arms."""
    parts: dict[str, list[PartRow]]
    """Results on parts of the held-out data, by probe."""
    n_intervals: int
    """Number of intervals in the whole evaluation."""
    n_overall: int | None
    """Number of comparisons over all test items; None if the results have no corrected verdicts."""
    budget: str
    """Quantity that is equal for all arms: ``steps`` or ``epochs``."""
    arm_facts: dict[str, ArmFacts]
    """Training of the runs of each arm, as far as the results have it."""
    accuracy_plots: dict[str, Markup]
    """Plot of all accuracies, by probe."""
    forests: dict[str, Markup]
    """Plot of the differences from the curated arm, by probe."""
    part_forests: dict[str, Markup]
    """Plot of the differences on parts of the held-out data, by probe."""
    loss_plot: Markup | None
    """Plot of the training losses."""


def probe_name(key: str) -> str:
    """Returns the name of a probe in the page, with that of the source that it is tested on.

    Examples:
        >>> probe_name("knn"), probe_name("knn@cars")
        ('k-NN', 'k-NN on cars')
    """
    name, _, source = key.partition("@")
    title = PROBES[name].title if name in PROBES else name
    return f"{title} on {source}" if source else title


def _needs_labels(key: str) -> bool:
    """Returns whether a measure is one of how well labels are told apart."""
    name = key.partition("@")[0]
    return name not in PROBES or PROBES[name].needs_labels


def arm_names(findings: Findings) -> dict[str, str]:
    """Returns descriptions of all arms, with those of manifests, by their names."""
    manifests = findings.settings.get("evaluate", {}).get("manifests", ())
    named = dict(entry.split("=", 1) for entry in manifests)
    return NAMES | {arm: f"the subset of {path}" for arm, path in named.items()}


def outcome(findings: Findings) -> Outcome | None:
    """Returns the outcome of the comparison by pretraining; None if none was made."""
    results = findings.results or {}
    accuracies = results.get("accuracies")
    if not accuracies:
        return None
    differences = results.get("differences", {})
    of_curated = [pair for pair in differences if pair.startswith("curated - ")]
    main = next((pair for pair in ("curated - random", *of_curated) if pair in of_curated), None)
    measures = list(next(iter(accuracies.values())))
    probes = {key: probe_name(key) for key in measures if is_overall(key)}
    forests, part_forests, accuracy_plots, parts = {}, {}, {}, {}
    for key, probe in probes.items():
        by_arm = {arm: by_measure[key] for arm, by_measure in accuracies.items()}
        unit = "accuracy" if _needs_labels(key) else "effective rank"
        id_ = key.replace("@", "-on-")
        alt = f"{probe} {unit} of every arm, a dot for each seed."
        accuracy_plots[probe] = plots.accuracies(f"accuracy-{id_}", alt, by_arm, unit)
        from_curated = {
            f"vs {pair.removeprefix('curated - ')}": differences[pair][key] for pair in of_curated
        }
        if from_curated:
            alt = f"{probe}: curated minus each other arm, with 95 % intervals."
            forests[probe] = plots.forest(f"forest-{id_}", alt, from_curated)
        measures_of_parts = {"all": key} | {
            m.split("/", 1)[1]: m for m in measures if m.startswith(f"{key}/")
        }
        if main and 1 < len(measures_of_parts) <= 25:
            alt = f"{probe}: {main} for each part of the held-out data, with 95 % intervals."
            part_forests[probe] = plots.forest(
                f"parts-{id_}",
                alt,
                {name: differences[main][m] for name, m in measures_of_parts.items()},
            )
        parts[probe] = [
            PartRow(
                name,
                {arm: float(np.mean(by_measure[m])) for arm, by_measure in accuracies.items()},
                _difference(main, probe, differences[main][m]) if main else None,
            )
            for name, m in measures_of_parts.items()
        ]
    pairs = [
        _difference(pair, probe, by_measure[key])
        for pair, by_measure in differences.items()
        for key, probe in probes.items()
    ]
    with_labels = {probe for key, probe in probes.items() if _needs_labels(key)}
    of_main = [row for row in pairs if row.pair == main and row.probe in with_labels]
    arms = list(accuracies)
    curves = {arm: findings.losses[arm] for arm in arms if arm in findings.losses}
    drawn = None
    if curves and all(curve.size for curve in curves.values()):
        drawn = plots.losses("losses", "Training loss by step for every arm.", curves)
    return Outcome(
        arms,
        len(next(iter(accuracies.values()))[measures[0]]),
        _verdict(main, of_main, parts) if main and of_main else None,
        pairs,
        parts,
        sum(len(by_measure) for by_measure in differences.values()),
        results.get("comparisons", {}).get("overall"),
        results.get("budget", "steps"),
        {arm: ArmFacts(**facts) for arm, facts in results.get("arms", {}).items()},
        accuracy_plots,
        forests,
        part_forests,
        drawn,
    )


def _difference(pair: str, probe: str, interval: Mapping[str, Any]) -> Difference:
    mean, low, high = (interval[key] for key in ("mean", "low", "high"))
    verdict, corrected = verdicts(interval)
    if not (math.isfinite(low) and math.isfinite(high)):
        verdict, corrected = "one seed: no interval", ""
    elif "p_holm" not in interval:
        corrected = ""
    n_seeds = len(interval["values"])
    return Difference(pair, probe, mean, low, high, n_seeds, str(verdict), str(corrected))


def _verdict(
    pair: str, differences: list[Difference], parts: Mapping[str, list[PartRow]]
) -> Verdict:
    arm = pair.removeprefix("curated - ")
    other = NAMES.get(arm, arm)
    verdicts = {difference.verdict for difference in differences}
    if verdicts == {"better"}:
        sentence = f"Training on the curated subset was better than training on {other}."
    elif verdicts == {"worse"}:
        sentence = f"Training on the curated subset was worse than training on {other}."
    elif verdicts == {"no difference shown"}:
        sentence = f"No difference shown between the curated subset and {other}."
    elif verdicts == {"one seed: no interval"}:
        sentence = f"One seed cannot tell the curated subset from {other}: there is no interval."
    else:
        each = "; ".join(f"by {row.probe}, {row.verdict}" for row in differences)
        sentence = f"The curated subset against {other}: {each}."
    by_verdict: dict[str, list[str]] = {}
    for probe, rows in parts.items():
        for row in rows:
            verdict = row.difference.verdict if row.difference is not None else ""
            if row.name != "all" and verdict in ("better", "worse"):
                by_verdict.setdefault(verdict, []).append(f"{row.name} ({probe})")
    return Verdict(sentence, other, differences, by_verdict)
