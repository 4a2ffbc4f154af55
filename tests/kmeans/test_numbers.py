"""Numbers that float32, a type or a count could lose, held against float64 brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import jaxcurate as jc
from jaxcurate.artifacts.pool import Block, write_pool
from jaxcurate.artifacts.tree import SurplusWarning, n_surplus
from jaxcurate.checks import faults_of, joined
from jaxcurate.curation.baselines import sample_uniform
from jaxcurate.curation.dedup import deduplicate
from jaxcurate.curation.growth import grow
from jaxcurate.kmeans.kernels.cluster_sums import (
    Total,
    by_gathered_segments,
    by_one_hot,
    by_segments,
    by_windows,
    halves,
    over_devices,
    whole,
)
from jaxcurate.kmeans.normalize import fit_normalizer
from jaxcurate.kmeans.seeding.d2_draws import draw_blocks, sum_of_blocks
from jaxcurate.kmeans.splitting import split_clusters
from jaxcurate.neighbors.nearest_rows import nearest_rows
from jaxcurate.runtime.devices import SAME, Devices
from jaxcurate.sources import read_items
from jaxcurate.sources.arrays import ArraySource

BFLOAT16 = np.dtype(jnp.bfloat16)
TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", BFLOAT16]
WAYS = [by_segments, by_gathered_segments, by_one_hot, by_windows]


def means_of(x, labels, k):
    """Float64 means ``[k, d]`` of the clusters; NaN where one is empty."""
    counts = np.bincount(labels, minlength=k)
    columns = [np.bincount(labels, column, k) for column in x.astype(np.float64).T]
    with np.errstate(invalid="ignore"):
        return np.stack(columns, axis=1) / counts[:, None]


def two_groups(n, d=1, apart=49.9, noise=1.0, seed=0):
    """Rows at -49.9, then rows at 49.9: the sum grows as far as it can before it falls."""
    x = np.where(np.arange(n) < n // 2, -apart, apart)[:, None]
    return (x + noise * np.random.default_rng(seed).normal(size=(n, d))).astype(np.float32)


# Sums.


def test_the_rounding_error_of_an_addition_is_kept():
    """What XLA makes of it must not be the sum alone, with the error taken for zero."""
    start = Total(jnp.ones(3), jnp.zeros(3))
    add = lambda total: jax.lax.fori_loop(0, 1000, lambda _, t: t.plus(2.0**-30), total)
    for total in (jax.jit(add)(start), jax.jit(jax.vmap(add))(start)):
        np.testing.assert_array_equal(total.high, 1)
        np.testing.assert_array_equal(total.low, 1000 * 2.0**-30)


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize(("n", "k"), [(60_000, 1), (100_000, 300)])
@pytest.mark.parametrize("way", WAYS)
def test_sums_of_two_groups(way, n, k, noise):
    # Nearly all rows are in one cluster, far from its centroid.
    x = two_groups(n, noise=noise) / 64
    labels = np.where(np.random.default_rng(1).random(n) < 0.9, 0, np.arange(n) % k)
    weights = (np.arange(n) % 7 > 0).astype(np.float32)
    centroids = np.full((k, 1), x[0, 0])
    sums, counts = jax.jit(way)(x, weights, labels.astype(np.int32), centroids)
    kept = weights > 0
    np.testing.assert_array_equal(counts, np.bincount(labels[kept], minlength=k))
    exact = np.bincount(labels[kept], (x.astype(np.float64) - centroids[0])[kept, 0], k)
    # Of a mean, beside numbers near 1.
    np.testing.assert_allclose(sums[:, 0] / counts, exact / np.asarray(counts), atol=2e-5)


def test_counts_beyond_what_float32_counts():
    n = 2**24 + 2**19 + 5
    x, labels = np.zeros((n, 1), np.float32), np.zeros(n, np.int32)
    ones, centroid = np.ones(n, np.float32), np.zeros((1, 1), np.float32)
    _, counts = jax.jit(by_gathered_segments)(x, ones, labels, centroid)
    assert counts.tolist() == [n]


@pytest.mark.parametrize("way", WAYS)
def test_counts_go_on_from_what_float32_counts(way):
    """XLA might make one count of those of all blocks; in whole numbers that is no matter."""
    x, labels, ones = jnp.zeros((9000, 1)), jnp.zeros(9000, jnp.int32), jnp.ones(9000)
    counts = jax.eval_shape(way, x, ones, labels, jnp.zeros((1, 1)))[1]
    assert counts.dtype == jnp.int32


def test_counts_of_all_devices_beyond_int32(devices):
    counts = jnp.asarray([2**31 - 1, 2**30 + 3, 5, 0], jnp.int32)
    np.testing.assert_array_equal(whole(halves(counts)), np.asarray(counts).astype(np.float32))
    add = lambda sums, counts, axis_name: over_devices(sums, counts, axis_name)
    kernel = devices.spmd(add, (SAME, SAME), (SAME, SAME))
    sums, many = kernel(jnp.ones((4, 2)), counts)
    np.testing.assert_array_equal(sums, 4)
    np.testing.assert_array_equal(many, (4 * np.asarray(counts, np.int64)).astype(np.float32))


WAYS_TO_FIT = {
    "four devices": lambda: dict(devices=Devices.first(4)),
    "streamed": lambda: dict(memory_limit=300_000),
    "split centroids": lambda: dict(shard_centroids=True),
}


@pytest.mark.parametrize("how", WAYS_TO_FIT)
def test_means_of_two_groups_are_right(how):
    x = two_groups(100_000, noise=0.01)
    far = np.array([[-49.0], [-48.0], [500.0]])  # the first iteration moves the second far
    result = jc.kmeans(x, 3, init=far, max_iter=1, **WAYS_TO_FIT[how]())
    first = np.abs(x.astype(np.float64) - far.T).argmin(axis=1)
    np.testing.assert_allclose(result.centroids[:2], means_of(x, first, 3)[:2], atol=2e-5)


def test_means_of_two_groups_are_right_after_a_stop():
    x = two_groups(20_000)
    start, states = np.array([[-49.0], [-48.0]]), []
    jc.kmeans(x, 2, init=start, on_state=states.append, state_every=1)
    result = jc.kmeans(x, 2, init=start, state=states[0])
    np.testing.assert_allclose(result.centroids, means_of(x, result.labels, 2), atol=2e-5)


def test_splits_of_two_groups_are_right():
    x = two_groups(40_000)
    normalizer = fit_normalizer(x)
    centroids, labels, _ = split_clusters(
        normalizer.transform(x), np.zeros(len(x), np.int32), 2, jax.random.key(0), 10
    )
    np.testing.assert_allclose(
        normalizer.inverse_transform(centroids), means_of(x, labels, 2), atol=2e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("n_devices", [1, 4])
def test_the_mean_of_more_rows_than_float32_counts(n_devices):
    x = np.random.default_rng(0).normal(3, 1, size=(17_300_000, 1)).astype(np.float32)
    result = jc.kmeans(x, 1, devices=Devices.first(n_devices))
    np.testing.assert_allclose(result.centroids[0], x.mean(dtype=np.float64), atol=1e-6)
    x = two_groups(1_000_000)
    result = jc.kmeans(x, 1, devices=Devices.first(n_devices))
    np.testing.assert_allclose(result.centroids[0], x.mean(dtype=np.float64), atol=1e-4)


def test_sums_of_blocks_are_not_one_after_another():
    sums = np.full((300_000, 2), 0.1, np.float32)
    exact = sums.sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(jax.jit(sum_of_blocks)(sums), exact, rtol=3e-6)
    few = np.random.default_rng(0).random((300, 2), np.float32)
    np.testing.assert_array_equal(
        jax.jit(sum_of_blocks)(few), jax.jit(lambda a: jnp.sum(a, axis=0))(few)
    )


def test_draws_reach_every_row_of_many():
    """A uniform float32 is a multiple of 2**-23: by itself it could reach one row in 32."""
    block, n_blocks, n_draws = 2**14, 2**14, 4096
    sums = jnp.full(n_blocks, float(block))
    chosen, rest, chances = draw_blocks(jax.random.key(0), n_draws, sums, block)
    within = np.asarray(rest) / block
    assert 0 <= within.min() < 0.01
    assert 0.99 < within.max() < 1
    assert len(np.unique(np.floor(within * 512))) > 500  # 512 points would lie in a block
    assert len(np.unique(within)) > 4000
    assert len(np.unique(chosen)) > 3000
    assert 0 <= np.min(chances) <= np.max(chances) < 1


# Types.


def rows_of(dtype, n=300, d=5, seed=0):
    """Rows that the type holds, its least and its largest small number among them."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    centroids = rng.integers(0 if dtype.kind == "u" else -90, 91, size=(6, d))
    x = centroids[rng.integers(0, 6, n)] + rng.integers(0, 5, size=(n, d))
    x[0] = 0 if dtype.kind == "u" else -128
    x[0, 0] = 100
    return np.clip(x, 0, None).astype(dtype) if dtype.kind == "u" else x.astype(dtype)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_is_clustered_as_float64(dtype, metric):
    x = rows_of(dtype)
    wide = x.astype(np.float64)
    result = jc.kmeans(x, 6, metric=metric)
    np.testing.assert_array_equal(result.labels, jc.kmeans(wide, 6, metric=metric).labels)
    if metric == "cosine":
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    squared = ((wide[:, None] - result.centroids[None].astype(np.float64)) ** 2).sum(-1)
    np.testing.assert_allclose(result.distances, squared.min(axis=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_goes_everywhere(dtype, tmp_path):
    x = rows_of(dtype)
    wide = x.astype(np.float32)
    levels = [jc.Level(6)]
    tree, expected = (jc.hierarchical_kmeans(a, levels, metric="cosine") for a in (x, wide))
    np.testing.assert_array_equal(tree.levels[0].labels, expected.levels[0].labels)
    np.testing.assert_array_equal(
        grow(tree, x[:50]).levels[0].labels, grow(tree, wide[:50]).levels[0].labels
    )
    np.testing.assert_array_equal(deduplicate(x).kept, deduplicate(wide).kept)
    np.testing.assert_array_equal(jc.make_pool(x).embeddings, wide)
    found, near = (nearest_rows(a, a[:3], 4) for a in (x, wide))
    np.testing.assert_array_equal(found.rows, near.rows)
    np.testing.assert_array_equal(found.distances, near.distances)
    # numpy stores bfloat16 as two bytes of unknown meaning.
    np.save(tmp_path / "x.npy", x)
    source = ArraySource(tmp_path / "x.npy")
    np.testing.assert_array_equal(source.read_block(np.arange(3, 9))[1], wide[3:9])
    np.testing.assert_array_equal(source.read(7).content, wide[7])
    assert len(source.fingerprint) == 64
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(jc.kmeans(stored, 6).labels, jc.kmeans(wide, 6).labels)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.int8])
def test_arrays_of_jax_are_taken(dtype):
    x = jnp.asarray(rows_of(np.float32), dtype)
    np.testing.assert_array_equal(
        jc.kmeans(x, 6).labels, jc.kmeans(np.asarray(x, np.float64), 6).labels
    )


