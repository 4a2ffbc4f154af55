"""The few nearest centroids against float64 brute force."""

import numpy as np
import pytest

from jaxcurate.kmeans.few import nearest_few
from jaxcurate.runtime import devices


@pytest.mark.parametrize("n_devices", [1, 4])
@pytest.mark.parametrize(("n", "k", "d", "m"), [(700, 3000, 5, 7), (33, 40, 1, 40), (5, 9, 3, 1)])
def test_against_brute_force(n, k, d, m, n_devices):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)).astype(np.float32)
    centroids = rng.normal(size=(k, d)).astype(np.float32)
    labels, squared = nearest_few(x, centroids, m, mesh=devices.make_mesh(n_devices))
    exact = ((x[:, None].astype(np.float64) - centroids[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(labels, np.argsort(exact, axis=1)[:, :m])
    np.testing.assert_allclose(squared, np.sort(exact, axis=1)[:, :m], rtol=1e-4, atol=1e-10)


def test_of_equal_centroids_the_first():
    centroids = np.array([[2.0], [1], [1], [1], [5]], np.float32)
    labels, squared = nearest_few(np.ones((3, 1)), centroids, 4)
    np.testing.assert_array_equal(labels, [[1, 2, 3, 0]] * 3)
    np.testing.assert_array_equal(squared, [[0, 0, 0, 1]] * 3)


def test_more_than_there_are():
    with pytest.raises(ValueError, match=r"m=3, but there are 2 centroid\(s\)"):
        nearest_few(np.ones((3, 1)), np.ones((2, 1)), 3)
