"""Blocks of neighboring rows meet only the centroids near them, and no label changes by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcurate.kmeans.assignment import pruned
from jaxcurate.kmeans.assignment.pruned import neighbor_order, relax_bounds, top2_pruned
from jaxcurate.kmeans.kernels.scores import best_two, tiles_of
from jaxcurate.kmeans.lloyd import LLOYD_SPECS, lloyd, more_iterations, unassigned
from jaxcurate.kmeans.rows import place
from jaxcurate.runtime import devices
from jaxcurate.runtime.devices import ONE_DEVICE, ROWS, SAME, Devices

N, D, K, BLOCK = 8192, 16, 300, 256


def long_tailed(n=N, d=D, modes=40, seed=0):
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, modes + 1)
    own = rng.choice(modes, n, p=shares / shares.sum())
    x = rng.normal(size=(modes, d))[own] + 0.15 * rng.normal(size=(n, d))
    return (x - x.mean(0)).astype(np.float32)


def run(x, devices, precision="float32", **options):
    rows = place(x, devices, block=BLOCK)
    start = x[np.random.default_rng(1).choice(len(x), K, replace=False)]
    kernel = devices.spmd(
        lloyd,
        (ROWS, ROWS, SAME),
        LLOYD_SPECS,
        max_iter=15,
        block=BLOCK,
        precision=precision,
        **({"skip": True} | options),
    )
    return kernel(rows.x, rows.weights, start)


@pytest.mark.parametrize(("precision", "n_devices"), [("float32", 1), ("bfloat16", 2)])
def test_less_is_worked_out_and_every_bit_is_the_same(precision, n_devices):
    x, devices = long_tailed(), Devices.first(n_devices)
    everything, less = run(x, devices, skip=False), run(x, devices, precision)
    assert less.bounds.in_use.all()
    np.testing.assert_array_equal(less.best.labels, everything.best.labels)
    np.testing.assert_array_equal(less.centroids, everything.centroids)
    assert int(less.n_iter) == int(everything.n_iter) > 8
    distance_fraction = np.asarray(less.distance_fraction - less.recheck_fraction)
    assert (np.asarray(less.recheck_fraction)[0] > 0.5) == (
        precision == "bfloat16"
    )  # tight clusters
    assert (np.asarray(less.distance_fraction)[:3] == 1).all()
    assert (distance_fraction[4 : int(less.n_iter)] < 0.35).all()


def test_gaps_are_below_what_they_bound():
    x = long_tailed()
    state = run(x, ONE_DEVICE)
    order = np.asarray(state.bounds.order[0]).reshape(-1, BLOCK)
    assert (np.sort(order.ravel()) == np.arange(N)).all()
    wide, c = x.astype(np.float64), np.asarray(state.centroids, np.float64)
    scores = 0.5 * (c**2).sum(1) - wide @ c.T
    own = scores[np.arange(N), np.asarray(state.best.labels)]
    true = (scores - own[:, None])[order].min(1)
    lower_bounds = np.asarray(state.bounds.lower_bounds[0])
    assert (lower_bounds <= true + 1e-6).all()
    assert (lower_bounds > 0.5 * true).mean() > 0.5  # and not far below
    others = np.where(np.arange(K) == np.asarray(state.best.labels)[:, None], np.inf, scores)
    assert (np.asarray(state.best.second_scores) <= others.min(1) + 1e-5).all()


def test_gaps_shrink_enough_whatever_moves():
    rng = np.random.default_rng(0)
    for scale in (1e-3, 0.1, 1.0, 3.0):
        c = rng.normal(size=(20, 3)) * 3
        x = c[0] + 0.3 * rng.normal(size=(50, 3))
        moved = c + scale * rng.normal(size=c.shape) * (rng.random(20) < 0.7)[:, None]
        own = ((x[:, None] - c) ** 2).sum(2).argmin(1)
        gap_of = lambda c, x=x, own=own: (
            (((x[:, None] - c) ** 2).sum(2) - ((x - c[own]) ** 2).sum(1)[:, None]).min(0) / 2
        )
        centroid_shift = np.linalg.norm(moved - c, axis=1)
        score_of = lambda c, x=x, own=own: (c[own] ** 2).sum(1) / 2 - (x * c[own]).sum(1)
        own_increase = score_of(moved) - score_of(c)
        max_radius = np.linalg.norm(x - c[own], axis=1).max()
        left = relax_bounds(
            jnp.asarray(gap_of(c), jnp.float32)[None],
            jnp.float32(max_radius)[None],
            jnp.float32(own_increase.max())[None],
            jnp.asarray(centroid_shift, jnp.float32),
        )[0]
        positive = np.asarray(left) > 0  # only these are made use of
        assert (np.asarray(left)[positive] <= gap_of(moved)[positive] + 1e-5).all()
        assert positive.any()


def test_unstructured_rows_are_compared_with_all_that_moved(monkeypatch):
    x = np.random.default_rng(0).normal(size=(N, 64)).astype(np.float32)
    found = run(x, ONE_DEVICE)
    monkeypatch.setattr(pruned, "pays", lambda *_: False)
    devices._mapped.cache_clear()
    without = run(x, ONE_DEVICE)
    devices._mapped.cache_clear()
    np.testing.assert_array_equal(found.best.labels, without.best.labels)
    assert (
        np.asarray(found.distance_fraction) >= 0.9 * np.asarray(without.distance_fraction)
    ).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_best_near_is_the_best_two_of_the_wanted(precision):
    rng = np.random.default_rng(0)
    x, c = (jnp.asarray(rng.normal(size=(m, 5)), jnp.float32) for m in (64, 150))
    order = jnp.asarray(rng.permutation(64).reshape(4, 16))
    own = jnp.asarray(rng.normal(size=64), jnp.float32)
    wanted = rng.random((4, 150)) < np.array([0, 0.1, 0.6, 1])[:, None]
    pruned_of = jax.jit(top2_pruned, static_argnums=5)
    best, lower_bounds = pruned_of(x, c, own, order, jnp.asarray(wanted), precision)
    for rows, some, gap in zip(order, wanted, lower_bounds, strict=True):
        alone = jax.jit(best_two, static_argnums=2)(
            x[rows], tiles_of(c, 64, jnp.asarray(some)), precision
        )
        for a, b in zip(best, alone, strict=True):
            np.testing.assert_allclose(a[rows], b, rtol=1e-6)
        scores = 0.5 * (c**2).sum(1)[None] - x[rows] @ c.T
        slack = 1e-5 if precision == "float32" else 0.1
        np.testing.assert_allclose(
            gap[some], (scores - own[rows][:, None]).min(0)[some], atol=slack, rtol=0
        )


@pytest.mark.parametrize("k", [1, 2, 7, 1500])
def test_points_that_lie_close_together_follow_each_other(k):
    rng = np.random.default_rng(0)
    group = rng.integers(0, 30, k)
    points = rng.normal(size=(30, 8))[group] + 0.01 * rng.normal(size=(k, 8))
    order = np.asarray(jax.jit(neighbor_order)(jnp.asarray(points, jnp.float32)))
    np.testing.assert_array_equal(np.sort(order), np.arange(k))
    assert (np.diff(group[order]) != 0).sum() < 60  # in any order, some 1450


def test_goes_on_bit_for_bit_and_elsewhere_anew():
    x = jnp.asarray(long_tailed())
    weights, options = jnp.ones(N), dict(block=BLOCK, axis_name=None)
    start = x[np.random.default_rng(1).choice(N, K, replace=False)]
    more = jax.jit(
        lambda state, stop: more_iterations(x, weights, state, stop, skip=True, **options)
    )
    begin = unassigned(x, start, max_iter=12, **options)
    half = more(begin, 6)
    whole, on = more(begin, 12), more(half, 12)
    jax.tree.map(np.testing.assert_array_equal, whole, on)
    unknown = pruned.no_bounds(N, D, K, BLOCK)
    anew = more(half._replace(bounds=unknown), 12)
    np.testing.assert_array_equal(anew.best.labels, whole.best.labels)
    assert anew.bounds.in_use.all()
