import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.metrics.pairwise import cosine_distances

import jaxcurate as jc
from jaxcurate.artifacts.tree import SurplusWarning
from jaxcurate.kmeans import splitting
from jaxcurate.kmeans.assignment.exact import nearest
from jaxcurate.kmeans.fit import assign, seeded
from jaxcurate.kmeans.kernels.cluster_sums import (
    by_gathered_segments,
    by_one_hot,
    by_segments,
    by_windows,
)
from jaxcurate.kmeans.normalize import fit_normalizer
from jaxcurate.kmeans.rows import place
from jaxcurate.kmeans.seeding.plus_plus import n_candidates
from jaxcurate.kmeans.splitting import split_clusters
from jaxcurate.runtime.devices import ONE_DEVICE, Devices

labels_of = jax.jit(nearest, static_argnames="block")


def brute_force(x, centroids):
    """Squared distances [n, k] in float64."""
    return ((x.astype(np.float64)[:, None] - centroids.astype(np.float64)[None]) ** 2).sum(-1)


def blobs(n, d, k, seed=0, spread=0.1):
    rng = np.random.default_rng(seed)
    centroids = rng.normal(size=(k, d))
    own = rng.integers(0, k, n)
    return (centroids[own] + spread * rng.normal(size=(n, d))).astype(np.float32)


def assert_nearest(x, result, slack=1e-5):
    """Labels are the nearest centroids, up to ties that float32 cannot tell apart."""
    squared = brute_force(x, result.centroids)
    own = squared[np.arange(len(x)), result.labels]
    scale = (x.astype(np.float64) - x.mean(0, dtype=np.float64)).__pow__(2).sum(1).max() + 1e-300
    assert (own - squared.min(1) <= slack * scale).all()
    np.testing.assert_allclose(result.distances, own, atol=slack * scale, rtol=1e-3)


def test_nearest_is_the_first_of_equal_centroids():
    x = jnp.zeros((4, 2))
    centroids = jnp.array([[1.0, 0], [0, 1], [0, 1]])
    np.testing.assert_array_equal(labels_of(x, centroids, block=2), [0] * 4)


def test_nearest_against_float64():
    x, centroids = blobs(1024, 33, 9), blobs(200, 33, 50, seed=1)
    labels = labels_of(jnp.asarray(x), jnp.asarray(centroids), block=128)
    np.testing.assert_array_equal(labels, brute_force(x, centroids).argmin(1))


@pytest.mark.parametrize("way", [by_segments, by_gathered_segments, by_one_hot, by_windows])
@pytest.mark.parametrize("k", [1, 9, 700])
def test_cluster_sums_by_every_way(way, k):
    rng = np.random.default_rng(0)
    n = 2500
    x = rng.normal(size=(n, 5)).astype(np.float32)
    weights = (rng.random(n) < 0.8).astype(np.float32)
    labels = np.minimum(rng.geometric(min(1, 8 / k), n) - 1, k - 1).astype(
        np.int32
    )  # some are empty
    centroids = rng.normal(size=(k, 5)).astype(np.float32)
    sums, counts = jax.jit(way)(x, weights, labels, centroids)
    for c in range(k):
        rows = (labels == c) & (weights > 0)
        expected = (x[rows].astype(np.float64) - centroids[c]).sum(0)
        np.testing.assert_allclose(sums[c], expected, atol=1e-5 * np.sqrt(1 + rows.sum()) * 10)
        assert counts[c] == rows.sum()


def test_inertia_is_that_of_scikit_learn_from_the_same_start():
    x = blobs(5000, 16, 60, spread=0.5)
    start = x[np.random.default_rng(0).choice(len(x), 60, replace=False)]
    ours = jc.kmeans(x, 60, init=start, max_iter=300)
    theirs = SklearnKMeans(60, init=start, n_init=1, max_iter=300, tol=0).fit(x)
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-5)
    assert (ours.labels == theirs.labels_).mean() > 0.999
    np.testing.assert_allclose(ours.centroids, theirs.cluster_centers_, atol=1e-3)


def test_greedy_seeding_is_as_good_as_scikit_learn():
    x = blobs(4000, 8, 200)
    ours = [jc.kmeans(x, 200, seed=s).inertia for s in range(5)]
    theirs = [SklearnKMeans(200, n_init=1, random_state=s).fit(x).inertia_ for s in range(5)]
    assert np.mean(ours) <= 1.01 * np.mean(theirs)


