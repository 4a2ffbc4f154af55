from unittest import mock

import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.curation import hierarchy
from jaxcurate.curation.hierarchy import closest_rows
from jaxcurate.kmeans import predict, splitting


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(1500, 3)), 5 + 0.1 * rng.normal(size=(500, 3))])


LEVELS = [jc.Level(60, n_resamples=3, n_per_cluster=5), jc.Level(10, 2, 2)]


@pytest.mark.parametrize("more", [(), (5, 5, 5)])
def test_any_number_of_levels_stand_on_each_other(x, more):
    tree = jc.hierarchical_kmeans(x, [*LEVELS, *map(jc.Level, more)])
    assert [level.centroids.shape for level in tree.levels] == [(k, 3) for k in (60, 10, *more)]
    below = x
    for level in tree.levels:
        squared = ((below[:, None] - level.centroids[None]) ** 2).sum(-1)
        own = squared[np.arange(len(below)), level.labels]
        np.testing.assert_allclose(own, squared.min(1), atol=1e-5)
        np.testing.assert_allclose(level.distances, own, atol=1e-5)
        below = level.centroids


@pytest.mark.parametrize("rounds", [{"n_resamples": 5}, {"n_per_cluster": 5}])
def test_resampling_is_off_without_rounds_or_points(x, rounds):
    plain = jc.hierarchical_kmeans(x, [jc.Level(30)])
    same = jc.hierarchical_kmeans(x, [jc.Level(30, **rounds)])
    np.testing.assert_array_equal(plain.levels[0].centroids, same.levels[0].centroids)


def test_random_rows_can_be_resampled(x):
    """Clusters give as many rows as with the closest, but other rows, chosen by the seed."""
    levels = [jc.Level(60, 3, 5, resample="random")]
    one, same, other = (jc.hierarchical_kmeans(x, levels, seed) for seed in (0, 0, 1))
    closest = jc.hierarchical_kmeans(x, LEVELS[:1])
    np.testing.assert_array_equal(one.levels[0].centroids, same.levels[0].centroids)
    for differs in (other, closest):
        assert not np.array_equal(one.levels[0].centroids, differs.levels[0].centroids)
    # Where every cluster gives all of its rows, there is nothing to choose.
    rows = np.arange(40)
    every = [
        jc.hierarchical_kmeans(x, [jc.Level(20, 2, 40, resample=how)], rows=rows).levels[0]
        for how in ("random", "closest")
    ]
    np.testing.assert_array_equal(every[0].centroids, every[1].centroids)


def test_progress_tells_every_run(x):
    told = []
    jc.hierarchical_kmeans(x, LEVELS, progress=lambda *step: told.append(step))
    assert told == [("level 1", i, 4) for i in range(5)] + [("level 2", i, 3) for i in range(4)]


