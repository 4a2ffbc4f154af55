import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate import parallel
from jaxcurate.hierarchy import closest_rows


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(1500, 3)), 5 + 0.1 * rng.normal(size=(500, 3))])


LEVELS = [jc.Level(60, n_resamples=3, n_per_cluster=5), jc.Level(10, 2, 2)]


def test_levels_stand_on_each_other(x):
    tree = jc.hierarchical_kmeans(x, LEVELS)
    assert [level.centroids.shape for level in tree.levels] == [(60, 3), (10, 3)]
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


def test_progress_tells_every_run(x):
    told = []
    jc.hierarchical_kmeans(x, LEVELS, progress=lambda *step: told.append(step))
    assert told == [("level 1", i, 4) for i in range(5)] + [("level 2", i, 3) for i in range(4)]


def test_closest_rows_by_hand():
    labels = np.array([0, 1, 0, 0, 1, 3])
    distances = np.array([3.0, 1, 2, 2, 0, 9], np.float32)
    np.testing.assert_array_equal(closest_rows(labels, distances, 2), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(closest_rows(labels, distances, 1), [2, 4, 5])


def test_same_seed_same_bits_and_mappers_agree(x, monkeypatch):
    one = jc.hierarchical_kmeans(x, LEVELS, seed=3)
    monkeypatch.setattr(parallel, "mapper", "pmap")
    other = jc.hierarchical_kmeans(x, LEVELS, seed=3)
    for a, b in zip(one.levels, other.levels, strict=True):
        for u, v in zip(a, b, strict=True):
            np.testing.assert_array_equal(u, v)
    different = jc.hierarchical_kmeans(x, LEVELS, seed=4)
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
        ({"levels": [jc.Level(1)], "x": np.full((3, 3), np.nan)}, "x has a NaN"),
    ],
)
def test_bad_input_is_named(x, change, message):
    with pytest.raises(ValueError, match=message):
        jc.hierarchical_kmeans(**({"x": x} | change))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_clusters": 0}, "n_clusters=0"),
        ({"n_clusters": 5, "n_resamples": -1}, "n_resamples=-1"),
        ({"n_clusters": 5, "n_per_cluster": -1}, "n_per_cluster=-1"),
        ({"n_clusters": 5, "n_splits": 0}, "n_splits=0"),
        ({"n_clusters": 5, "n_splits": 2, "n_resamples": 1, "n_per_cluster": 2}, "exclude"),
    ],
)
def test_bad_levels_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        jc.Level(**fields)
