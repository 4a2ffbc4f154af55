"""Stratified batches: their laws, random access, and loaders that read them."""

import collections
import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcurate as jc
from jaxcurate.curation.stratified_batches import Batches
from jaxcurate.stateless_random import permuted


def random_tree(rng, n=200, sizes=(30, 6)):
    labels, below = [], n
    for k in sizes:
        labels.append((k * rng.random(below) ** 2).astype(int))  # some clusters are large
        labels[-1][0] = k - 1  # the last one exists; others may be empty
        below = k
    return jc.ClusterTree.from_labels(labels)


def drawn(seed, equal, batch_size=24, n_steps=60):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    rows = rng.choice(200, int(rng.integers(1, 200)), replace=False)
    batches = Batches(tree, batch_size, n_steps, rows=rows, equal=equal, seed=seed)
    return tree, np.sort(rows), batches


# Permutations.


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
@settings(max_examples=100, deadline=None)
def test_a_permutation_holds_every_number_once(n, key):
    found = permuted(np.arange(n), np.full(n, n), np.full(n, key, np.uint64))
    np.testing.assert_array_equal(np.sort(found), np.arange(n))


def test_permutations_of_many_sizes_at_once_are_those_of_one_by_one():
    rng = np.random.default_rng(0)
    sizes, keys = rng.integers(1, 300, 500), rng.integers(0, 2**63, 500).astype(np.uint64)
    places = (rng.random(500) * sizes).astype(np.int64)
    together = permuted(places, sizes, keys)
    for i in range(0, 500, 25):
        assert together[i : i + 1] == permuted(places[i : i + 1], sizes[i : i + 1], keys[i : i + 1])


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_all_permutations_come_about_as_often(n):
    m = 20_000
    keys = np.repeat(np.arange(m, dtype=np.uint64), n)
    found = permuted(np.tile(np.arange(n), m), np.full(m * n, n), keys).reshape(m, n)
    counts = collections.Counter(map(tuple, found.tolist()))
    assert len(counts) == math.factorial(n)
    assert max(counts.values()) < 2 * m / math.factorial(n) or n > 4
    at = np.stack([np.bincount(column, minlength=n) for column in found.T])
    assert (np.abs(at - m / n) < 5 * math.sqrt(m / n)).all()


# The law of equal rows.


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_every_row_is_seen_equally_often(seed):
    _, rows, batches = drawn(seed, "rows")
    stream = np.concatenate(list(batches))
    for end in range(24, len(stream) + 1, 24):
        counts = np.bincount(stream[:end], minlength=200)[rows]
        assert counts.sum() == end  # no row but those asked for
        assert counts.max() - counts.min() <= 1