def test_closest_rows_by_hand():
    labels = np.array([0, 1, 0, 0, 1, 3])
    distances = np.array([3.0, 1, 2, 2, 0, 9], np.float32)
    np.testing.assert_array_equal(closest_rows(labels, distances, 2), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(closest_rows(labels, distances, 1), [2, 4, 5])


def test_same_seed_same_bits_and_mappers_agree(x):
    levels = [jc.Level(30, 1, 5), jc.Level(5)]
    one = jc.hierarchical_kmeans(x, levels, seed=3)
    other = jc.hierarchical_kmeans(x, levels, seed=3, devices=jc.Devices.first(4, "pmap"))
    for a, b in zip(one.levels, other.levels, strict=True):
        for u, v in zip(a, b, strict=True):
            np.testing.assert_array_equal(u, v)
    different = jc.hierarchical_kmeans(x, levels, seed=4)
    assert not np.array_equal(one.levels[0].centroids, different.levels[0].centroids)


def test_splits(x):
    tree = jc.hierarchical_kmeans(x, [jc.Level(10, n_splits=4), jc.Level(5)])
    assert tree.n_clusters(1) == 40
    assert tree.levels[1].labels.shape == (40,)
    coarse = jc.hierarchical_kmeans(x, [jc.Level(10)])
    assert tree.levels[0].distances.sum() < 0.7 * coarse.levels[0].distances.sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": []}, "levels is empty"),
        ({"levels": [jc.Level(2001)]}, "level 1 asks for 2001 clusters, but there are only 2000"),
        ({"levels": [jc.Level(5), jc.Level(6)]}, "level 2 asks for 6 clusters"),
        ({"levels": [jc.Level(5)], "x": np.ones((3, 3, 3))}, "x must have two axes"),
        ({"levels": [jc.Level(5)], "metric": "dot"}, "metric='dot'; known: 'euclidean', 'cosine'"),
        ({"levels": [jc.Level(5)], "init": "first"}, "init='first'; known"),
        ({"levels": [jc.Level(5)], "max_iter": -1}, "max_iter=-1"),
        ({"levels": [jc.Level(5)], "seed": -1}, "seed=-1 must be within"),
        ({"levels": [jc.Level(5)], "seed": 2**32}, "seed=4294967296 must be within"),
        ({"levels": [jc.Level(5)], "memory_limit": 100}, "memory_limit=100 is too small"),
        ({"levels": [jc.Level(5)], "memory_limit": -1}, "memory_limit=-1 is too small"),
        ({"levels": [jc.Level(1)], "x": np.full((3, 3), np.nan)}, "x has a NaN"),
        ({"levels": [jc.Level(5)], "rows": np.arange(4)}, "5 clusters, but there are only 4 rows"),
        ({"levels": [jc.Level(5)], "rows": np.array([], int)}, "there are only 0 rows"),
        ({"levels": [jc.Level(5)], "rows": np.array([9])}, "there is only 1 row"),
        ({"levels": [jc.Level(1)], "rows": np.array([0, 2000])}, "rows names row 2000"),
        ({"levels": [jc.Level(1)], "rows": np.array([7, 7])}, "rows must be distinct, but 7"),
        ({"levels": [jc.Level(1)], "rows": np.ones(2000, bool)}, "rows must be whole numbers"),
        (
            {"levels": [jc.Level(1)], "rows": [0], "x": np.array([[0.0], [np.inf]])},
            "x has a NaN or an infinity, first in row 1",
        ),
    ],
)
def test_bad_input_is_named(x, change, message):
    with pytest.raises(ValueError, match=message):
        jc.hierarchical_kmeans(**({"x": x} | change))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_clusters": 0}, "n_clusters=0"),
        ({"n_clusters": 5.0}, "n_clusters=5.0 must be a whole number"),
        ({"n_clusters": 5, "n_resamples": -1}, "n_resamples=-1"),
        ({"n_clusters": 5, "n_per_cluster": -1}, "n_per_cluster=-1"),
        ({"n_clusters": 5, "n_splits": 0}, "n_splits=0"),
        ({"n_clusters": 5, "n_fit": -1}, "n_fit=-1"),
        ({"n_clusters": 5, "resample": "all"}, "resample='all'; known: 'closest', 'random'"),
        ({"n_clusters": 5, "n_splits": 2, "n_fit": 9}, "n_fit=9 rows cannot make 10 clusters"),
        ({"n_clusters": 5, "n_splits": 2, "n_resamples": 1, "n_per_cluster": 2}, "exclude"),
    ],
)
def test_bad_levels_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        jc.Level(**fields)


@pytest.mark.parametrize(
    "levels", [LEVELS, [jc.Level(9, n_splits=7), jc.Level(5)]], ids=["resampled", "split"]
)
def test_valid_rows_are_clustered_as_if_alone(x, levels):
    rows = np.random.default_rng(1).permutation(2000)[:900]
    tree = jc.hierarchical_kmeans(x, levels, rows=rows)
    alone = jc.hierarchical_kmeans(x[np.sort(rows)], levels)
    assert tree.n_points == 2000
    np.testing.assert_array_equal(tree.levels[0].centroids, alone.levels[0].centroids)
    np.testing.assert_array_equal(tree.levels[0].labels[np.sort(rows)], alone.levels[0].labels)
    for a, b in zip(tree.levels[1:], alone.levels[1:], strict=True):
        for u, v in zip(a, b, strict=True):
            np.testing.assert_array_equal(u, v)
    level = tree.levels[0]
    own = ((x - level.centroids[level.labels]) ** 2).sum(-1)
    np.testing.assert_allclose(level.distances, own, atol=1e-5)


def test_other_rows_join_the_nearest_centroid(x):
    rows = np.arange(0, 2000, 2)
    level = jc.hierarchical_kmeans(x, [jc.Level(60)], rows=rows).levels[0]
    squared = ((x[:, None] - level.centroids[None]) ** 2).sum(-1)
    np.testing.assert_allclose(squared[np.arange(2000), level.labels], squared.min(1), atol=1e-5)