def test_the_least_int8_has_its_direction():
    x = np.array([[-128, 0], [-127, 0], [127, 0], [0, -128]], np.int8)
    unit = fit_normalizer(x, metric="cosine").transform(x)
    np.testing.assert_array_equal(unit, [[-1, 0], [-1, 0], [1, 0], [0, -1]])


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(TYPES),
    shape=st.tuples(st.sampled_from([1, 2, 33]), st.sampled_from([1, 3, 17])),
    metric=st.sampled_from(["euclidean", "cosine"]),
    data=st.data(),
)
def test_frames_of_any_type_and_shape(dtype, shape, metric, data):
    dtype = np.dtype(dtype)
    seed = data.draw(st.integers(0, 2**16))
    whole = dtype.kind in "iu"
    span = np.iinfo(dtype) if whole else jnp.finfo(dtype)
    low, high = max(float(span.min), -1e38), min(float(span.max), 1e38)
    size = 10.0 ** -data.draw(st.integers(0, 2 if whole else 4))
    x = np.random.default_rng(seed).uniform(low * size, high * size, shape).astype(dtype)
    x[0, 0] = span.min if whole else 1
    x[:, -1] += (x == 0).all(axis=1).astype(dtype)
    wide = x.astype(np.float64)
    normalizer = fit_normalizer(x, metric=metric)
    inside = normalizer.transform(x)
    if metric == "cosine":
        np.testing.assert_allclose(
            inside, wide / np.linalg.norm(wide, axis=1, keepdims=True), rtol=1e-6, atol=1e-7
        )
    else:
        assert np.abs(inside).max() <= 1
        np.testing.assert_allclose(inside, (wide - normalizer.mean) / normalizer.scale, rtol=1e-6)
        np.testing.assert_allclose(
            normalizer.inverse_transform(inside), wide, rtol=1e-6, atol=1e-6 * normalizer.scale
        )


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.sampled_from([1.0, 0.0, np.nan, np.inf, -np.inf, 1e39, -1e300]), max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=4),
)
def test_faults_are_counted_over_all_parts(rows, cuts):
    x = np.array(rows)[:, None].reshape(-1, 1)
    numbers = np.arange(len(x)) * 3
    parts = np.split(np.arange(len(x)), sorted(min(cut, len(x)) for cut in cuts))
    found = joined([faults_of(x[part], numbers[part], zeros=True) for part in parts])
    expected = (
        ~np.isfinite(x[:, 0]),
        np.isfinite(x[:, 0]) & (np.abs(x[:, 0]) > 1e38),
        x[:, 0] == 0,
    )
    for (total, *first), flags in zip(found.tolist(), expected, strict=True):
        assert total == flags.sum()
        shown = numbers[flags][:5].tolist()
        assert first[: len(shown)] == shown


