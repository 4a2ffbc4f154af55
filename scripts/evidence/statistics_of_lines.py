"""Statistics of the lines of results: paired differences, corrections and correlations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from jaxcurate.evaluation.intervals import Interval, holm, paired_interval

Line = Mapping[str, Any]
AGAINST = ("random", "deduplicated", "flat")
"""Arms that `curated` is compared with in the primary comparisons."""
N_PRIMARY = 12
"""Number of primary comparisons of the protocol: four pools with three each."""
N_SEEDS = 8
"""Number of seeds of a primary comparison."""
N_RESAMPLES = 2000
PREDICTORS = {
    "domain_entropy": "entropy over domains",
    "label_entropy": "entropy over labels",
    "cluster_entropy": "entropy over clusters, lowest level",
    "cluster_gini": "Gini over clusters, lowest level",
    "top_entropy": "entropy over clusters, highest level",
    "top_gini": "Gini over clusters, highest level",
    "held_out_distance": "distance of held-out items to the rows (logarithm)",
    "near_duplicates": "share of near-duplicates",
}
"""Measures before training, and their names in words."""
_LOGARITHMS = ("held_out_distance",)
"""Measures on the scale of the embeddings, of which the logarithm is compared."""


class Comparison(NamedTuple):
    """Paired difference of two arms of a pool."""

    pool: str
    tier: str
    against: str
    interval: Interval
    complete: bool
    """True if the protocol's conditions are met, so that the comparison is in the family."""

    @property
    def verdict(self) -> str:
        """Verdict in words: after correction, if the comparison is in the family."""
        if not self.complete:
            return f"exploratory: {self.interval.verdict}"
        if self.interval.verdict_holm == self.interval.verdict:
            return self.interval.verdict
        return f"no difference shown (uncorrected: {self.interval.verdict})"


def by_arm(lines: Iterable[Line]) -> dict[str, dict[int, Line]]:
    """Returns lines by arm and seed."""
    arms: dict[str, dict[int, Line]] = {}
    for line in lines:
        arms.setdefault(line["arm"], {})[line["seed"]] = line
    return arms


def difference(
    a: Mapping[int, Line], b: Mapping[int, Line], measure: str
) -> tuple[Interval, list[int]] | None:
    """Returns the paired difference of two arms over the seeds that both have, and these seeds.

    None without a common seed that has the measure.
    """
    seeds = [s for s in sorted(a) if s in b and measure in a[s]["probes"]]
    seeds = [s for s in seeds if measure in b[s]["probes"]]
    if not seeds:
        return None
    values = ([arm[s]["probes"][measure] for s in seeds] for arm in (a, b))
    return paired_interval(*values), seeds


def primary_comparisons(lines: Iterable[Line], measures: Mapping[str, str]) -> list[Comparison]:
    """Returns the primary comparisons, corrected for all that the protocol names.

    Args:
        lines: all lines.
        measures: the primary measure of each pool.

    Returns:
        The comparisons that have runs; tiers are families of their own. Those that the protocol
        names and that have no complete runs count in the correction, with a p-value of 1.
    """
    groups: dict[tuple[str, str, bool], list[Line]] = {}
    for line in lines:
        if line["part"] == "primary" and line["pool"] in measures:
            key = line["pool"], line["tier"], line["exploratory"]
            groups.setdefault(key, []).append(line)
    found = []
    for (pool, tier, exploratory), of_group in groups.items():
        arms = by_arm(of_group)
        pairs = {
            against: difference(arms["curated"], arms[against], measures[pool])
            for against in AGAINST
            if "curated" in arms and against in arms
        }
        seeds = [set(pair[1]) if (pair := pairs.get(name)) else set() for name in AGAINST]
        complete = not exploratory and all(len(of) >= N_SEEDS for of in seeds)
        found += [
            Comparison(pool, tier, against, pair[0], complete)
            for against, pair in pairs.items()
            if pair is not None
        ]
    return _corrected(found)