def test_seeding_draws_by_squared_distance():
    # One draw a step (k = 2 has two candidates, of which the better one wins): with the points
    # 0, 1 and 3, given the first centroid, the chances follow by hand. Their distances are exact.
    rows = place(np.array([[0.0], [1.0], [3.0]], np.float32), ONE_DEVICE)
    assert n_candidates(2) == 2
    second = {0: [], 1: [], 3: []}
    for seed in range(600):
        first, other = np.asarray(seeded(rows, 2, "k-means++", jax.random.key(seed)))[:, 0]
        second[round(float(first))].append(round(float(other)))
    # From 0: candidates 1 (chance .1) and 3 (chance .9); 3 leaves 1, 1 leaves 4: only 1 twice.
    assert np.mean(np.array(second[0]) == 1) < 0.05
    # From 1: 0 with chance .2 and 3 with .8; 3 leaves 1, 0 leaves 4: 0 in a share .04.
    assert np.mean(np.array(second[1]) == 0) < 0.11
    # From 3: 0 with 9/13, 1 with 4/13; either leaves 1: the first candidate drawn wins the tie.
    assert 0.55 < np.mean(np.array(second[3]) == 0) < 0.83
    # The first centroid is uniform.
    assert min(map(len, second.values())) > 150


@pytest.mark.parametrize(
    ("init", "d"), [("k-means++", 6), ("k-means++", 48), ("k-means||", 6), ("random", 6)]
)
def test_all_devices_give_nearly_the_bits_of_one(init, d):
    x = blobs(3000, d, 25, spread=0.3)
    one = jc.kmeans(x, 25, init, seed=2, devices=Devices.first(2))
    four = jc.kmeans(x, 25, init, seed=2, devices=Devices.first(4))
    assert (one.labels == four.labels).mean() > 0.999
    assert one.inertia == pytest.approx(four.inertia, rel=1e-6)


def test_same_seed_same_bits():
    x = blobs(2000, 5, 20)
    a, b, c = (jc.kmeans(x, 20, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.centroids, b.centroids)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert not np.array_equal(a.centroids, c.centroids)


def test_stopping_early_is_running_on():
    x = blobs(2000, 5, 20)
    short, long = jc.kmeans(x, 20, max_iter=100), jc.kmeans(x, 20, max_iter=1000)
    assert short.n_iter == long.n_iter < 100
    np.testing.assert_array_equal(short.centroids, long.centroids)
    # Each centroid is the mean of its rows.
    for c in range(20):
        np.testing.assert_allclose(short.centroids[c], x[short.labels == c].mean(0), atol=1e-5)


def test_empty_cluster_keeps_its_centroid():
    x = blobs(500, 2, 3)
    start = np.concatenate([x[:3], [[1e3, 1e3]]]).astype(np.float32)
    result = jc.kmeans(x, 4, init=start)
    assert (result.labels != 3).all()
    np.testing.assert_allclose(result.centroids[3], [1e3, 1e3])


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + 300,
        lambda x: x * 1e-6,
        lambda x: x * 1e12,
        lambda x: x * 1e18,
        lambda x: np.repeat(x[:20], 50, axis=0),
        lambda x: np.concatenate([x, np.full((len(x), 2), 7.0)], axis=1),
        lambda x: x[:, :1],
    ],
    ids=["offset", "tiny", "large", "huge", "duplicates", "constant columns", "one column"],
)
def test_hard_numbers(change):
    x = np.asarray(change(blobs(1000, 6, 10, spread=0.3)), np.float32)
    result = jc.kmeans(x, 10, seed=0)
    assert_nearest(x, result)
    expected = SklearnKMeans(10, n_init=3, random_state=0).fit(x.astype(np.float64)).inertia_
    assert result.inertia <= 1.1 * expected + 1e-12 * float(np.square(x, dtype=np.float64).sum())


def test_offset_does_not_change_the_clustering():
    x = np.round(blobs(2000, 8, 12, spread=0.3), 3).astype(np.float64)
    near, far = jc.kmeans(x, 12), jc.kmeans(x + 1e6, 12)
    assert (near.labels == far.labels).mean() > 0.999


def test_more_clusters_than_distinct_rows():
    x = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    with pytest.warns(SurplusWarning, match="5 of 8 clusters are empty"):
        result = jc.kmeans(x, 8)
    assert result.inertia == 0
    assert len(np.unique(result.labels)) == 3
    assert result.centroids.shape == (8, 3)


def test_as_many_clusters_as_rows():
    x = blobs(50, 3, 50)
    result = jc.kmeans(x, 50)
    assert sorted(result.labels) == list(range(50))
    assert result.inertia < 1e-8


