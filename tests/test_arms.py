"""The arms' draws: anew for every seed, in step with the items, without regard to each other."""

import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.arms import Arms
from jaxcurate.settings import Sampling


@pytest.fixture(scope="module")
def pool():
    return jc.make_pool(np.random.default_rng(0).normal(size=(400, 3)))


@pytest.fixture(scope="module")
def tree(pool):
    return jc.hierarchical_kmeans(pool, [jc.Level(30), jc.Level(6)])


def in_another_order(pool, tree, order):
    """The same items and the same clusters, in other rows."""
    leaf = tree.levels[0]
    leaf = leaf._replace(labels=leaf.labels[order], distances=leaf.distances[order])
    return (
        jc.make_pool(pool.embeddings[order], pool.ids[order]),
        jc.ClusterTree((leaf, *tree.levels[1:])),
    )


def test_arms_are_drawn_anew_for_every_seed(pool, tree):
    arms = Arms(pool, tree, Sampling(50))
    draws = arms.draw(np.arange(50), 3, seed=7)
    assert list(draws) == ["curated", "random", "pool"]
    np.testing.assert_array_equal(draws["curated"][0], np.arange(50))
    np.testing.assert_array_equal(draws["curated"][2], jc.sample(tree, 50, seed=9, ids=pool.ids))
    for rows in draws["random"]:
        assert rows.dtype == np.int64 and len(np.unique(rows)) == 50
        assert (np.diff(rows) > 0).all()
    assert len({tuple(rows) for rows in draws["random"]}) == 3
    assert all(len(rows) == 400 for rows in draws["pool"])


def test_a_pool_in_another_order_gives_the_same_items(pool, tree):
    order = np.random.default_rng(1).permutation(400)
    other_pool, other_tree = in_another_order(pool, tree, order)
    valid = np.arange(0, 400, 2)
    of_other = np.flatnonzero(np.isin(order, valid))
    one = Arms(pool, tree, Sampling(50), valid).draw(np.arange(3), 3, 0)
    other = Arms(other_pool, other_tree, Sampling(50), of_other).draw(np.arange(3), 3, 0)
    for arm in ("curated", "random"):
        for a, b in zip(one[arm][1:], other[arm][1:], strict=True):
            assert set(pool.ids[a]) == set(other_pool.ids[b])
            assert not np.array_equal(a, b)


def test_the_random_arm_does_not_follow_the_curated_one(pool, tree):
    arms = Arms(pool, tree, Sampling(100))
    shared = [len(np.intersect1d(arms.curated(s), arms.random(s, 100))) for s in range(60)]
    # 25 of 100 by chance, with a standard error of .5 over sixty draws.
    assert 23 < np.mean(shared) < 27


def test_what_the_pool_cannot_give_is_not_asked_for(pool, tree):
    assert Arms(pool, tree, Sampling(500)).size == 400
    assert Arms(pool, tree, Sampling(500, max_repeats=2)).size == 500
    few = Arms(pool, tree, Sampling(500), np.array([3, 8]))
    np.testing.assert_array_equal(few.curated(0), [3, 8])
    np.testing.assert_array_equal(few.random(0, 500), np.arange(400))