def test_other_rows_join_the_nearest_part_of_the_nearest_cluster(x):
    """A split of the same rows with the same seed names the cluster of each part."""
    rows = np.arange(0, 2000, 2)
    coarse = jc.hierarchical_kmeans(x, [jc.Level(9)], rows=rows).levels[0]
    level = jc.hierarchical_kmeans(x, [jc.Level(9, n_splits=7)], rows=rows).levels[0]
    np.testing.assert_array_equal(level.labels // 7, coarse.labels)
    squared = ((x[:, None] - level.centroids[None]) ** 2).sum(-1)
    own_cluster = np.arange(63)[None] // 7 == coarse.labels[:, None]
    nearest = np.where(own_cluster, squared, np.inf).argmin(1)
    others = np.arange(1, 2000, 2)
    np.testing.assert_array_equal(level.labels[others], nearest[others])


def test_a_cluster_with_fewer_rows_than_parts():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(40, 2)), 50 + rng.normal(size=(12, 2))])
    rows = np.append(np.arange(40), [40, 41])  # the far cluster has two rows to be split in five
    level = jc.hierarchical_kmeans(x, [jc.Level(2, n_splits=5)], rows=rows).levels[0]
    assert len(level.centroids) == 7
    far = level.labels[40:]
    nearest = ((x[40:, None] - x[None, 40:42]) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(far, far[nearest])
    assert far[0] != far[1]


def test_a_level_is_fitted_on_rows_drawn_by_the_seed(x):
    levels = [jc.Level(60, 2, 5, n_fit=500), jc.Level(10, n_fit=30)]
    one, same, other = (jc.hierarchical_kmeans(x, levels, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.levels[1].labels, same.levels[1].labels)
    assert not np.array_equal(one.levels[0].centroids, other.levels[0].centroids)
    whole = jc.hierarchical_kmeans(x, [jc.Level(60, 2, 5), jc.Level(10)], 1)
    below = x
    for level, fitted_on_all in zip(one.levels, whole.levels, strict=True):
        squared = ((below[:, None] - level.centroids[None]) ** 2).sum(-1)
        own = squared[np.arange(len(below)), level.labels]
        np.testing.assert_allclose(own, squared.min(1), atol=1e-5)
        assert np.median(own) < 2 * np.median(fitted_on_all.distances)
        below = level.centroids
    plenty = jc.hierarchical_kmeans(x, [jc.Level(60, 2, 5, n_fit=2000), jc.Level(10)], 1)
    np.testing.assert_array_equal(plenty.levels[0].labels, whole.levels[0].labels)


def test_a_pool_on_disk_is_assigned_in_chunks(x, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    levels = [jc.Level(40, n_fit=300)]
    whole = jc.hierarchical_kmeans(mapped, levels)
    monkeypatch.setattr(predict, "_CHUNK_BYTES", 1)  # as few rows at a time as can be
    told = []
    chunked = jc.hierarchical_kmeans(mapped, levels, progress=lambda *step: told.append(step))
    np.testing.assert_array_equal(whole.levels[0].labels, chunked.levels[0].labels)
    assert told[:2] == [("level 1", 0, 1), ("level 1", 1, 1)]
    names, done, totals = zip(*told[2:], strict=True)
    assert set(names) == {"level 1: rows assigned"} and set(totals) == {len(x)}
    assert done[0] == 0 and done[-1] == len(x) and len(done) > 2 and list(done) == sorted(set(done))


STREAMED = {
    "rounds": ([jc.Level(12, 2, 300), jc.Level(5)], {}, 20_000),
    "splits": ([jc.Level(12, n_splits=9)], {"rows": np.arange(500, 12_000)}, 300_000),
    "cosine": (
        [jc.Level(30, 1, 9, n_fit=7000, resample="random"), jc.Level(9)],
        {"metric": "cosine", "init": "k-means||"},
        100_000,
    ),
}


@pytest.mark.parametrize(
    "case",
    ["rounds", *(pytest.param(case, marks=pytest.mark.slow) for case in ("cosine", "splits"))],
)
def test_what_does_not_fit_in_memory_streams(case, tmp_path):
    levels, options, limit = STREAMED[case]
    n, d = (6000, 2) if case == "rounds" else (12_000, 16)
    rng = np.random.default_rng(0)
    means = 9 * rng.normal(size=(40, d))
    labels = rng.choice(40, n, p=rng.dirichlet(np.full(40, 0.4)))
    x = (means[labels] + rng.normal(size=(n, d))).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    whole = jc.hierarchical_kmeans(x, levels, 3, max_iter=15, **options)
    made = dict.fromkeys((hierarchy, splitting), 0)

    def counted(module):
        def made_by(*arguments, of=module.stream_within):
            made[module] += 1
            return of(*arguments)

        return mock.patch.object(module, "stream_within", made_by)

    with counted(hierarchy), counted(splitting):
        streamed = jc.hierarchical_kmeans(
            mapped, levels, 3, max_iter=15, memory_limit=limit, **options
        )
    assert made[hierarchy] == {"rounds": 3, "splits": 1, "cosine": 1}[case]
    assert bool(made[splitting]) == (case == "splits")
    for one, other in zip(whole.levels, streamed.levels, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_allclose(one.centroids, other.centroids, rtol=1e-4, atol=1e-4)
        assert other.distances.sum() == pytest.approx(one.distances.sum(), rel=1e-4)


def test_a_limit_that_has_room_changes_no_bit(x):
    for levels in (LEVELS, [jc.Level(10, n_splits=4)]):
        whole = jc.hierarchical_kmeans(x, levels)
        limited = jc.hierarchical_kmeans(x, levels, memory_limit=10**6)
        for one, other in zip(whole.levels, limited.levels, strict=True):
            for u, v in zip(one, other, strict=True):
                np.testing.assert_array_equal(u, v)