@given(st.integers(0, 1000), st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_batch_has_its_part_of_every_cluster_at_every_level(seed, fitting):
    tree, rows, batches = drawn(seed, "rows")
    if fitting:  # so many rows that a batch never reaches from one part of an epoch to the next
        rows = np.sort(np.random.default_rng(seed).permutation(200)[: 24 * (1 + seed % 8)])
        batches = Batches(tree, 24, 60, rows=rows, seed=seed)
    for batch in batches:
        for level in (1, 2):
            labels, k = tree.point_labels(level), tree.n_clusters(level)
            part = np.bincount(labels[rows], minlength=k) * 24 / len(rows)
            off = np.abs(np.bincount(labels[batch], minlength=k) - part)
            assert off.max() < (1 if fitting else 3)


def test_random_batches_break_that_law():
    tree, rows, _ = drawn(3, "rows")
    rng, worst = np.random.default_rng(0), 0
    labels = tree.point_labels(2)
    part = np.bincount(labels[rows], minlength=6) * 24 / len(rows)
    for _ in range(60):
        batch = rng.choice(rows, 24, replace=False)
        worst = max(worst, np.abs(np.bincount(labels[batch], minlength=6) - part).max())
    assert worst > 3


# The law of equal clusters.


@given(st.integers(0, 1000), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_no_cluster_is_in_a_batch_more_often_than_its_turn(seed, batch_size):
    tree, rows, batches = drawn(seed, "clusters", batch_size, n_steps=30)
    top = tree.point_labels(2)
    k = len(np.unique(top[rows]))
    seen = np.zeros(6, int)
    for batch in batches:
        assert len(batch) == batch_size and np.isin(batch, rows).all()
        counts = np.bincount(top[batch], minlength=6)
        assert counts.max() <= math.ceil(batch_size / k) + 1
        seen += counts
        # Least seen first: after every batch no two clusters differ by more than one.
        assert np.ptp(seen[np.unique(top[rows])]) <= 1


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_least_seen_first_holds_at_every_node(seed):
    tree, rows, batches = drawn(seed, "clusters", n_steps=30)
    stream = np.concatenate(list(batches))
    times = np.bincount(stream, minlength=200)
    leaf, top = tree.point_labels(1), tree.point_labels(2)
    for node in np.unique(top[rows]):
        leaves = np.unique(leaf[rows][top[rows] == node])
        assert np.ptp([times[leaf == one].sum() for one in leaves]) <= 1
        for one in leaves:
            assert np.ptp(times[rows[leaf[rows] == one]]) <= 1


def test_rounds_differ_in_order():
    tree = jc.ClusterTree.from_labels([np.arange(12)])
    batches = Batches(tree, 12, 50, equal="clusters")
    assert len({tuple(batch) for batch in batches}) == 50
    firsts = np.bincount([batch[0] for batch in batches], minlength=12)
    assert firsts.max() < 15


# Both.


@pytest.mark.parametrize("equal", ["rows", "clusters"])
def test_any_batch_at_any_time(equal):
    _, _, batches = drawn(5, equal)
    whole = list(batches)
    assert len(whole) == len(batches) == 60
    for step in (59, 0, 17, 18, 2, -1):
        np.testing.assert_array_equal(batches[step], whole[step])
    again = copy.deepcopy(batches)  # as a worker process gets one
    np.testing.assert_array_equal(again[31], whole[31])
    # More steps change nothing of those that were there; another seed does.
    np.testing.assert_array_equal(drawn(5, equal, n_steps=90)[2][59], whole[59])
    tree, rows, _ = drawn(5, equal)
    other = Batches(tree, 24, 60, rows=rows, equal=equal, seed=6)
    assert any((a != b).any() for a, b in zip(other, whole, strict=True))
    assert other.fingerprint != batches.fingerprint == again.fingerprint


def test_numbers_of_numpy_make_the_same_batches():
    tree = jc.ClusterTree.from_labels([np.array([0, 1, 1])])
    ours, numpys = Batches(tree, 2, 3, seed=5), Batches(tree, np.int64(2), 3, seed=np.int64(5))
    assert ours.fingerprint == numpys.fingerprint
    np.testing.assert_array_equal(list(ours), list(numpys))


@pytest.mark.parametrize("equal", ["rows", "clusters"])
def test_grain_reads_them_and_goes_on_where_it_was(equal):
    grain = pytest.importorskip("grain")
    _, _, batches = drawn(11, equal)
    images = np.random.default_rng(0).integers(0, 255, (200, 2)).astype(np.uint8)

    def begin():
        data = grain.MapDataset.source(batches).map(lambda rows: images[rows])
        return iter(data.to_iter_dataset())

    reader = begin()
    for step in range(20):
        np.testing.assert_array_equal(next(reader), images[batches[step]])
    state = json.loads(json.dumps(reader.get_state()))
    resumed = begin()
    resumed.set_state(state)
    for step in range(20, 60):
        np.testing.assert_array_equal(next(resumed), images[batches[step]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"n_steps": -1}, "n_steps=-1"),
        ({"equal": "points"}, "equal='points'; known: 'rows', 'clusters'"),
        ({"seed": -1}, "seed=-1"),
        ({"rows": np.array([], int)}, "rows is empty"),
        ({"rows": np.array([3])}, "rows names row 3"),
        ({"rows": np.array([1, 1])}, "1 is there twice"),
    ],
)
def test_bad_arguments_are_named(change, message):
    tree = jc.ClusterTree.from_labels([np.array([0, 1, 1])])
    with pytest.raises(ValueError, match=message):
        Batches(**({"tree": tree, "batch_size": 2, "n_steps": 3} | change))
    with pytest.raises(IndexError, match="step 3 of 3"):
        Batches(tree, 2, 3)[3]
