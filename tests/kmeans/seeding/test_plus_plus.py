"""Greedy k-means++: steps ahead and rows passed over change nothing but the time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from jaxcurate.kmeans.seeding import plus_plus
from jaxcurate.kmeans.seeding.plus_plus import greedy_kmeans_plus_plus, n_ahead, n_candidates


def test_seeding_ahead_is_as_good_as_a_step_at_a_time():
    rng = np.random.default_rng(2)
    modes = rng.standard_normal((40, 128))
    x = (modes[rng.integers(40, size=2048)] + rng.standard_normal((2048, 128))).astype(np.float32)
    assert n_ahead(64, 128) > 4 * n_candidates(64)

    def potentials(plain):
        seed = partial(
            greedy_kmeans_plus_plus,
            jnp.asarray(x),
            jnp.ones(2048),
            n_clusters=64,
            block=256,
            axis_name=None,
            plain=plain,
        )
        centroids = jax.jit(lambda keys: jax.lax.map(seed, keys))(
            jax.random.split(jax.random.key(int(plain)), 60)
        )
        squared = lambda c: ((x**2).sum(1)[:, None] - 2 * x @ c.T + (c**2).sum(1)).min(1)
        return np.array([squared(np.asarray(c)).sum(dtype=np.float64) for c in centroids])

    ahead, alone = potentials(False), potentials(True)
    assert scipy.stats.ttest_ind(ahead, alone).pvalue > 1e-3
    assert abs(ahead.mean() / alone.mean() - 1) < 0.01


def test_rows_that_are_passed_over_change_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    modes = rng.standard_normal((60, 32))
    near = modes[rng.integers(60, size=9216)] + 0.3 * rng.standard_normal((9216, 32))
    x = jnp.asarray(near, jnp.float32)

    def centroids(worthwhile):
        monkeypatch.setattr(plus_plus, "_WORTHWHILE", worthwhile)
        seed = partial(greedy_kmeans_plus_plus, n_clusters=150, block=1024, axis_name=None)
        return np.asarray(jax.jit(lambda x: seed(x, jnp.ones(len(x)), jax.random.key(0)))(x))

    np.testing.assert_array_equal(centroids(0.0), centroids(2.0))