@pytest.mark.filterwarnings("ignore::jaxcurate.artifacts.tree.SurplusWarning")
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(1, 1, 1), (2, 1, 2), (9, 3, 2), (9, 3, 9)]).flatmap(  # each is compiled
        lambda shape: st.tuples(
            hnp.arrays(np.float32, shape[:2], elements=st.floats(-(2.0**99), 2.0**99, width=32)),
            st.just(shape[2]),
        )
    )
)
def test_odd_shapes_and_values(given):
    x, k = given
    result = jc.kmeans(x, k)
    assert result.centroids.shape == (k, x.shape[1])
    assert np.isfinite(result.centroids).all()
    assert result.labels.dtype == np.int32
    assert 0 <= result.labels.min() <= result.labels.max() < k
    span = (x.astype(np.float64) - x.mean(0, dtype=np.float64)).__abs__().max() ** 2 * x.shape[1]
    squared = brute_force(x, result.centroids)
    own = squared[np.arange(len(x)), result.labels]
    assert (own - squared.min(1) <= 1e-5 * span + 1e-300).all()


@pytest.mark.parametrize(
    ("init", "d"), [("k-means++", 7), ("k-means++", 48), ("k-means||", 7), ("random", 7)]
)
def test_streamed_is_as_in_memory(init, d, tmp_path):
    x = blobs(9000, d, 30, spread=0.3) + 5
    np.save(tmp_path / "x.npy", x)
    memory = jc.kmeans(x, 30, init, seed=4, max_iter=20)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    streamed = jc.kmeans(mapped, 30, init, seed=4, max_iter=20, memory_limit=28_600 * d)
    assert x.nbytes > 28_600 * d
    assert (memory.labels == streamed.labels).mean() > 0.999
    assert streamed.inertia == pytest.approx(memory.inertia, rel=1e-6)
    assert streamed.n_iter == memory.n_iter


def test_pool_and_array_are_clustered_alike():
    x = blobs(300, 4, 5)
    a, b = jc.kmeans(x, 5), jc.kmeans(jc.make_pool(x), 5)
    np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed=-1 must be within"),
        ({"seed": 2**32}, "seed=4294967296 must be within"),
        ({"x": np.array([[1.0, np.nan]])}, "x has a NaN or an infinity, first in row 0"),
        ({"x": np.array([[1.0], [np.inf]])}, "first in row 1"),
        ({"x": np.ones(4)}, "x must have two axes"),
        ({"x": np.ones((0, 4))}, "x is empty"),
        ({"x": np.array([["a"]])}, "x must hold real numbers"),
        ({"x": np.ones((2, 2), complex)}, "x must hold real numbers"),
        ({"n_clusters": 0}, "n_clusters=0"),
        ({"n_clusters": -3}, "n_clusters=-3"),
        ({"n_clusters": 11}, "n_clusters=11, but x has 10"),
        ({"max_iter": -1}, "max_iter=-1"),
        ({"init": "kmeans"}, "init='kmeans'"),
        ({"init": np.ones((3, 2))}, "init has shape"),
        ({"init": np.full((2, 2), np.nan)}, "init has a NaN"),
        ({"memory_limit": 10}, "memory_limit=10 is too small"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"x": np.random.default_rng(0).normal(size=(10, 2)), "n_clusters": 2} | change
    with pytest.raises(ValueError, match=message):
        jc.kmeans(**given)


def test_splits_stay_inside_their_cluster():
    x = blobs(3000, 4, 12, spread=0.5)
    normalizer = fit_normalizer(x)
    whole = jc.kmeans(x, 12)
    centroids, labels, distances = split_clusters(
        normalizer.transform(x), whole.labels, 5, jax.random.key(0), 50
    )
    assert len(centroids) == labels.max() + 1 == 60
    parents = np.full(60, -1)
    parents[labels] = whole.labels
    np.testing.assert_array_equal(parents[labels], whole.labels)
    assert distances.sum() * normalizer.scale**2 < 0.8 * whole.inertia
    inside = normalizer.transform(x)
    np.testing.assert_allclose(distances, ((inside - centroids[labels]) ** 2).sum(1), rtol=1e-4)
    # Each part is as good as a k-means of the cluster alone.
    for cluster in range(3):
        rows = whole.labels == cluster
        alone = SklearnKMeans(5, n_init=3, random_state=0).fit(inside[rows]).inertia_
        assert distances[rows].sum() < 1.15 * alone


