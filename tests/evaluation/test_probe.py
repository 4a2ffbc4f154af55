"""Probes against scikit-learn, float64 brute force and sums by hand."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from jaxcurate.evaluation import probe


@pytest.fixture
def blobs():
    """Returns train and test features of five overlapping classes, and their labels."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(5, 12)) * 1.2

    def split(n):
        y = rng.integers(0, 5, n)
        x = centers[y] + rng.normal(size=(n, 12)) + 3
        return x.astype(np.float32), y * 7 - 3

    return *split(400), *split(300)


def votes(train_x, train_y, test_x, k, temperature):
    """Returns the votes of each class in float64, by a full sort."""

    def unit(x):
        return x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)

    cosine = unit(test_x) @ unit(train_x).T
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    weight = np.exp(np.take_along_axis(cosine, nearest, 1) / temperature)
    return np.stack([(weight * (train_y[nearest] == c)).sum(1) for c in np.unique(train_y)], 1)


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (20, 0.07), (20, 10.0), (1000, 0.2)])
def test_knn_equals_brute_force(blobs, k, temperature):
    train_x, train_y, test_x, test_y = blobs
    got = probe.knn(train_x, train_y, test_x, k=k, temperature=temperature)
    score = votes(train_x, train_y, test_x, k, temperature)
    known = np.unique(train_y)
    clear = np.diff(np.sort(score, axis=1)[:, -2:])[:, 0] > 1e-4 * score.max(axis=1)
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(got[clear], known[score.argmax(axis=1)][clear])
    assert (got == test_y).mean() > 0.5


def test_knn_survives_a_tiny_temperature(blobs):
    train_x, train_y, test_x, _ = blobs
    nearest = probe.knn(train_x, train_y, test_x, k=1)
    np.testing.assert_array_equal(
        probe.knn(train_x, train_y, test_x, k=20, temperature=1e-6), nearest
    )


@pytest.mark.parametrize("n, k", [(7, 3), (100, 5), (401, 20), (30, 30), (1009, 1)])
def test_largest_finds_what_a_sort_finds(n, k):
    x = np.random.default_rng(n).permuted(np.tile(np.arange(n), (6, 1)), axis=1)
    x = x.astype(np.float32)
    values, columns = probe._largest(x, k)
    np.testing.assert_array_equal(values, -np.sort(-x, axis=1)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(x, np.asarray(columns), 1), values)


def test_knn_keeps_names_and_an_empty_test_set():
    x = np.eye(3, dtype=np.float32)
    y = np.array(["cat", "dog", "eel"])
    assert probe.knn(x, y, x[[2, 0]], k=1).tolist() == ["eel", "cat"]
    assert probe.knn(x, y, x[:0]).tolist() == []


@pytest.mark.parametrize("l2", [1e-3, 1.0, 30.0])
def test_ridge_equals_scikit_learn(blobs, l2):
    train_x, train_y, test_x, _ = blobs
    x, x_test = train_x.astype(np.float64), test_x.astype(np.float64)
    mean, spread = x.mean(0), x.std(0)
    known, classes = np.unique(train_y, return_inverse=True)
    model = Ridge(alpha=l2 * len(x)).fit((x - mean) / spread, np.eye(5)[classes])
    expected = known[model.predict((x_test - mean) / spread).argmax(1)]
    np.testing.assert_array_equal(probe.ridge(train_x, train_y, test_x, l2=l2), expected)


def test_ridge_chooses_the_penalty_by_leaving_one_out(monkeypatch):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 20))
    y = (x[:, :3].sum(axis=1) + rng.normal(size=30) > 0.5).astype(int)
    grid = (1e-4, 0.1, 1.0, 1e3)
    monkeypatch.setattr(probe, "L2_GRID", grid)
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
    np.testing.assert_array_equal(probe.ridge(x, y, test_x), probe.ridge(x, y, test_x, l2=best))
    for other in (grid[0], grid[-1]):
        assert (probe.ridge(x, y, test_x) != probe.ridge(x, y, test_x, l2=other)).any()


def test_ridge_ignores_a_constant_feature(blobs):
    train_x, train_y, test_x, _ = blobs
    wider = [np.concatenate([x, np.full((len(x), 1), 0.1, x.dtype)], 1) for x in (train_x, test_x)]
    np.testing.assert_array_equal(
        probe.ridge(wider[0], train_y, wider[1]), probe.ridge(train_x, train_y, test_x)
    )


def test_accuracies_by_hand():
    labels = np.array(["a", "a", "a", "b", "c", "c"])
    predicted = np.array(["a", "a", "b", "b", "c", "a"])
    domains = np.array([0, 0, 0, 0, 1, 1])
    assert probe.domain_accuracies(predicted, labels, domains) == {
        0: pytest.approx((2 / 3 + 1) / 2),
        1: pytest.approx(1 / 2),
    }
    assert probe.macro_accuracy(predicted, labels, domains) == pytest.approx((5 / 6 + 1 / 2) / 2)


def test_domains_may_have_names_and_share_a_class():
    labels = np.array([1, 1, 1, 2])
    predicted = np.array([1, 0, 0, 2])
    domains = np.array(["x", "y", "y", "y"])
    assert probe.domain_accuracies(predicted, labels, domains) == {"x": 1.0, "y": 0.5}


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(train_x=np.zeros((0, 3))), "train_x"),
        (dict(train_x=np.zeros(4)), "train_x"),
        (dict(train_y=np.zeros(3, int)), "train_y"),
        (dict(test_x=np.zeros((2, 4))), "test_x"),
        (dict(test_x=np.full((2, 3), np.nan)), "test_x has values that are not finite"),
        (dict(train_x=np.full((4, 3), np.inf)), "train_x has values that are not finite"),
    ],
)
@pytest.mark.parametrize("classify", [probe.knn, probe.ridge])
def test_bad_features_are_refused(classify, change, words):
    given = dict(train_x=np.ones((4, 3)), train_y=np.arange(4), test_x=np.ones((2, 3))) | change
    with pytest.raises(ValueError, match=words):
        classify(**given)


def test_bad_options_are_refused():
    x, y = np.ones((4, 3)), np.arange(4)
    with pytest.raises(ValueError, match="k=0"):
        probe.knn(x, y, x, k=0)
    with pytest.raises(ValueError, match="temperature=0"):
        probe.knn(x, y, x, temperature=0)
    with pytest.raises(ValueError, match="l2=-1"):
        probe.ridge(x, y, x, l2=-1)
    with pytest.raises(ValueError, match="3 domains"):
        probe.macro_accuracy(y, y, y[:3])
    with pytest.raises(ValueError, match="labels is empty"):
        probe.macro_accuracy(y[:0], y[:0], y[:0])
