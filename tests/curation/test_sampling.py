import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcurate as jc
from jaxcurate.curation.sampling import ShortfallWarning, _first_of_each


def recursive_allocation(capacities, size):
    """Returns the largest c, found by trial, and the remainder."""
    c = 0
    while sum(min(c + 1, s) for s in capacities) <= size and c < max(capacities, default=0):
        c += 1
    return c, size - sum(min(c, s) for s in capacities)


def random_tree(rng, n=300, sizes=(40, 7)):
    labels, below = [], n
    for k in sizes:
        labels.append(rng.integers(0, k, below))
        labels[-1][0] = k - 1  # the last cluster exists; others may be empty
        below = k
    return jc.ClusterTree.from_labels(labels, rng.random(n))


@settings(max_examples=3000, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=12), st.integers(0, 150), st.integers(0, 3))
def test_allocate_against_its_definition(capacities, size, seed):
    quotas = jc.allocate(np.array(capacities, np.int64), size, seed)
    assert quotas.sum() == min(size, sum(capacities))
    assert (quotas <= np.array(capacities)).all()
    if size >= sum(capacities):
        return
    c, left = recursive_allocation(capacities, size)
    extra = quotas - np.minimum(c, capacities)
    assert set(extra.tolist()) <= {0, 1}
    assert extra.sum() == left
    assert (extra <= (np.array(capacities) > c)).all()


def test_left_overs_are_drawn_evenly():
    counts = sum(jc.allocate(np.full(4, 10), 6, seed) - 1 for seed in range(400))
    assert (np.abs(counts - 200) < 50).all()


@pytest.mark.parametrize(
    ("capacities", "size", "message"),
    [
        ([1, -1], 1, "capacities must not be negative"),
        ([1, 2], -1, "size=-1"),
        ([1.5], 1, "capacities must be whole numbers"),
        ([[1]], 1, "capacities must be whole numbers"),
    ],
)
def test_bad_capacities_are_refused(capacities, size, message):
    with pytest.raises(ValueError, match=message):
        jc.allocate(np.array(capacities), size)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 320), st.integers(1, 3))
def test_quotas_hold_at_every_node(seed, size, max_repeats):
    tree = random_tree(np.random.default_rng(seed))
    size = min(size, tree.n_points * max_repeats)
    taken = jc.sample(tree, size, max_repeats=max_repeats, seed=seed)
    assert taken.dtype == np.int64
    assert len(taken) == size
    assert (np.diff(taken) >= 0).all()
    assert np.bincount(taken, minlength=1).max() <= max_repeats
    # At every node the children's shares differ by one at most, but for those used up.
    parents = np.zeros(tree.n_clusters(2), int)
    for level in (2, 1):
        got = np.bincount(tree.point_labels(level)[taken], minlength=tree.n_clusters(level))
        full = got == tree.point_counts(level) * max_repeats
        for parent in np.unique(parents):
            own = parents == parent
            open_ = got[own & ~full]
            if len(open_):
                assert open_.max() - open_.min() <= 1
                assert not (own & full).any() or got[own & full].max() <= open_.min() + 1
        parents = tree.levels[1].labels
    # Within a leaf no row is taken twice more often than another.
    for leaf in np.unique(tree.levels[0].labels):
        rows = np.flatnonzero(tree.levels[0].labels == leaf)
        times = np.array([(taken == row).sum() for row in rows])
        assert times.max() - times.min() <= 1


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(0, 300),
    st.integers(0, 300),
    st.sampled_from(["random", "closest"]),
)
def test_smaller_samples_are_nested_in_larger_ones(seed, a, b, strategy):
    tree = random_tree(np.random.default_rng(seed))
    small, large = (jc.sample(tree, s, strategy, seed=seed) for s in sorted((a, b)))
    assert np.isin(small, large).all()


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(0, 300),
    st.sampled_from(["random", "closest"]),
    st.integers(1, 2),
    st.booleans(),
)
def test_the_order_of_the_pool_does_not_show(seed, size, strategy, max_repeats, numbers):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    # Few distances, so that many rows are equally close.
    tree = jc.ClusterTree.from_labels(
        [level.labels for level in tree.levels], rng.integers(0, 4, tree.n_points)
    )
    ids = rng.permutation(10**9 + np.arange(tree.n_points))
    ids = ids if numbers else ids.astype(np.str_)
    order = rng.permutation(tree.n_points)
    shuffled = jc.ClusterTree.from_labels(
        [tree.levels[0].labels[order], tree.levels[1].labels], tree.levels[0].distances[order]
    )
    a = jc.sample(tree, size, strategy, max_repeats, seed, ids=ids)
    b = jc.sample(shuffled, size, strategy, max_repeats, seed, ids=ids[order])
    np.testing.assert_array_equal(np.sort(ids[a]), np.sort(ids[order][b]))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 300), st.sampled_from(["random", "closest"]))
