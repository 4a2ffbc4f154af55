"""Centroids split over the devices give the k-means of centroids that all devices have."""

import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.artifacts.tree import SurplusWarning
from jaxcurate.runtime.devices import Devices


def blobs(n, d, k, seed=0):
    rng = np.random.default_rng(seed)
    own = rng.integers(0, k, n)
    return (rng.normal(size=(k, d))[own] + 0.5 * rng.normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("mapper", ["shard_map", "pmap"])
def test_as_with_all_centroids_everywhere(metric, mapper):
    x = blobs(3000, 9, 40)
    options = dict(init=x[:50], max_iter=30, metric=metric, devices=Devices.first(4, mapper))
    whole = jc.kmeans(x, 50, **options)
    split = jc.kmeans(x, 50, **options, shard_centroids=True)  # 50 on four devices: two are padding
    np.testing.assert_array_equal(whole.labels, split.labels)
    np.testing.assert_allclose(whole.centroids, split.centroids, atol=1e-5)
    np.testing.assert_allclose(whole.distances, split.distances, atol=1e-5)
    assert whole.n_iter == split.n_iter > 3


def test_tight_clusters_far_apart_keep_their_neighbors():
    x = np.random.default_rng(0).normal(size=(1000, 8)) * 1e-4
    x[::2, 0] += 1
    x = x.astype(np.float32)
    found = jc.kmeans(x, 60, x[:60], 0, shard_centroids=True)
    exact = ((x[:, None].astype(np.float64) - found.centroids[None]) ** 2).sum(-1)
    assert (exact[np.arange(1000), found.labels] <= exact.min(1) * (1 + 1e-5)).all()


def test_empty_clusters_keep_their_centroids_and_the_first_of_equal_ones_wins():
    x = np.array([[0.0], [0], [1], [1]])
    with pytest.warns(SurplusWarning, match="1 of 4 clusters are empty"):
        found = jc.kmeans(x, 4, np.array([[0.0], [0], [1], [9]]), shard_centroids=True)
    np.testing.assert_array_equal(found.labels, [0, 0, 2, 2])
    np.testing.assert_array_equal(found.centroids, [[0], [0], [1], [9]])


def test_one_device():
    x = blobs(500, 3, 9)
    with_mesh = jc.kmeans(x, 20, x[:20], shard_centroids=True)
    devices = Devices.first(2)
    np.testing.assert_array_equal(
        with_mesh.labels, jc.kmeans(x, 20, x[:20], shard_centroids=True, devices=devices).labels
    )


def test_not_with_streaming_or_states():
    x = blobs(5000, 9, 40)
    with pytest.raises(ValueError, match="shard_centroids=True goes neither"):
        jc.kmeans(x, 5, memory_limit=20_000, shard_centroids=True)
    with pytest.raises(ValueError, match="shard_centroids=True goes neither"):
        jc.kmeans(x, 5, on_state=print, shard_centroids=True)