# Rows that cannot be used.


GROWN = jc.ClusterTree((jc.TreeLevel(np.eye(3, dtype=np.float32), np.arange(3), np.zeros(3)),))


def takers(tmp_path):
    """Everything that takes rows, by what errors call them."""
    blocks = lambda x: [Block(x, np.array([str(i) for i in range(len(x))]), np.arange(len(x)))]
    return {
        "kmeans": lambda x: jc.kmeans(x, 2),
        "hierarchical_kmeans": lambda x: jc.hierarchical_kmeans(x, [jc.Level(2)]),
        "make_pool": jc.make_pool,
        "write_pool": lambda x: write_pool(tmp_path / "pool", blocks(x), dict),
        "nearest_rows": lambda x: nearest_rows(x, np.ones((1, 3)), 1),
        "grow": lambda x: grow(GROWN, x),
    }


@pytest.mark.parametrize("name", takers(None))
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "has a NaN or an infinity"), (1e39, "has a number beyond")]
)
def test_faulty_rows_are_told_of_together(name, value, message, tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[[3, 5, 7, 11, 13, 17, 19], 1] = value
    expected = rf"{message}.*, first in row 3, then 5, 7, 11, 13: 7 rows (in all|so far)"
    with pytest.raises(ValueError, match=expected):
        takers(tmp_path)[name](x)
    x[4:, 1] = 0
    with pytest.raises(ValueError, match=rf"{message}.*, first in row 3$"):
        takers(tmp_path)[name](x)


def test_numbers_beyond_float32_in_a_file(tmp_path):
    x = np.ones((9, 2))
    x[[4, 6], 1] = 1e300, -1e39
    np.save(tmp_path / "x.npy", x)
    source = ArraySource(tmp_path / "x.npy")
    reading = read_items(source, batch_size=5)
    rows = np.concatenate([batch.rows for batch in reading])
    np.testing.assert_array_equal(rows, [0, 1, 2, 3, 5, 7, 8])
    left_out = [(row, reason) for row, _, reason in reading.unreadable]
    assert left_out == [(row, "has a NaN or an infinity as float32") for row in (4, 6)]
    with pytest.raises(ValueError, match=r"'4'.*as float32"):
        list(read_items(source, batch_size=5, strict=True))
    np.testing.assert_array_equal(source.read(5).content, 1)


def test_numbers_as_large_as_float32_holds():
    most = float(np.finfo(np.float32).max)
    x = np.full((300, 5), most)
    x[::2, 0] = -most
    x[::3, 1] = 0
    x[::5, 2] = -most / 2
    result = jc.kmeans(x, 6)
    expected = jc.kmeans(x / most, 6)
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_allclose(result.centroids / most, expected.centroids, atol=1e-6)
    assert np.isfinite(result.centroids).all()


def test_directions_of_any_length():
    """Their lengths are nothing to the cosine, be they beyond float32 or their squares nothing."""
    directions = np.random.default_rng(0).normal(size=(300, 5))
    lengths = 10.0 ** np.random.default_rng(1).uniform(-300, 300, size=(300, 1))
    a, b = (jc.kmeans(x, 6, metric="cosine") for x in (directions, directions * lengths))
    np.testing.assert_array_equal(a.labels, b.labels)
    small = directions * np.minimum(lengths, 1e37)
    a, b = (nearest_rows(x, x[:3], 4) for x in (directions, small))
    np.testing.assert_array_equal(a.rows, b.rows)
    np.testing.assert_allclose(a.distances, b.distances, atol=1e-6)


def test_numbers_so_small_that_their_reciprocal_is_none():
    x = np.random.default_rng(0).integers(0, 2, size=(40, 5)) * 5e-324
    normalizer = fit_normalizer(x)
    inside = normalizer.transform(x)
    assert np.isfinite(inside).all()
    np.testing.assert_array_equal(normalizer.inverse_transform(inside), 0)


def test_given_centroids_must_be_within_reach():
    x = np.random.default_rng(0).normal(size=(20, 2)) * 1e-20
    with pytest.raises(ValueError, match="init lies too far from x"):
        jc.kmeans(x, 2, init=np.full((2, 2), 1e30))
    with pytest.raises(ValueError, match="init has a number beyond float32"):
        jc.kmeans(x, 2, init=np.full((2, 2), 1e40))


# More clusters than distinct rows.


def test_fewer_distinct_rows_than_clusters_is_said():
    x = np.repeat(np.eye(5), 60, axis=0)
    with pytest.warns(SurplusWarning, match="k-means: 1 of 6 clusters are empty, because there"):
        result = jc.kmeans(x, 6)
    assert result.n_surplus == 1
    with pytest.warns(SurplusWarning, match="level 1: 1 of 6"):
        tree = jc.hierarchical_kmeans(x, [jc.Level(6)])
    assert tree.surplus == {"level 1": (1, 6)}
    (line,) = tree.surplus_lines()
    assert line.startswith("level 1: 1 of 6 clusters are empty")
    quiet = jc.hierarchical_kmeans(x, [jc.Level(6)], progress=lambda *done: None)
    assert quiet.n_surplus(1) == 1


def test_an_empty_cluster_of_its_own_is_not_surplus():
    centroids = np.array([[9, 9], [0, 1], [-0.0, 1], [2, 3], [9, 9], [9, 9]], np.float32)
    assert n_surplus(centroids, np.array([0, 1])) == 3  # the fourth is where no other is
    assert n_surplus(centroids, np.array([3, 4])) == 3
    assert n_surplus(centroids, np.arange(6)) == 0
    labels = jc.ClusterTree.from_labels([np.array([0, 2, 2])])
    assert labels.n_surplus(1) == 0
    assert labels.surplus_lines() == []


# Arguments of the wrong type.

X = np.random.default_rng(0).normal(size=(12, 2))
FLAT = jc.KMeansResult(X[:3], np.arange(12) % 3, np.zeros(12), 1)
MASKED = np.ma.masked_array(X, X > 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jc.hierarchical_kmeans(X, [6, 3]), r"levels\[0\] must be a Level, not int; "),
        (lambda: jc.hierarchical_kmeans(X, 6), "levels must be a list of Level, not 6"),
        (lambda: jc.hierarchical_kmeans(X, jc.Level(6)), "levels must be a list of Level, not"),
        (lambda: jc.hierarchical_kmeans(X, [jc.Level(6)], init=X[:6]), "init=<ndarray>; known"),
        (lambda: jc.hierarchical_kmeans(X, [jc.Level(6)], max_iter="3"), "max_iter='3' must be a"),
        (lambda: jc.hierarchical_kmeans(X, [jc.Level(6)], metric=None), "metric=None; known: 'e"),
        (
            lambda: jc.hierarchical_kmeans(X, [jc.Level(6)], memory_limit="1G"),
            "memory_limit='1G' must be a whole number",
        ),
        (lambda: jc.Level("6"), "n_clusters='6' must be a whole number"),
        (lambda: jc.Level(6, resample=1), "resample=1; known: 'closest', 'random'"),
        (lambda: jc.kmeans(X, "8"), "n_clusters='8' must be a whole number"),
        (lambda: jc.kmeans(X, 8.0), "n_clusters=8.0 must be a whole number"),
        (lambda: jc.kmeans(X, True), "n_clusters=True must be a whole number"),
        (lambda: jc.kmeans(X, 3, max_iter="3"), "max_iter='3' must be a whole number"),
        (lambda: jc.kmeans(X, 3, metric="l2"), "metric='l2'; known: 'euclidean', 'cosine'"),
        (lambda: jc.kmeans(X, 3, metric=["cosine"]), r"metric=\['cosine'\]; known"),
        (lambda: jc.kmeans(X, 3, seed=1.5), "seed=1.5 must be a whole number"),
        (lambda: jc.kmeans(X, 3, seed="1"), "seed='1' must be a whole number"),
        (lambda: jc.kmeans(X, 3, memory_limit="1G"), "memory_limit='1G' must be a whole number"),
        (lambda: jc.kmeans(X, 3, state_every=0.5), "state_every=0.5 must be a whole number"),
        (lambda: jc.kmeans(X, 3, init=None), "init must be an array of real numbers, not None"),
        (lambda: jc.kmeans(X, 3, init=5), r"init has shape \(\)"),
        (lambda: jc.kmeans(X, 3, init=["a", "b", "c"]), "init must hold real numbers, not <U1"),
        (lambda: jc.kmeans(None, 3), "x must be an array of real numbers, not NoneType"),
        (lambda: jc.kmeans(sparse.csr_array(X), 3), r"x is a sparse matrix; x.toarray\(\)"),
        (lambda: jc.kmeans(MASKED, 3), "x has masked entries"),
        (lambda: jc.kmeans([[1.0, 2.0], [3.0]], 1), "x is no array of numbers"),
        (lambda: jc.kmeans(X > 0, 3), "x must hold real numbers, not bool"),
        (lambda: jc.kmeans(X.astype(complex), 3), "x must hold real numbers, not complex128"),
        (lambda: jc.kmeans(X.astype(object), 3), "x must hold real numbers, not object"),
        (lambda: jc.kmeans(X.astype(str), 3), "x must hold real numbers, not <U"),
        (lambda: jc.make_pool(X.astype(str)), "embeddings must hold real numbers, not <U"),
        (lambda: jc.make_pool(X > 0), "embeddings must hold real numbers, not bool"),
        (lambda: deduplicate(X > 0), "x must hold real numbers, not bool"),
        (lambda: deduplicate(X, "0.9"), "threshold='0.9' must be above 0"),
        (lambda: nearest_rows(X, X[:2], "3"), "n_per_query='3' must be a whole number"),
        (lambda: jc.sample(FLAT, 5), "tree must be a ClusterTree, not KMeansResult; Cl"),
        (lambda: jc.sample(None, 5), "tree must be a ClusterTree, not NoneType$"),
        (lambda: sample_uniform(X, 5), "tree must be a ClusterTree, not ndarray$"),
        (lambda: grow(FLAT, X), "tree must be a ClusterTree, not KMeans"),
        (lambda: jc.sample(TREE, "50"), "size='50' must be a whole number"),
        (lambda: jc.sample(TREE, 5, 1), "strategy=1; known: 'random', 'closest'"),
        (lambda: jc.sample(TREE, 2, seed=1.5), "seed=1.5 must be a whole number"),
        (lambda: jc.allocate([3.0, 1.0], 2), "capacities must be whole numbers"),
        (lambda: jc.allocate({1: 2}, 2), "capacities must be whole numbers"),
        (lambda: jc.allocate(["3"], 2), "capacities must be whole numbers"),
        (lambda: jc.allocate([3, 1], 2.0), "size=2.0 must be a whole number"),
        (lambda: jc.allocate([2**62, 2**62], 2**63), "must be at most .* for 2 capacities"),
        (lambda: TREE.point_counts("1"), "level='1' must be a whole number"),
    ],
)  # fmt: skip
def test_wrong_types_are_told_in_one_line(call, message):
    with pytest.raises(jc.checks.InputError, match=message) as told:
        call()
    assert "\n" not in str(told.value)


TREE = jc.ClusterTree.from_labels([np.array([0, 0, 1, 2])])


def test_what_numpy_makes_an_array_of_is_taken():
    whole = np.round(X * 10)
    expected = jc.kmeans(whole, 3).labels
    for given_as in (whole.tolist(), np.ma.masked_array(whole), np.asfortranarray(whole)):
        np.testing.assert_array_equal(jc.kmeans(given_as, 3).labels, expected)
    assert jc.make_pool(whole.tolist()).embeddings.dtype == np.float32


def test_capacities_of_any_whole_type():
    for dtype in ("i1", "u1", "u4", "i8", "u8"):
        assert jc.allocate(np.array([3, 0, 100], dtype), 1000).tolist() == [3, 0, 100]
    assert jc.allocate(np.array([2**63 + 5, 4], np.uint64), 10).tolist() == [6, 4]
    assert jc.allocate([3, 4], 10**30).tolist() == [3, 4]
