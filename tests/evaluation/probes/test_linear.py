"""Multinomial logistic regression against scikit-learn and a float64 loss."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from jaxcurate.evaluation import linear

module = importlib.import_module("jaxcurate.evaluation.probes.linear")


def standardized(x, train_x):
    x, train_x = x.astype(np.float64), train_x.astype(np.float64)
    return (x - train_x.mean(axis=0)) / train_x.std(axis=0)


def loss64(matrix, bias, x, classes, l2):
    """Returns the mean cross-entropy with its penalty, in float64."""
    logits = x @ np.asarray(matrix, np.float64) + np.asarray(bias, np.float64)
    peak = logits.max(axis=1)
    total = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))
    cross = total - logits[np.arange(len(x)), classes]
    return cross.mean() + 0.5 * l2 * np.square(np.asarray(matrix, np.float64)).sum()


@pytest.mark.parametrize("l2", [1e-3, 0.1, 3.0])
def test_linear_equals_scikit_learn(blobs, l2):
    train_x, train_y, test_x, _ = blobs
    x, x_test = (standardized(part, train_x) for part in (train_x, test_x))
    other = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-8, max_iter=1000).fit(x, train_y)
    p = np.sort(other.predict_proba(x_test), axis=1)
    clear = p[:, -1] - p[:, -2] > 1e-3
    assert clear.mean() > 0.97
    got = linear(train_x, train_y, test_x, l2=l2)
    np.testing.assert_array_equal(got[clear], other.predict(x_test)[clear])


def test_the_fit_reaches_the_minimum_of_scikit_learn(blobs):
    train_x, train_y, _, _ = blobs
    x, classes = standardized(train_x, train_x), np.unique(train_y, return_inverse=True)[1]
    rows = module._placed(x.astype(np.float32), classes, 5)
    weight = module._blocked(np.ones(len(x), np.float32), rows)
    start = module.Weights(jnp.zeros((12, 5)), jnp.zeros(5))
    fitted = module._fit(start, rows, weight, jnp.float32(0.01), jnp.float32(1e-5))
    other = LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-10, max_iter=2000).fit(x, classes)
    least = loss64(other.coef_.T, other.intercept_, x, classes, 0.01)
    assert least <= loss64(*fitted, x, classes, 0.01) < least + 1e-6


def test_loss_and_gradient_in_blocks_are_those_of_float64(blobs, monkeypatch):
    train_x, train_y, _, _ = blobs
    x, classes = standardized(train_x, train_x), np.unique(train_y, return_inverse=True)[1]
    monkeypatch.setattr(module, "_BLOCK_ELEMENTS", 5 * 150)  # the last of three blocks is not full
    rows = module._placed(x.astype(np.float32), classes, 5)
    assert rows.y.shape == (3, 150)
    kept = np.random.default_rng(0).random(len(x)) < 0.7
    weight = module._blocked(kept.astype(np.float32), rows)
    rng = np.random.default_rng(1)
    weights = module.Weights(
        jnp.asarray(rng.normal(size=(12, 5)), jnp.float32), jnp.arange(5, dtype=jnp.float32)
    )
    loss, gradient = jax.value_and_grad(module._loss)(weights, rows, weight, jnp.float32(0.2))
    matrix, bias = (np.asarray(part, np.float64) for part in weights)
    expected = loss64(matrix, bias, x[kept], classes[kept], 0.2)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    for i, j in ((0, 0), (7, 3)):
        shift = np.zeros((12, 5))
        shift[i, j] = 1e-5
        up, down = (
            loss64(matrix + sign * shift, bias, x[kept], classes[kept], 0.2) for sign in (1, -1)
        )
        assert float(gradient.matrix[i, j]) == pytest.approx((up - down) / 2e-5, rel=1e-3, abs=1e-5)
    shift = np.eye(5)[2] * 1e-5
    up, down = (loss64(matrix, bias + s * shift, x[kept], classes[kept], 0.2) for s in (1, -1))
    assert float(gradient.bias[2]) == pytest.approx((up - down) / 2e-5, rel=1e-3, abs=1e-5)


def test_the_sweep_takes_the_penalty_that_is_best_on_rows_held_out(blobs, monkeypatch):
    train_x, train_y, test_x, test_y = blobs
    grid = (10.0, 1.0, 0.1, 0.01, 1e-4)
    monkeypatch.setattr(module, "L2_GRID", grid)
    # Thirty features of noise, to which a weak penalty overfits.
    rng = np.random.default_rng(1)
    train_x, test_x = (np.hstack([x, rng.normal(size=(len(x), 30))]) for x in (train_x, test_x))
    train_x, train_y = train_x[:200], train_y[:200]
    classes = np.unique(train_y, return_inverse=True)[1]
    held = module.held_out(classes)
    x = standardized(train_x, train_x)
    scores = []
    for l2 in grid:
        fit = LogisticRegression(C=1 / (l2 * (~held).sum()), tol=1e-8, max_iter=2000)
        fit.fit(x[~held], classes[~held])
        right = fit.predict(x[held]) == classes[held]
        macro = np.mean([right[classes[held] == c].mean() for c in range(5)])
        scores.append((macro, -loss64(fit.coef_.T, fit.intercept_, x[held], classes[held], 0)))
    best = grid[scores.index(max(scores))]
    assert grid[0] > best > grid[-1]
    rows = module._placed(x.astype(np.float32), classes, 5)
    start = module.Weights(jnp.zeros((42, 5)), jnp.zeros(5))
    assert module._swept(rows, classes, held, start)[0] == best
    got = linear(train_x, train_y, test_x)
    np.testing.assert_array_equal(got, linear(train_x, train_y, test_x, l2=best))
    assert (got == test_y).mean() > (linear(train_x, train_y, test_x, l2=10.0) == test_y).mean()


def test_the_sweep_ends_after_four_penalties_without_a_gain(blobs, monkeypatch):
    train_x, train_y, _, _ = blobs
    classes = np.unique(train_y, return_inverse=True)[1]
    rows = module._placed(train_x - train_x.mean(axis=0), classes, 5)
    start, fits = module.Weights(jnp.zeros((12, 5)), jnp.zeros(5)), []

    def fit(weights, rows, row_weight, l2, tolerance):
        fits.append(float(l2))
        return weights

    monkeypatch.setattr(module, "_fit", fit)
    l2, _ = module._swept(rows, classes, module.held_out(classes), start)
    assert l2 == module.L2_GRID[0] and len(fits) == 5


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_rows_held_out_are_a_fifth_of_each_class_with_two_rows(counts):
    classes = np.repeat(np.arange(len(counts)), counts)
    n_held = np.bincount(classes[module.held_out(classes)], minlength=len(counts))
    for count, held in zip(counts, n_held, strict=True):
        assert held == (0 if count == 1 else max(1, round(0.2 * count)))
        assert held < count


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_linear_of_odd_labels(seed):
    """Classes with a single row, rows that are all the same, and a constant feature."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([[0, 1, 2], rng.integers(0, 3, 5)])
    x = rng.integers(0, 2, (8, 3)).astype(np.float32)
    x[:, 2] = 5
    got = linear(x, y, x)
    assert got.shape == (8,) and set(got) <= {0, 1, 2}


def test_a_row_for_each_class_is_enough():
    x = np.eye(8, 3, dtype=np.float32)[:3]
    y = np.array(["cat", "dog", "eel"])
    assert linear(x, y, x).tolist() == ["cat", "dog", "eel"]
    assert linear(x, y, x[:0]).tolist() == []
