"""Ridge classification against scikit-learn."""

import importlib

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from jaxcurate.evaluation import ridge

module = importlib.import_module("jaxcurate.evaluation.probes.ridge")


@pytest.mark.parametrize("l2", [1e-3, 1.0, 30.0])
def test_ridge_equals_scikit_learn(blobs, l2):
    train_x, train_y, test_x, _ = blobs
    x, x_test = train_x.astype(np.float64), test_x.astype(np.float64)
    mean, spread = x.mean(0), x.std(0)
    known, classes = np.unique(train_y, return_inverse=True)
    model = Ridge(alpha=l2 * len(x)).fit((x - mean) / spread, np.eye(5)[classes])
    expected = known[model.predict((x_test - mean) / spread).argmax(1)]
    np.testing.assert_array_equal(ridge(train_x, train_y, test_x, l2=l2), expected)


def test_ridge_chooses_the_penalty_by_leaving_one_out(monkeypatch):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 20))
    y = (x[:, :3].sum(axis=1) + rng.normal(size=30) > 0.5).astype(int)
    grid = (1e-4, 0.1, 1.0, 1e3)
    monkeypatch.setattr(module, "L2_GRID", grid)
    z, target = (x - x.mean(0)) / x.std(0), np.eye(2)[y]

    def error(l2):
        total = 0.0
        for i in range(30):
            rest = np.arange(30) != i
            # n stays 30: the closed form leaves out the row's loss and nothing else.
            fit = Ridge(alpha=l2 * 30).fit(z[rest], target[rest])
            total += np.square(fit.predict(z[[i]])[0] - target[i]).sum()
        return total

    errors = [error(l2) for l2 in grid]
    best = grid[int(np.argmin(errors))]
    assert best not in (grid[0], grid[-1])
    test_x = rng.normal(size=(500, 20))
    np.testing.assert_array_equal(ridge(x, y, test_x), ridge(x, y, test_x, l2=best))
    for other in (grid[0], grid[-1]):
        assert (ridge(x, y, test_x) != ridge(x, y, test_x, l2=other)).any()


def test_ridge_ignores_a_constant_feature(blobs):
    train_x, train_y, test_x, _ = blobs
    wider = [np.concatenate([x, np.full((len(x), 1), 0.1, x.dtype)], 1) for x in (train_x, test_x)]
    np.testing.assert_array_equal(
        ridge(wider[0], train_y, wider[1]), ridge(train_x, train_y, test_x)
    )
