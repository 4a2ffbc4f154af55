import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.curation.baselines import flat, sample_flat, sample_uniform


@pytest.fixture(scope="module")
def tree():
    """Ten leaves of 100, 10, 10... points. The first two are in one cluster, the others alone."""
    leaves = np.repeat(np.arange(10), [100] + [10] * 9)
    above = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    return jc.ClusterTree.from_labels([leaves, above], np.arange(190) % 7)


def test_uniform_takes_every_row_as_likely(tree):
    counts = sum(np.bincount(sample_uniform(tree, 19, seed=s), minlength=190) for s in range(500))
    assert counts.sum() == 500 * 19
    assert abs(counts[:100].mean() - 50) < 2 and (np.abs(counts - 50) < 35).all()


def test_flat_is_even_over_its_level_alone(tree):
    taken = sample_flat(tree, 50)
    np.testing.assert_array_equal(np.bincount(tree.point_labels(1)[taken]), np.full(10, 5))
    taken = sample_flat(tree, 45, level=2)
    np.testing.assert_array_equal(np.bincount(tree.point_labels(2)[taken]), np.full(9, 5))
    # The hierarchy tells the two apart.
    by_leaf = np.bincount(tree.point_labels(1)[jc.sample(tree, 54)])
    np.testing.assert_array_equal(by_leaf, [3, 3] + [6] * 8)


def test_flat_trees_are_trees(tree):
    assert len(flat(tree, 2).levels) == 1
    np.testing.assert_array_equal(flat(tree, 2).point_counts(1), tree.point_counts(2))
    np.testing.assert_array_equal(flat(tree).levels[0].distances, tree.levels[0].distances)


@pytest.mark.parametrize("draw", [sample_uniform, sample_flat])
def test_baselines_nest_and_follow_ids(tree, draw):
    ids = np.random.default_rng(0).permutation(190).astype(np.str_)
    rows = np.arange(0, 190, 2)
    small, large = (draw(tree, size, seed=3, rows=rows, ids=ids) for size in (20, 50))
    assert np.isin(small, large).all() and np.isin(large, rows).all()
    assert len(large) == 50
    assert not np.array_equal(small, draw(tree, 20, seed=4, rows=rows, ids=ids))
    assert np.bincount(draw(tree, 300, "random", 2)).max() == 2


def test_closest_where_it_means_something(tree):
    taken = sample_flat(tree, 10, "closest")
    assert (tree.levels[0].distances[taken[0]]) == 0
    with pytest.raises(ValueError, match="means nothing to uniform"):
        sample_uniform(tree, 5, "closest")
    with pytest.raises(ValueError, match="needs distances"):
        sample_flat(tree, 5, "closest", level=2)
    with pytest.raises(ValueError, match="level=3"):
        sample_flat(tree, 5, level=3)
