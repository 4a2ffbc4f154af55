"""Draws that are made ahead: after every new centroid those that are kept are drawn by D^2."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxcurate.kmeans.seeding.d2_draws import choose_blocks, draw, kept, nearer, take

N_KEYS = 4000
X = np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32)
WEIGHTS = np.arange(16, dtype=np.float32) % 4  # some rows are padding
draws_of = partial(draw, jnp.asarray(X), jnp.asarray(WEIGHTS), block=8, axis_name=None)


def squared_to(rows):
    return ((X[:, None, :].astype(np.float64) - X[rows][None, :, :]) ** 2).sum(axis=2).min(axis=1)


@pytest.mark.parametrize("centroids", [[0], [0, 5], [0, 5, 9, 2]])
def test_kept_draws_are_drawn_by_the_present_distances(centroids):
    def second_and_third(key):
        draws = draws_of(jnp.asarray(squared_to([0]), jnp.float32), key, 60)
        _, draws = take(draws, 3)
        for centroid in centroids[1:]:
            draws = nearer(draws, jnp.asarray(X[centroid]))
        indices, _ = take(draws, 3)
        return draws.row_numbers[indices[1:]]

    keys = jax.random.split(jax.random.key(1), N_KEYS)
    found = np.bincount(np.asarray(jax.jit(jax.vmap(second_and_third))(keys)).ravel(), minlength=16)
    wanted = WEIGHTS * squared_to(centroids)
    assert found[wanted == 0].sum() == 0
    expected = 2 * N_KEYS * wanted / wanted.sum()
    some = wanted > 0
    assert scipy.stats.chisquare(found[some], expected[some]).pvalue > 1e-3


def test_draws_are_used_once_and_in_their_order():
    draws = draws_of(jnp.asarray(squared_to([0]), jnp.float32), jax.random.key(3), 20)
    assert int(jnp.sum(kept(draws))) == 20  # nothing has come nearer
    first, draws = take(draws, 8)
    draws = nearer(draws, X[5])
    there = np.flatnonzero(np.asarray(kept(draws)))
    second, draws = take(draws, 4)
    np.testing.assert_array_equal(first, np.arange(8))
    np.testing.assert_array_equal(second, there[:4])
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(kept(draws))), there[4:])


def test_a_draw_on_a_new_centroid_is_gone():
    draws = draws_of(jnp.asarray(squared_to([0]), jnp.float32), jax.random.key(4), 50)
    on_it = np.asarray(draws.row_numbers) == 7
    assert on_it.any() and not np.asarray(kept(nearer(draws, X[7])))[on_it].any()


def test_where_every_row_lies_on_a_centroid_rows_are_drawn_by_weight():
    draws = draws_of(jnp.zeros(16), jax.random.key(5), 30)
    assert int(jnp.sum(kept(draws))) == 30 and (WEIGHTS[np.asarray(draws.row_numbers)] > 0).all()


def test_blocks_are_chosen_by_length():
    points = (np.arange(1000, dtype=np.float32) + 0.5) / 1000
    chosen, rest = choose_blocks(points, jnp.asarray([0.0, 3.0, 0.0, 1.0, 0.0]))
    np.testing.assert_array_equal(np.bincount(chosen, minlength=5), [0, 750, 0, 250, 0])
    assert (np.asarray(rest) >= 0).all() and (np.asarray(rest) < [0, 3, 0, 1, 0][1]).all()
