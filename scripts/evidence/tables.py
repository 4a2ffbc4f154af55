#!/usr/bin/env python3
"""Makes every table and figure of the evidence from the lines of results alone.

python scripts/evidence/tables.py            # writes the section of README.md, and primary.svg
python scripts/evidence/tables.py --check    # exit code 1 if the section is not up to date
"""

import argparse
import functools
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from pools import PLANS
from run import read_lines
from statistics_of_lines import (
    AGAINST,
    N_PRIMARY,
    PREDICTORS,
    Comparison,
    Line,
    by_arm,
    correlation,
    difference,
    gains,
    is_random,
    primary_comparisons,
)

from jaxcurate.checks import InputError
from jaxcurate.evaluation.intervals import Interval

HERE = Path(__file__).parent
BEGIN = "<!-- made by tables.py: begin -->"
END = "<!-- made by tables.py: end -->"
MINUS = "\N{MINUS SIGN}"
PRIMARY = {name: plan.primary for name, plan in PLANS.items()}
"""Primary measure of each pool."""
SECONDARY = ("knn/tail", "ridge", "ridge/tail")
_PAIRS = (
    *(("curated", against) for against in (*AGAINST, "pool")),
    *(("deduplicated", "random"), ("flat", "random"), ("pool", "random")),
)
_UNCORRECTED = (
    "Without correction: bold intervals do not hold zero, and of twenty such intervals one does so "
    "by chance."
)
_OTHERS = {
    "sizes": ("Keep rates", "curated"),
    "levels": ("Levels, batches and mixtures", "2 levels, resampled"),
    "levels_at_sizes": ("Levels at other keep rates", "2 levels, resampled"),
    "encoders": ("Encoders that curate", "curated by pca"),
    "rounds": ("Encoders trained on the pool itself", "curated by pca"),
    "objectives": ("Objectives", ""),
    "steps": ("Numbers of steps", "curated"),
}
"""Heading of each part but the first, and the arm that the others are taken from besides `random`;
empty for none."""
_ARMS = ("curated", "random", "deduplicated", "flat", "pool", "untrained")


def section(lines: Sequence[Line]) -> str:
    """Returns the section of the README in Markdown."""
    found = primary_comparisons(lines, PRIMARY)
    parts = [
        _primary(found),
        _arms(lines),
        _secondary(lines),
        _other_parts(lines),
        _predictors(lines),
        _conditions(lines),
    ]
    return "\n\n".join(part for part in parts if part)


def less(a: str, b: str) -> str:
    """Returns the name of a difference of two arms."""
    return f"{a} {MINUS} {b}"


def signed(interval: Interval) -> str:
    """Returns a difference with its interval, bold where the interval does not hold zero."""
    mean = f"{interval.mean:+.3f}"
    if interval.verdict != "no difference shown":
        mean = f"**{mean}**"
    if not np.isfinite(interval.low):
        return f"{mean} (one seed)"
    return f"{mean} ({interval.low:+.3f} to {interval.high:+.3f})".replace("-", MINUS)


def _primary(found: Sequence[Comparison]) -> str:
    shown = sum(of.complete and of.interval.verdict_holm != "no difference shown" for of in found)
    n_complete = sum(of.complete for of in found)
    rows = [
        [
            _name(of.pool, of.tier),
            less("curated", of.against),
            signed(of.interval),
            str(len(of.interval.values)),
            _p(of.interval.p),
            _p(of.interval.p_holm) if of.complete else "",
            of.verdict,
        ]
        for of in found
    ]
    header = ["pool", "comparison", "difference", "seeds", "p", "p, Holm", "verdict"]
    return (
        "### Primary comparisons\n\n"
        "Macro k-NN at a keep rate of 3 %, with 95 % intervals. Comparisons that have been run in "
        f"full: {n_complete} of the {N_PRIMARY} of the protocol. Differences that are shown after "
        f"Holm's correction for {N_PRIMARY}: {shown}.\n\n" + table(header, rows)
    )


