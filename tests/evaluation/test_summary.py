"""Balance, intervals and the comparison of arms, by hand and against scipy."""

import json

import numpy as np
import pytest
import scipy.stats

import jaxcurate as jc
from jaxcurate.curation.stratified_batches import Batches
from jaxcurate.evaluation import balance, compare, paired_interval, summary
from jaxcurate.evaluation.compare import HeldOut
from jaxcurate.runtime.devices import ONE_DEVICE
from jaxcurate.sources import Annotations
from jaxcurate.training import PretrainConfig, Run, ViTConfig


def test_entropy_and_gini_by_hand():
    assert balance.normalized_entropy(np.array([5, 5, 5])) == pytest.approx(1)
    assert balance.normalized_entropy(np.array([5, 0])) == 0
    assert balance.normalized_entropy(np.array([3, 1])) == pytest.approx(
        -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    )
    assert balance.gini(np.array([4, 4])) == pytest.approx(0)
    assert balance.gini(np.array([0, 0, 9])) == pytest.approx(2 / 3)
    spread = balance.balance_of(["b", "b", "a"], ["a", "b", "c"])
    assert spread.counts == {"b": 2, "a": 1, "c": 0}
    assert list(spread.counts) == ["b", "a", "c"]


def test_interval_is_that_of_a_paired_t_test():
    a, b = [0.5, 0.6, 0.55, 0.7], [0.45, 0.5, 0.56, 0.6]
    interval = paired_interval(a, b)
    theirs = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high))
    assert interval.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert interval.values == pytest.approx(np.subtract(a, b))


def test_the_interval_of_one_seed_is_infinite():
    interval = paired_interval([0.5], [0.4])
    assert (interval.low, interval.high) == (-np.inf, np.inf)
    assert "no difference shown" in summary.interval_in_words(vars(interval))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.03, ": better"), (-0.03, -0.01, ": worse"), (-0.01, 0.03, "no difference shown")],
)
def test_verdict_follows_the_interval(low, high, verdict):
    interval = {"mean": (low + high) / 2, "low": low, "high": high, "values": [0.0, 0.1]}
    assert summary.interval_in_words(interval).endswith(verdict)


def test_balance_is_reported_where_groups_are_known():
    notes = Annotations(np.array(["x", "x", "y", "z"]), np.array([""] * 4))
    balances = summary.balance(notes, {"pool": np.arange(4), "curated": np.array([0, 2, 3])})
    assert set(balances) == {"label"}
    assert balances["label"]["pool"]["counts"] == {"x": 2, "y": 1, "z": 1}
    assert balances["label"]["curated"]["entropy"] == pytest.approx(1)


def held_out(rng, n):
    labels = np.array(["dark", "bright"])[rng.integers(0, 2, n)]
    base = np.where(labels == "dark", 40, 200)[:, None, None, None]
    images = np.clip(base + rng.normal(0, 10, (n, 8, 8, 3)), 0, 255).astype(np.uint8)
    return HeldOut(images, labels, np.array(["one", "two"])[rng.integers(0, 2, n)])


def test_compare_gives_every_arm_the_same(devices):
    rng = np.random.default_rng(0)
    pool, probe_set, test_set = held_out(rng, 60), held_out(rng, 40), held_out(rng, 40)
    rows = np.arange(0, 60, 2)
    settings = PretrainConfig(
        model=ViTConfig(image_size=8, patch_size=4, width=8, depth=1, n_heads=1),
        n_steps=2,
        batch_size=8,
    )
    tree = jc.ClusterTree.from_labels([np.repeat([0, 1], [50, 10])])
    stratified = [Batches(tree, 8, 2, equal="clusters", seed=seed) for seed in (0, 1)]
    runs_of = lambda rows, batches=(None, None): [Run(rows, seed, batches[seed]) for seed in (0, 1)]
    arms = {
        "curated": runs_of(rows),
        "random": runs_of(rows),
        "pool": runs_of(np.arange(60)),
        "stratified": runs_of(np.arange(60), stratified),
    }
    compared = compare.compare(
        pool.items,
        arms,
        compare.Probing(probe_set, test_set, {"dark": 50, "bright": 10}),
        settings,
        devices=devices,
    )
    assert list(compared.accuracies) == ["curated", "random", "pool", "stratified", "untrained"]
    # Two arms of the same rows are the same runs: nothing but the data tells arms apart.
    assert compared.accuracies["curated"] == compared.accuracies["random"]
    same = compared.differences["curated - random"]["knn"]
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    np.testing.assert_array_equal(compared.losses["curated"], compared.losses["random"])
    assert not np.array_equal(compared.losses["curated"], compared.losses["pool"])
    assert compared.losses["pool"].shape == (2, 2)
    assert not np.array_equal(compared.losses["stratified"], compared.losses["pool"])
    with pytest.raises(ValueError, match="arm 'random' must have the seeds of the others"):
        arms["random"] = arms["random"][:1]
        compare.compare(
            pool.items,
            arms,
            compare.Probing(probe_set, test_set, {}),
            settings,
            devices=ONE_DEVICE,
        )
    assert {"knn", "ridge", "knn/head", "knn/tail", "knn/one", "ridge/two"} <= set(
        compared.accuracies["pool"]
    )
    plain = json.loads(json.dumps(summary.to_plain(compared)))
    lines = summary.lines({"balance": {}, **plain})
    assert any(line.startswith("curated - random, knn: +0.000") for line in lines)
