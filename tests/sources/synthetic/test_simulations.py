"""The published simulations, which a faithful implementation of the method reproduces."""

import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.evaluation.coverage import kl_to_uniform
from jaxcurate.runtime.devices import Devices
from jaxcurate.sources.synthetic.simulations import SIDES, kl_from_equal, rings, skewed_square


def hierarchical_kmeans(x, levels, seed=0):
    """On two of the four devices, which wait for each other less."""
    return jc.hierarchical_kmeans(x, levels, seed, devices=Devices.first(2))


def levels(*n_clusters, m=0, r=1):
    return [jc.Level(k, m, r) for k in n_clusters]


SETTINGS = {
    "k-means": levels(300),
    "2 levels": levels(1500, 300),
    "3 levels": levels(3000, 1000, 300),
    "3 levels, resampled": levels(3000, 1000, 300, m=10, r=2),
}


@pytest.mark.slow
def test_square_is_covered_ever_more_evenly():
    resampled = []
    for seed in (0, 1, 2):
        x = skewed_square(seed)
        found = [kl_to_uniform(x, *SIDES)] + [
            kl_to_uniform(hierarchical_kmeans(x, setting, seed).levels[-1].centroids, *SIDES)
            for setting in SETTINGS.values()
        ]
        assert found == sorted(found, reverse=True), (seed, found)
        assert len(set(found)) == len(found)
        resampled.append(found[-1])
    assert np.mean(resampled) <= 0.060
    # The ranges that eight runs of a reference gave, a little widened.
    assert 0.93 < found[0] < 0.97
    assert 0.32 < found[1] < 0.39
    assert 0.12 < found[2] < 0.17


@pytest.mark.slow
def test_rings_get_equal_shares():
    found = []
    for seed in (0, 1, 2):
        x, ring = rings(seed)
        assert kl_from_equal(ring) == pytest.approx(0.773, abs=1e-3)
        tree = hierarchical_kmeans(x, [jc.Level(1000, 10, 15), jc.Level(300, 10, 2)], seed)
        taken = jc.sample(tree, 1000, seed=seed)
        assert len(np.unique(taken)) == len(taken) == 1000
        found.append(kl_from_equal(ring[taken]))
        share_of_smallest = np.mean(ring[taken] == 1)
        assert 0.09 < share_of_smallest < 0.14  # of 0.7 % in the pool
    assert np.mean(found) <= 0.035, found
    plain = hierarchical_kmeans(x, [jc.Level(1000), jc.Level(300)])
    assert 0.08 < kl_from_equal(ring[jc.sample(plain, 1000)]) < 0.14