def _arms(lines: Sequence[Line]) -> str:
    rows = []
    for (pool, tier, exploratory), of_pool in _grouped(lines, "primary").items():
        arms = by_arm(of_pool)
        for arm in sorted(arms, key=_order):
            of_arm = list(arms[arm].values())
            mean = lambda kind, name, of=of_arm: _mean(line[kind].get(name) for line in of)
            before, probe = functools.partial(mean, "before"), functools.partial(mean, "probes")
            rows.append(
                [
                    _name(pool, tier, exploratory),
                    arm,
                    f"{of_arm[0]['size']:,}" if of_arm[0]["size"] else "",
                    probe(PRIMARY[pool]),
                    probe("knn/tail"),
                    probe("ridge"),
                    before("domain_entropy"),
                    before("label_entropy"),
                    before("cluster_gini"),
                    before("held_out_distance"),
                    before("near_duplicates"),
                ]
            )
    header = [
        *("pool", "arm", "rows", "k-NN", "k-NN, tail", "ridge", "domain entropy", "label entropy"),
        *("Gini over clusters", "held-out distance", "near-duplicates"),
    ]
    return "### Means over seeds, and measures before training\n\n" + table(header, rows)


def _secondary(lines: Sequence[Line]) -> str:
    rows = []
    for (pool, tier, exploratory), of_pool in _grouped(lines, "primary").items():
        arms = by_arm(of_pool)
        for arm, against in _PAIRS:
            cells = []
            for measure in (PRIMARY[pool], *SECONDARY):
                pair = difference(arms.get(arm, {}), arms.get(against, {}), measure)
                cells.append(signed(pair[0]) if pair else "")
            if any(cells):
                rows.append([_name(pool, tier, exploratory), less(arm, against), *cells])
    header = ["pool", "comparison", "k-NN", "k-NN, tail", "ridge", "ridge, tail"]
    return f"### Secondary measures\n\n{_UNCORRECTED}\n\n{table(header, rows)}"


def _other_parts(lines: Sequence[Line]) -> str:
    found = []
    for part, (heading, reference) in _OTHERS.items():
        rows = []
        for pool, of_pool in _grouped(lines, part).items():
            rows += _rows_of_part(of_pool, reference, _name(*pool), PRIMARY[pool[0]])
        if rows:
            header = ["pool", "kept", "steps", "objective", "arm", "k-NN", f"arm {MINUS} random"]
            header += [f"{reference} {MINUS} arm", "seeds"]
            if not reference:
                del header[-2]
            found.append(f"### {heading}\n\n{_UNCORRECTED}\n\n{table(header, rows)}")
    return "\n\n".join(found)


def _rows_of_part(
    lines: Iterable[Line], reference: str, name: str, measure: str
) -> list[list[str]]:
    """Returns a row for every arm at every size, number of steps and objective.

    Arms are compared with the random one whatever encoder drew them: a random draw needs none.
    """
    groups: dict[tuple, list[Line]] = {}
    for line in lines:
        key = tuple(line[field] for field in ("keep", "steps", "objective"))
        groups.setdefault(key, []).append(line)
    rows = []
    for (keep, steps, objective), of_group in sorted(groups.items()):
        arms = by_arm(of_group)
        random = next((arms[arm] for arm in arms if is_random(arm)), {})
        for arm in sorted(arms, key=_order):
            seeds = arms[arm]
            values = [line["probes"].get(measure) for line in seeds.values()]
            pairs = [difference(seeds, random, measure)]
            if reference:
                pairs.append(difference(arms.get(reference, {}), seeds, measure))
            itself = (seeds is random, arm == reference)
            cells = [
                signed(pair[0]) if pair and not same else ""
                for pair, same in zip(pairs, itself, strict=False)
            ]
            kept = f"{100 * keep:g} %"
            row = [name, kept, f"{steps:,}", objective, arm, _mean(values), *cells]
            rows.append([*row, str(len(seeds))])
    return rows


def _predictors(lines: Sequence[Line]) -> str:
    runs = gains(lines, PRIMARY)
    rows = []
    for name, words in PREDICTORS.items():
        if (found := correlation(runs, name)) is None:
            continue
        interval = f"{found.low:+.2f} to {found.high:+.2f}" if found.n_pools > 1 else "one pool"
        cells = [f"{found.value:+.2f}", interval, f"{found.within:+.2f}"]
        cells = [cell.replace("-", MINUS).replace("+nan", "constant") for cell in cells]
        rows.append([words, *cells, str(found.n_runs), str(found.n_pools)])
    header = ["measure before training", "correlation", "95 % interval", "within pools"]
    header += ["runs", "pools"]
    return (
        "### Measures that go with the gain\n\nSpearman's rank correlation of the difference to "
        "the random run before training with the difference after it, over all arms, sizes and "
        "seeds. The interval draws pools, arms and seeds anew. Exploratory: runs of few pools.\n\n"
        + table(header, rows)
    )


