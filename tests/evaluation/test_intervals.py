"""Intervals, p-values and Holm's correction: against scipy, by closed testing, by simulation."""

import itertools

import numpy as np
import pytest
import scipy.stats

from jaxcurate.evaluation import holm, paired_interval
from jaxcurate.evaluation.intervals import count_comparisons, paired_differences


def test_interval_and_p_value_are_those_of_a_paired_t_test():
    a, b = [0.5, 0.6, 0.55, 0.7], [0.45, 0.5, 0.56, 0.6]
    interval = paired_interval(a, b)
    theirs = scipy.stats.ttest_rel(a, b)
    bounds = theirs.confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((bounds.low, bounds.high))
    assert interval.p == pytest.approx(theirs.pvalue)
    assert interval.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert interval.values == pytest.approx(np.subtract(a, b))


def test_an_interval_and_its_p_value_give_the_same_verdict():
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(300):
        interval = paired_interval(rng.normal(0.5, 1, 4).tolist(), [0.0] * 4)
        assert (interval.p < 0.05) == (interval.verdict != "no difference shown")
        found.add(interval.verdict)
    assert len(found) > 1


def test_equal_differences_at_all_seeds():
    same = paired_interval([0.5, 0.5], [0.25, 0.25])
    assert (same.verdict, same.low, same.high) == ("better", 0.25, 0.25)
    assert (same.verdict_holm, same.p) == ("no difference shown", 1)
    nothing = paired_interval([0.5, 0.6], [0.5, 0.6])
    assert (nothing.verdict, nothing.verdict_holm, nothing.p) == (*["no difference shown"] * 2, 1)


def test_one_seed_shows_nothing():
    one = paired_interval([0.5], [0.4])
    assert (one.low, one.high, one.p) == (-np.inf, np.inf, 1)
    assert one.verdict == one.verdict_holm == "no difference shown"


def test_holm_is_the_closed_test_of_bonferroni():
    rng = np.random.default_rng(0)
    for n in (1, 2, 5):
        for p in (rng.random(n) ** 3, np.full(n, 0.03)):
            subsets = [
                subset
                for size in range(1, n + 1)
                for subset in itertools.combinations(range(n), size)
            ]
            expected = [
                max(min(1, len(s) * p[list(s)].min()) for s in subsets if i in s) for i in range(n)
            ]
            assert holm(p.tolist()) == pytest.approx(expected)
    assert holm([]) == []


def test_holm_bounds_the_probability_of_any_wrong_verdict():
    rng = np.random.default_rng(0)
    n_trials, n_arms, wrong, wrong_alone = 400, 4, 0, 0
    for _ in range(n_trials):
        accuracies = {f"arm{i}": {"knn": rng.normal(size=5).tolist()} for i in range(n_arms)}
        found = [by["knn"] for by in paired_differences(accuracies).values()]
        assert len(found) == 6
        wrong += any(interval.verdict_holm != "no difference shown" for interval in found)
        wrong_alone += any(interval.verdict != "no difference shown" for interval in found)
    # At most 0.05, with a standard error of 0.011; of six intervals by themselves about 0.2.
    assert wrong / n_trials < 0.08 < 0.12 < wrong_alone / n_trials


def test_parts_are_a_family_of_their_own():
    rng = np.random.default_rng(0)
    measures = ("knn", "ridge", "knn/head", "knn/tail", "knn/cats")
    accuracies = {arm: {m: rng.random(4).tolist() for m in measures} for arm in ("a", "b", "c")}
    differences = paired_differences(accuracies)
    assert list(differences) == ["a - b", "a - c", "b - c"]
    assert count_comparisons(differences) == {"overall": 6, "parts": 9}
    for family in (("knn", "ridge"), ("knn/head", "knn/tail", "knn/cats")):
        members = [by[measure] for by in differences.values() for measure in family]
        expected = holm([member.p for member in members])
        assert [member.p_holm for member in members] == expected
    assert paired_differences({"a": {"knn": [0.1]}}) == {}
