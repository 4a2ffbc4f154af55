"""The TPU kernel, interpreted, against XLA's blocks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcurate.kmeans.kernels.scores import best_two, tiles_of
from jaxcurate.kmeans.kernels.tpu import block_side, top2_fused

interpreted = jax.jit(partial(top2_fused, interpret=True), static_argnames="precision")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("n", "k", "d", "width"), [(700, 300, 24, 128), (5, 3, 1, 3)])
def test_as_in_blocks(n, k, d, width, precision):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(n, d)), jnp.float32)
    centroids = jnp.asarray(rng.normal(size=(k, d)), jnp.float32)
    for chosen in (None, jnp.asarray(np.arange(k) % 3 == 0)):
        tiles = tiles_of(centroids, width, chosen)
        fused = interpreted(x, tiles, precision=precision)
        blocks = jax.jit(best_two, static_argnums=2)(x, tiles, precision)
        np.testing.assert_array_equal(fused.labels, blocks.labels)
        np.testing.assert_allclose(fused.scores, blocks.scores, atol=1e-5)
        np.testing.assert_allclose(fused.second_scores, blocks.second_scores, atol=1e-5)


def test_more_tiles_than_one_and_ties():
    centroids = jnp.asarray(np.repeat(np.eye(8, dtype=np.float32), 200, axis=0))  # 1600
    x = jnp.asarray(np.eye(8, dtype=np.float32))
    assert block_side(8) < 1600
    best = interpreted(x, tiles_of(centroids, 1600))
    np.testing.assert_array_equal(best.labels, np.arange(8) * 200)  # the first of equal ones
    np.testing.assert_array_equal(best.second_scores, best.scores)


def test_no_centroid_at_all():
    tiles = tiles_of(jnp.ones((40, 3)), 16, jnp.zeros(40, bool))
    best = interpreted(jnp.ones((9, 3)), tiles)
    assert np.isinf(best.scores).all() and np.isinf(best.second_scores).all()