def _corrected(found: Sequence[Comparison]) -> list[Comparison]:
    corrected = list(found)
    for tier in dict.fromkeys(comparison.tier for comparison in found):
        family = [i for i, of in enumerate(found) if of.complete and of.tier == tier]
        p_values = [found[i].interval.p for i in family]
        p_values += [1.0] * (N_PRIMARY - len(p_values))
        for i, p in zip(family, holm(p_values), strict=False):
            corrected[i] = found[i]._replace(interval=replace(found[i].interval, p_holm=p))
    return corrected


class Gain(NamedTuple):
    """Gain of a run over the random run of the same pool, size and seed, and what went before."""

    pool: str
    arm: str
    """Arm, part, size and budget, which together name a set of seeds."""
    seed: int
    gain: float
    before: dict[str, float]
    """Difference of each measure before training."""


def gains(lines: Iterable[Line], measures: Mapping[str, str]) -> list[Gain]:
    """Returns the gain of every trained run whose random run is known."""
    setting = ("part", "exploratory", "tier", "keep", "steps", "objective", "encoder")
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        if line["before"] and line["pool"] in measures:
            key = line["pool"], line["seed"], *(line[field] for field in setting)
            groups.setdefault(key, []).append(line)
    found = []
    for (pool, seed, *others), of_group in groups.items():
        randoms = [line for line in of_group if is_random(line["arm"])]
        if len(randoms) != 1:
            continue
        [random] = randoms
        measure = measures[pool]
        for line in of_group:
            if not is_random(line["arm"]):
                found.append(
                    Gain(
                        pool,
                        f"{line['arm']} {others}",
                        seed,
                        line["probes"][measure] - random["probes"][measure],
                        _less(line["before"], random["before"]),
                    )
                )
    return found


def is_random(arm: str) -> bool:
    """Returns whether an arm is the random one, of whatever objective.

    Examples:
        >>> is_random("random, dino"), is_random("curated by pixels")
        (True, False)
    """
    return arm.split(",")[0] == "random"


def _less(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    scaled = lambda name, x: float(np.log(max(x, 1e-12))) if name in _LOGARITHMS else x
    return {name: scaled(name, a[name]) - scaled(name, b[name]) for name in a if name in b}


class Correlation(NamedTuple):
    """Rank correlation of a measure before training with the gain."""

    value: float
    """Spearman's correlation over all runs."""
    low: float
    high: float
    """Ends of the 95 % interval by resampling pools, arms and seeds."""
    within: float
    """Mean over pools of the correlation within each."""
    n_runs: int
    n_pools: int


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Returns Spearman's rank correlation; NaN where one of both is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (x, y)]
    if any(np.ptp(of) == 0 for of in ranks) or len(x) < 3:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def correlation(runs: Sequence[Gain], name: str, seed: int = 0) -> Correlation | None:
    """Returns the correlation of a measure with the gain, with an interval; None without runs.

    The interval has the percentiles 2.5 and 97.5 over draws with replacement of the pools, within
    each of its arms, and within each of these of its seeds.
    """
    runs = [run for run in runs if name in run.before]
    pools = sorted({run.pool for run in runs})
    if len(runs) < 3:
        return None
    pairs = lambda of: np.array([(run.before[name], run.gain) for run in of]).T
    nested = {pool: {} for pool in pools}
    for run in runs:
        nested[run.pool].setdefault(run.arm, []).append(run)
    cells = {pool: [pairs(of) for of in arms.values()] for pool, arms in nested.items()}
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(N_RESAMPLES):
        drawn = []
        for pool in rng.choice(pools, len(pools)):
            arms = cells[pool]
            for arm in rng.integers(len(arms), size=len(arms)):
                n = arms[arm].shape[1]
                drawn.append(arms[arm][:, rng.integers(n, size=n)])
        draws.append(rank_correlation(*np.concatenate(drawn, axis=1)))
    finite = np.array(draws)[np.isfinite(draws)]
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
    each = [rank_correlation(*np.concatenate(cells[pool], axis=1)) for pool in pools]
    each = [value for value in each if np.isfinite(value)]
    within = float(np.mean(each)) if each else float("nan")
    return Correlation(
        rank_correlation(*pairs(runs)), float(low), float(high), within, len(runs), len(pools)
    )