def test_splits_have_the_same_bits_on_more_devices(monkeypatch):
    """Six stacks, of clusters of two sizes, are given to one device and to four."""
    monkeypatch.setattr(splitting, "_STACK_ROWS", 128)
    x = blobs(23 * 30, 3, 23)
    labels = np.repeat(np.arange(23, dtype=np.int32), 30)
    labels[:90] = 0
    turns: dict[int, list[int]] = {1: [], 4: []}
    one, four = (
        split_clusters(
            x,
            labels,
            4,
            jax.random.key(0),
            5,
            Devices.first(n),
            on_splits=lambda splits, n_stacks, n=n: turns[n].append(splits.n_stacks),
        )
        for n in (1, 4)
    )
    assert turns == {1: [1, 2, 3, 4, 5, 6], 4: [4, 6]}
    for array, other in zip(one, four, strict=True):
        np.testing.assert_array_equal(array, other)


def test_splitting_a_small_cluster_gives_its_rows():
    x = np.arange(6, dtype=np.float32)[:, None]
    centroids, labels, distances = split_clusters(
        x, np.array([0, 0, 1, 1, 1, 1], np.int32), 3, jax.random.key(0), 10
    )
    assert len(centroids) == 5
    assert set(labels[:2]) == {0, 1}
    assert set(labels[2:]) == {2, 3, 4}
    assert (distances[:2] == 0).all()


def test_assign_pads_nothing_into_the_result():
    x = blobs(17, 2, 3)
    labels, distances = assign(place(x, Devices.all()), x[:3])
    assert labels.shape == distances.shape == (17,)
    np.testing.assert_array_equal(labels, brute_force(x, x[:3]).argmin(1))


@pytest.mark.parametrize("memory_limit", [None, 200_000])
def test_cosine_is_scikit_learn_on_normalized_rows(memory_limit):
    x = blobs(4000, 12, 30, spread=0.4) * np.random.default_rng(1).lognormal(size=(4000, 1))
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    start = x[:40]
    only_assigned = jc.kmeans(x, 40, start, 0, metric="cosine", memory_limit=memory_limit)
    np.testing.assert_array_equal(
        only_assigned.labels, cosine_distances(x.astype(np.float64), start).argmin(1)
    )
    result = jc.kmeans(x, 40, start, 100, metric="cosine", memory_limit=memory_limit)
    np.testing.assert_allclose(np.linalg.norm(result.centroids, axis=1), 1, atol=1e-6)
    cosine = cosine_distances(x.astype(np.float64), result.centroids.astype(np.float64))
    np.testing.assert_array_equal(result.labels, cosine.argmin(1))
    np.testing.assert_allclose(result.distances, 2 * cosine.min(1), atol=1e-5)
    # Each centroid is the direction of its rows' mean: a fixed point of spherical k-means.
    for c in range(40):
        mean = unit[result.labels == c].astype(np.float64).mean(0)
        np.testing.assert_allclose(result.centroids[c], mean / np.linalg.norm(mean), atol=1e-5)
    theirs = SklearnKMeans(40, init=unit[:40], n_init=1, max_iter=100, tol=0).fit(unit)
    directions = theirs.cluster_centers_ / np.linalg.norm(
        theirs.cluster_centers_, axis=1, keepdims=True
    )
    inertia = 2 * cosine_distances(x, directions).min(1).sum()
    assert result.inertia <= 1.01 * inertia  # theirs has the means themselves in mind


def test_cosine_wants_directions():
    x = blobs(20, 3, 2)
    x[7] = 0
    with pytest.raises(ValueError, match="x has no direction in row 7"):
        jc.kmeans(x, 2, metric="cosine")
    with pytest.raises(ValueError, match="metric='manhattan'; known: 'euclidean', 'cosine'"):
        jc.kmeans(x, 2, metric="manhattan")
    huge = np.full((3, 4), 1e300)  # squares overflow
    assert (jc.kmeans(huge, 1, metric="cosine").distances < 1e-6).all()


def test_cosine_hierarchy_does_not_see_lengths():
    x = blobs(900, 6, 9)
    levels = [jc.Level(60, n_resamples=2, n_per_cluster=4), jc.Level(8, n_splits=2)]
    a = jc.hierarchical_kmeans(x, levels, metric="cosine")
    b = jc.hierarchical_kmeans(
        x * 2.0 ** np.arange(900)[:, None].clip(0, 20), levels, metric="cosine"
    )
    for one, other in zip(a.levels, b.levels, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_allclose(np.linalg.norm(one.centroids, axis=1), 1, atol=1e-6)
