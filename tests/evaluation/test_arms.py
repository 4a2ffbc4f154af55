"""The arms' draws: drawn anew for every seed, tied to the items, independent of each other."""

import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.config import EvaluateConfig, SampleConfig
from jaxcurate.evaluation.arms import Arms
from jaxcurate.training import PretrainConfig


@pytest.fixture(scope="module")
def pool():
    return jc.make_pool(np.random.default_rng(0).normal(size=(400, 3)))


@pytest.fixture(scope="module")
def tree(pool):
    return jc.hierarchical_kmeans(pool, [jc.Level(30), jc.Level(6)])


def in_another_order(pool, tree, order):
    """Returns the same items and the same clusters, in other rows."""
    leaf = tree.levels[0]
    leaf = leaf._replace(labels=leaf.labels[order], distances=leaf.distances[order])
    return (
        jc.make_pool(pool.embeddings[order], pool.ids[order]),
        jc.ClusterTree((leaf, *tree.levels[1:])),
    )


TRAINING = PretrainConfig(n_steps=30, batch_size=20)


def test_arms_are_drawn_anew_for_every_seed(pool, tree):
    arms = Arms(pool, tree, SampleConfig(50))
    draws = arms.draw(np.arange(50), EvaluateConfig(("flat",), n_seeds=3, flat_level=2), seed=7)
    assert list(draws) == ["curated", "random", "pool", "flat"]
    np.testing.assert_array_equal(draws["curated"][0].rows, np.arange(50))
    expected = jc.sample(tree, 50, seed=9, ids=pool.ids)
    np.testing.assert_array_equal(draws["curated"][2].rows, expected)
    for arm in ("random", "flat"):
        for draw in draws[arm]:
            assert draw.rows.dtype == np.int64 and len(np.unique(draw.rows)) == 50
            assert (np.diff(draw.rows) > 0).all() and draw.batches is None
        assert len({tuple(draw.rows) for draw in draws[arm]}) == 3
    assert all(len(draw.rows) == 400 for draw in draws["pool"])


def test_the_flat_arm_is_balanced_over_one_level(pool, tree):
    arms = Arms(pool, tree, SampleConfig(60, strategy="closest"), np.arange(350))
    for level, k in ((1, 30), (2, 6)):
        rows = arms.flat(3, level)
        counts = np.bincount(tree.point_labels(level)[rows], minlength=k)
        most = np.bincount(tree.point_labels(level)[:350], minlength=k)
        assert len(rows) == 60 and rows.max() < 350
        # As even as the clusters' sizes allow: no cluster could give to one that has less.
        assert counts.max() <= counts[counts < most].min(initial=99) + 1
    closest = arms.flat(3, 1)
    for cluster in range(30):
        valid = np.flatnonzero(tree.levels[0].labels[:350] == cluster)
        taken = np.isin(valid, closest)
        distances = tree.levels[0].distances[valid]
        assert distances[taken].max(initial=0) <= distances[~taken].min(initial=np.inf)


def test_the_stratified_arm_sees_all_clusters_of_the_whole_pool_equally_often(pool, tree):
    arms = Arms(pool, tree, SampleConfig(60))
    settings = EvaluateConfig(("stratified",), n_seeds=2, pretraining=TRAINING)
    first, second = arms.draw(np.arange(60), settings, 4)["stratified"]
    np.testing.assert_array_equal(first.rows, np.arange(400))
    assert len(first.batches) == 30 and first.batches.fingerprint != second.batches.fingerprint
    tops = np.bincount(tree.point_labels(2)[first.seen], minlength=6)
    assert tops.sum() == 600 and tops.max() - tops.min() <= 1
    by_rows = EvaluateConfig(("stratified",), 1, "rows", 1, pretraining=TRAINING)
    (rows,) = arms.draw(np.arange(60), by_rows, 4)["stratified"]
    times = np.bincount(rows.seen, minlength=400)
    assert (times.min(), times.max()) == (1, 2)


def test_a_pool_in_another_order_gives_the_same_items(pool, tree):
    order = np.random.default_rng(1).permutation(400)
    other_pool, other_tree = in_another_order(pool, tree, order)
    valid = np.arange(0, 400, 2)
    valid_in_other = np.flatnonzero(np.isin(order, valid))
    settings = EvaluateConfig(("flat",), n_seeds=3)
    draws = Arms(pool, tree, SampleConfig(50), valid).draw(np.arange(3), settings, 0)
    others = Arms(other_pool, other_tree, SampleConfig(50), valid_in_other).draw(
        np.arange(3), settings, 0
    )
    for arm in ("curated", "random", "flat"):
        for a, b in zip(draws[arm][1:], others[arm][1:], strict=True):
            assert set(pool.ids[a.rows]) == set(other_pool.ids[b.rows])
            assert not np.array_equal(a.rows, b.rows)


def test_the_random_arm_does_not_follow_the_curated_one(pool, tree):
    arms = Arms(pool, tree, SampleConfig(100))
    shared = [len(np.intersect1d(arms.curated(s), arms.random(s, 100))) for s in range(60)]
    # 25 of 100 by chance, with a standard error of 0.5 over sixty draws.
    assert 23 < np.mean(shared) < 27


def test_what_the_pool_cannot_give_is_not_asked_for(pool, tree):
    assert Arms(pool, tree, SampleConfig(500)).size == 400
    assert Arms(pool, tree, SampleConfig(500, max_repeats=2)).size == 500
    few = Arms(pool, tree, SampleConfig(500), np.array([3, 8]))
    np.testing.assert_array_equal(few.curated(0), [3, 8])
    np.testing.assert_array_equal(few.random(0, 500), np.arange(400))