def _conditions(lines: Sequence[Line]) -> str:
    groups: dict[tuple, list[Line]] = {}
    for line in lines:
        versions = ", ".join(f"{name} {of}" for name, of in line["versions"].items())
        groups.setdefault((line["command"], line["device"], versions), []).append(line)
    rows = [
        [f"`{command}`", str(len(of)), f"{sum(_seconds(of)) / 60:.0f}", device, versions]
        for (command, device, versions), of in groups.items()
    ]
    header = ["command", "runs", "minutes of pretraining", "device", "versions"]
    return "### Commands\n\n" + table(header, rows)


def _seconds(lines: Iterable[Line]) -> list[float]:
    """Returns the seconds of each group of runs that were trained together, once."""
    groups = {(line["variant"], line["pool"], line["seconds"]): line["seconds"] for line in lines}
    return list(groups.values())


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown; a sentence if there are no rows."""
    rows = list(rows)
    if not rows:
        return "No run yet."
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _grouped(lines: Iterable[Line], part: str) -> dict[tuple[str, str, bool], list[Line]]:
    groups: dict[tuple[str, str, bool], list[Line]] = {}
    for line in lines:
        if line["part"] == part and line["pool"] in PRIMARY:
            key = line["pool"], line["tier"], line["exploratory"]
            groups.setdefault(key, []).append(line)
    return groups


def _order(arm: str) -> tuple[int, str]:
    return (_ARMS.index(arm) if arm in _ARMS else len(_ARMS), arm)


def _name(pool: str, tier: str, exploratory: bool = False) -> str:
    more = [word for word, on in ((tier, tier != "small"), ("exploratory", exploratory)) if on]
    return f"{pool} ({', '.join(more)})" if more else pool


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f}" if known else ""


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def figure(found: Sequence[Comparison], path: Path) -> None:
    """Draws the primary differences with their intervals as an SVG file, the same at every call."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "evidence", "svg.fonttype": "none"}):
        drawn = Figure(figsize=(7, 1 + 0.3 * len(found)), layout="constrained")
        axes = drawn.subplots()
        for place, of in enumerate(found):
            color = "C0" if of.complete else "0.6"
            low, high = of.interval.mean - of.interval.low, of.interval.high - of.interval.mean
            errors = [[low], [high]] if np.isfinite(low) else None
            axes.errorbar(of.interval.mean, place, xerr=errors, fmt="o", color=color, capsize=3)
        names = [f"{_name(of.pool, of.tier)}: {less('curated', of.against)}" for of in found]
        axes.set_yticks(range(len(found)), names)
        axes.invert_yaxis()
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set_xlabel("difference in macro k-NN accuracy, 95 % interval (gray: exploratory)")
        drawn.savefig(path, format="svg", metadata={"Date": None})


def replaced(text: str, new: str) -> str:
    """Returns a text with another section between the two marks.

    Raises:
        InputError: the text does not have each mark once, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise InputError(f"README.md must have {BEGIN} and {END} once each, in this order")
    return f"{before}{BEGIN}\n\n{new}\n\n{END}{after}"


def read_all(folder: Path) -> list[Line]:
    """Returns the lines of all files of results, pool by pool."""
    order: Mapping[str, int] = {name: place for place, name in enumerate(PLANS)}
    files = sorted(folder.glob("*.jsonl"), key=lambda path: order.get(path.stem, len(order)))
    return [line for path in files for line in read_lines(path)]


def main(argv: Iterable[str] | None = None) -> int:
    """Runs the command line, and returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--readme", type=Path, default=HERE / "README.md")
    parser.add_argument("--check", action="store_true", help="change nothing")
    given = parser.parse_args(None if argv is None else list(argv))
    try:
        lines = read_all(given.results)
        old = given.readme.read_text()
        new = replaced(old, section(lines))
    except InputError as error:
        print(f"tables.py: error: {error}", file=sys.stderr)
        return 2
    if given.check:
        return int(new != old)
    given.readme.write_text(new)
    found = primary_comparisons(lines, PRIMARY)
    if found:
        figure(found, given.results / "primary.svg")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
