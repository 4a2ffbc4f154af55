"""Exact labels, with and without pruning, compared with float64 and with a full search."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.kmeans.assignment.exact import nearest
from jaxcurate.kmeans.kernels.compact import flagged, over_flagged
from jaxcurate.kmeans.kernels.scores import best_two, tiles_of
from jaxcurate.kmeans.lloyd import LLOYD_SPECS, lloyd
from jaxcurate.kmeans.rows import place
from jaxcurate.kmeans.seeding.plus_plus import squared_distances_to
from jaxcurate.runtime.devices import ONE_DEVICE, ROWS, SAME, Devices

labels_of = jax.jit(nearest, static_argnames=("block", "precision"))


def brute_force(x, centroids):
    """Squared distances [n, k] in float64."""
    return ((x.astype(np.float64)[:, None] - centroids.astype(np.float64)[None]) ** 2).sum(-1)


def mixture(n, d, k, seed=0, spread=0.5):
    rng = np.random.default_rng(seed)
    own = rng.integers(0, k, n)
    x = rng.normal(size=(k, d))[own] + spread * rng.normal(size=(n, d))
    return x.astype(np.float32)


def tight_pair(n, d, seed=0):
    """Two clusters of spread 1e-4, a distance of 1 apart."""
    rng = np.random.default_rng(seed)
    x = 1e-4 * rng.normal(size=(n, d))
    x[:, 0] += np.where(np.arange(n) % 2, 0.5, -0.5)
    return x.astype(np.float32)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 1])
def test_flagged_rows_come_together(share):
    flags = np.random.default_rng(0).random(1000) < share
    expected = np.flatnonzero(flags)
    found = np.asarray(flagged(jnp.asarray(flags)))
    np.testing.assert_array_equal(found[: len(expected)], expected)
    assert (found[len(expected) :] == 1000).all()
    visits = over_flagged(
        jnp.asarray(flags), 64, lambda rows, v: v.at[rows].add(1, mode="drop"), jnp.zeros(1000)
    )
    np.testing.assert_array_equal(visits, flags)


@pytest.mark.parametrize("width", [1, 7, 64, 2048])
def test_best_two_whatever_the_tiles(width):
    x, centroids = mixture(128, 9, 5), mixture(50, 9, 5, seed=1)
    squared = brute_force(x, centroids)
    for chosen in (np.ones(50, bool), np.arange(50) % 3 == 0):
        tiles = tiles_of(jnp.asarray(centroids), width, jnp.asarray(chosen))
        best = jax.jit(best_two)(jnp.asarray(x), tiles)
        among = np.where(chosen, squared, np.inf)
        np.testing.assert_array_equal(best.labels, among.argmin(1))
        sizes = (x.astype(np.float64) ** 2).sum(1)
        least = np.sort(among, axis=1)
        np.testing.assert_allclose(2 * best.scores + sizes, least[:, 0], atol=1e-4)
        np.testing.assert_allclose(2 * best.second_scores + sizes, least[:, 1], atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("k", [20, 200])
def test_tight_clusters_far_apart_keep_their_neighbors(k, precision):
    x = tight_pair(1024, 16)
    centroids = x[np.random.default_rng(0).choice(len(x), k, replace=False)]
    labels = np.asarray(
        labels_of(jnp.asarray(x), jnp.asarray(centroids), block=256, precision=precision)
    )
    squared = brute_force(x, centroids)
    own = squared[np.arange(len(x)), labels]
    # As near as float32 can tell distances apart; the scores alone are off by about all of them.
    assert (own <= squared.min(1) * (1 + 1e-5)).all()
    naive = (0.5 * (centroids**2).sum(1) - x @ centroids.T).argmin(1)
    assert (squared[np.arange(len(x)), naive] > squared.min(1) * (1 + 1e-5)).mean() > 0.1


def test_kmeans_sees_inside_tight_clusters():
    x = tight_pair(2000, 8)
    result = jc.kmeans(x, 40, seed=0)
    squared = brute_force(x, result.centroids)
    # The centroids themselves are rounded to float32, which is 3e-8 of 1: 3e-4 of the spread.
    assert (squared[np.arange(len(x)), result.labels] <= squared.min(1) * 1.01 + 1e-12).all()
    assert len(np.unique(result.labels)) == 40
    # As good as a k-means of each cluster alone, in a frame of its own.
    alone = sum(jc.kmeans(part, 20, seed=0).inertia for part in (x[::2], x[1::2]))
    assert result.inertia <= 1.05 * alone


def test_seeding_tells_close_rows_from_equal_ones():
    x = tight_pair(512, 8)
    x[5] = x[3]
    x = jnp.asarray(x)
    squared = squared_distances_to(x[:6], x, jnp.sum(x**2, axis=1))
    expected = brute_force(np.asarray(x), np.asarray(x[:6])).T
    np.testing.assert_allclose(squared, expected, rtol=0.01)
    assert ((np.asarray(squared) == 0) == (expected == 0)).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("n_devices", [1, 4])
def test_work_left_out_changes_nothing(precision, n_devices):
    x = mixture(4000, 16, 60)
    x -= x.mean(0)
    devices = Devices.first(n_devices)
    rows = place(x, devices)
    start = x[np.random.default_rng(1).choice(len(x), 100, replace=False)]
    states = [
        devices.spmd(
            lloyd,
            (ROWS, ROWS, SAME),
            LLOYD_SPECS,
            max_iter=30,
            block=rows.block,
            skip=skip,
            precision=p,
        )(rows.x, rows.weights, start)
        for skip, p in ((False, "float32"), (True, precision))
    ]
    everything, less = states
    np.testing.assert_array_equal(less.best.labels, everything.best.labels)
    np.testing.assert_array_equal(less.centroids, everything.centroids)
    assert int(less.n_iter) == int(everything.n_iter) > 5
    distance_fraction = np.asarray(less.distance_fraction)[: int(less.n_iter) + 1]
    assert distance_fraction[0] == 1
    assert distance_fraction[-1] < 0.3
    squared = brute_force(x, np.asarray(less.centroids))
    own = squared[np.arange(len(x)), np.asarray(less.best.labels)[: len(x)]]
    assert (own <= squared.min(1) * (1 + 1e-5)).all()


def test_bfloat16_gives_the_labels_of_float32():
    x = mixture(3000, 24, 40)
    a = jc.kmeans(x, 80, seed=1, max_iter=15)
    b = jc.kmeans(x, 80, seed=1, max_iter=15, precision="bfloat16")
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.centroids, b.centroids)
    assert b.recheck_fraction[0] > a.recheck_fraction[0]
    assert len(b.recheck_fraction) == len(b.distance_fraction) == b.n_iter + 1
    with pytest.raises(ValueError, match="precision='float16'"):
        jc.kmeans(x, 80, precision="float16")


def test_equal_centroids_and_equal_rows():
    x = np.repeat(mixture(40, 6, 40), 25, axis=0)
    centroids = np.concatenate([x[::25], x[::25]])
    labels = labels_of(jnp.asarray(x[: 3 * 256]), jnp.asarray(centroids), block=256)
    np.testing.assert_array_equal(labels, np.arange(3 * 256) // 25)


def test_lloyd_from_a_fixed_point_keeps_every_bit():
    x = mixture(1000, 5, 20)
    x -= x.mean(0)
    rows = place(x, ONE_DEVICE)
    options = dict(block=rows.block, axis_name=None, skip=True)
    run = jax.jit(functools.partial(lloyd, max_iter=50, **options))
    first = run(rows.x, rows.weights, x[:70])
    assert not np.asarray(first.touched).any()
    again = run(rows.x, rows.weights, np.asarray(first.centroids))
    np.testing.assert_array_equal(first.best.labels, again.best.labels)