def test_rows_that_may_be_taken_are_all_that_counts(seed, size, strategy):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    rows = rng.choice(tree.n_points, int(rng.integers(1, 300)), replace=False)
    size = min(size, len(rows))
    taken = jc.sample(tree, size, strategy, seed=seed, rows=rows)
    assert len(taken) == size and np.isin(taken, rows).all()
    # The same as of a pool that never had the others.
    kept = np.sort(rows)
    smaller = jc.ClusterTree.from_labels(
        [tree.levels[0].labels[kept], tree.levels[1].labels], tree.levels[0].distances[kept]
    )
    np.testing.assert_array_equal(
        kept[jc.sample(smaller, size, strategy, seed=seed, ids=kept)], taken
    )


@settings(max_examples=500, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 3), st.booleans(), st.integers(-2, 4)
)
def test_the_first_of_each_group_by_brute_force(seed, n_orders, n_groups, uniform, margin):
    """Also if orders are far from uniform, or too few are below the limit."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 60))
    groups = rng.integers(0, n_groups, n).astype(np.int32)
    orders = np.array([1, 2**30, 2**31, 2**32 - 2**24, 2**32 - 1], np.uint32)
    order = rng.permutation(orders)[rng.integers(0, n_orders, n)]
    ties = rng.permutation(n).astype(np.uint64)
    sizes = np.bincount(groups, minlength=n_groups)
    wanted = rng.integers(0, 25, n_groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxcurate.curation.sampling._MARGIN", margin)
        taken = _first_of_each(groups, order, lambda members: ties[members], sizes, wanted, uniform)
    for group in range(n_groups):
        members = np.flatnonzero(groups == group)
        first = sorted(members, key=lambda i: (order[i], ties[i]))[: wanted[group]]
        assert set(np.flatnonzero(taken & (groups == group))) == set(first)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 300), st.booleans(), st.booleans(), st.integers(1, 2))
def test_how_many_are_compared_does_not_show(seed, size, some_rows, with_ids, max_repeats):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, sizes=(4, 2))  # large leaves, so that limits matter
    rows = np.sort(rng.permutation(300)[:200]) if some_rows else None
    size = min(size, 200)
    ids = rng.permutation(300) if with_ids else None
    draw = lambda: jc.sample(tree, size, max_repeats=max_repeats, seed=seed, rows=rows, ids=ids)
    usual = draw()
    for margin in (-1, 100):  # too few, so that all is sorted in the end; and all at once
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jaxcurate.curation.sampling._MARGIN", margin)
            np.testing.assert_array_equal(draw(), usual)


def test_the_sample_of_a_tree_and_a_seed_stays_the_same():
    """The expected rows were drawn by the first version."""
    random = [26, 37, 84, 104, 110, 114, 131, 134, 154, 168, 178, 186]
    closest = [7, 84, 91, 98, 112, 119, 133, 140, 154, 168, 175, 196]
    leaves = np.arange(200) ** 2 % 23
    tree = jc.ClusterTree.from_labels([leaves, np.arange(19) % 4], np.arange(200) % 7)
    np.testing.assert_array_equal(jc.sample(tree, 12, seed=5), random)
    np.testing.assert_array_equal(jc.sample(tree, 12, "closest", seed=5), closest)


@pytest.mark.parametrize("strategy", ["random", "closest"])
def test_blocks_do_not_show(strategy, monkeypatch):
    tree = random_tree(np.random.default_rng(1))
    whole = jc.sample(tree, 123, strategy)
    monkeypatch.setattr("jaxcurate.curation.sampling._BLOCK", 7)
    monkeypatch.setattr("jaxcurate.stateless_random._BLOCK", 11)
    np.testing.assert_array_equal(jc.sample(tree, 123, strategy), whole)


def test_equally_close_rows_are_taken_at_random():
    tree = jc.ClusterTree.from_labels([np.zeros(20, int)], np.repeat([1.0, -0.0, 0.0], [5, 7, 8]))
    counts = sum(
        np.bincount(jc.sample(tree, 5, "closest", seed=s), minlength=20) for s in range(300)
    )
    assert (counts[:5] == 0).all()
    assert (np.abs(counts[5:] - 100) < 40).all()


def test_empty_clusters_are_legal_at_any_level():
    labels = [np.array([1, 1, 4, 4, 4]), np.array([0, 2, 0, 0, 2, 0]), np.array([1, 0, 1, 0])]
    tree = jc.ClusterTree.from_labels(labels)
    for size in range(6):
        assert len(jc.sample(tree, size)) == size
    assert len(jc.sample(tree, 0, rows=np.zeros(0, int))) == 0


def test_closest_takes_by_distance():
    distances = np.array([3, 1, 2, 9, 7, 8], float)
    tree = jc.ClusterTree.from_labels([np.array([0, 0, 0, 1, 1, 1])], distances)
    np.testing.assert_array_equal(jc.sample(tree, 4, "closest"), [1, 2, 4, 5])


def test_random_depends_on_the_seed_alone():
    tree = random_tree(np.random.default_rng(0))
    a, b, c = (jc.sample(tree, 50, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_every_point_of_a_leaf_is_as_likely():
    tree = jc.ClusterTree.from_labels([np.repeat([0, 1], [10, 30])])
    counts = sum(np.bincount(jc.sample(tree, 10, seed=s), minlength=40) for s in range(400))
    assert (np.abs(counts[:10] - 200) < 50).all()
    assert (np.abs(counts[10:] - 400 * 5 / 30) < 35).all()


def test_whole_copies_first():
    tree = jc.ClusterTree.from_labels([np.array([0, 0, 1, 1, 1, 1])])
    taken = jc.sample(tree, 8, max_repeats=2)
    np.testing.assert_array_equal(np.bincount(taken), [2, 2, 1, 1, 1, 1])


@pytest.mark.parametrize("max_repeats", [2**63 - 1, 10**30])
def test_as_many_repeats_as_it_takes(max_repeats):
    tree = jc.ClusterTree.from_labels([np.array([0, 1, 1, 2]), np.array([0, 0, 0, 1])])
    taken = jc.sample(tree, 10, max_repeats=max_repeats)
    np.testing.assert_array_equal(taken, jc.sample(tree, 10, max_repeats=10))


def test_shortfall_is_reported():
    tree = jc.ClusterTree.from_labels([np.array([0, 1, 1])])
    with pytest.warns(ShortfallWarning, match="5 items wanted, the pool holds 3"):
        taken = jc.sample(tree, 5)
    np.testing.assert_array_equal(taken, [0, 1, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": -1}, "size=-1"),
        ({"size": 1.5}, "size=1.5 must be a whole number"),
        ({"size": True}, "size=True must be a whole number"),
        ({"max_repeats": 1.5}, "max_repeats=1.5 must be a whole number"),
        ({"max_repeats": 0}, "max_repeats=0"),
        ({"strategy": "furthest"}, "strategy='furthest'; known"),
        ({"seed": -1}, "seed=-1"),
        ({"rows": np.array([0, 3])}, "rows names row 3, but there are rows 0 to 2"),
        ({"rows": np.array([-1, 2])}, "rows names row -1"),
        ({"rows": np.array([1, 1])}, "rows must be distinct, but 1 is there twice"),
        ({"rows": np.array([True, False, True])}, "rows must be whole numbers"),
        ({"ids": np.array(["a", "b", "a"])}, "ids must be distinct, but 'a'"),
        ({"ids": np.array(["a", "b"])}, "ids has 2 entries, but the tree 3 points"),
        ({"strategy": "closest"}, "distances, which this tree does not have"),
    ],
)
def test_bad_arguments_are_named(change, message):
    tree = jc.ClusterTree.from_labels([np.array([0, 1, 1])])
    with pytest.raises(ValueError, match=message):
        jc.sample(**({"tree": tree, "size": 2} | change))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 300), st.integers(0, 150), st.integers(1, 2))
def test_only_valid_rows_are_taken(seed, n_valid, size, max_repeats):
    """The sample equals that of a tree of the valid points alone."""
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    valid = rng.permutation(300)[:n_valid]
    size = min(size, n_valid * max_repeats)
    taken = jc.sample(tree, size, max_repeats=max_repeats, seed=seed, rows=valid)
    assert taken.dtype == np.int64
    assert len(taken) == size
    assert np.isin(taken, valid).all()
    if n_valid:
        labels = [tree.levels[0].labels[np.sort(valid)], tree.levels[1].labels]
        alone = jc.ClusterTree(
            (tree.levels[0]._replace(labels=labels[0], distances=np.zeros(n_valid)), tree.levels[1])
        )
        same = jc.sample(alone, size, max_repeats=max_repeats, seed=seed)
        for level in (1, 2):
            np.testing.assert_array_equal(
                np.bincount(tree.point_labels(level)[taken], minlength=40),
                np.bincount(alone.point_labels(level)[same], minlength=40),
            )


@pytest.mark.parametrize("strategy", ["random", "closest"])
def test_all_rows_are_the_default_and_valid_ones_are_nested(strategy):
    tree = random_tree(np.random.default_rng(0))
    whole = jc.sample(tree, 80, strategy, seed=2)
    everything = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(jc.sample(tree, 80, strategy, seed=2, rows=everything), whole)
    valid = np.arange(0, 300, 2)
    small, large = (jc.sample(tree, s, strategy, rows=valid) for s in (40, 90))
    assert np.isin(small, large).all()


def test_closest_takes_the_closest_of_the_valid_rows():
    tree = jc.ClusterTree.from_labels([np.zeros(5, int)], np.array([5.0, 1, 4, 2, 3]))
    np.testing.assert_array_equal(jc.sample(tree, 2, "closest", rows=np.array([4, 0, 2])), [2, 4])


def test_a_shortfall_of_valid_rows_is_reported():
    tree = jc.ClusterTree.from_labels([np.array([0, 1, 1])])
    with pytest.warns(ShortfallWarning, match="3 items wanted, the pool holds 2"):
        np.testing.assert_array_equal(jc.sample(tree, 3, rows=np.array([2, 0])), [0, 2])
    with pytest.warns(ShortfallWarning):
        assert len(jc.sample(tree, 1, rows=np.array([], int))) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 3], "rows names row 3, but there are rows 0 to 2"),
        ([-1, 2], "rows names row -1"),
        ([1, 0, 1], "rows must be distinct, but 1 is there twice"),
        ([0.0, 1.0], "rows must be whole numbers"),
        ([True, False, True], "rows must be whole numbers"),
        ([[0], [1]], "rows must be whole numbers"),
    ],
)
def test_bad_rows_are_named(rows, message):
    tree = jc.ClusterTree.from_labels([np.array([0, 1, 1])])
    with pytest.raises(ValueError, match=message):
        jc.sample(tree, 1, rows=np.array(rows))
