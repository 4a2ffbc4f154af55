"""k-NN against float64 brute force and scikit-learn."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from jaxcurate.evaluation import knn

module = importlib.import_module("jaxcurate.evaluation.probes.knn")


def votes(train_x, train_y, test_x, k, temperature):
    """Returns the votes of each class in float64, by a full sort."""

    def unit(x):
        lengths = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        return x / np.maximum(lengths, 1e-12)

    cosine = unit(test_x) @ unit(train_x).T
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    weight = np.exp(np.take_along_axis(cosine, nearest, 1) / temperature)
    return np.stack([(weight * (train_y[nearest] == c)).sum(1) for c in np.unique(train_y)], 1)


@pytest.mark.parametrize("k, temperature", [(1, 0.07), (20, 0.07), (20, 10.0), (1000, 0.2)])
def test_knn_equals_brute_force(blobs, k, temperature):
    train_x, train_y, test_x, test_y = blobs
    got = knn(train_x, train_y, test_x, k=k, temperature=temperature)
    score = votes(train_x, train_y, test_x, k, temperature)
    known = np.unique(train_y)
    clear = np.diff(np.sort(score, axis=1)[:, -2:])[:, 0] > 1e-4 * score.max(axis=1)
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(got[clear], known[score.argmax(axis=1)][clear])
    assert (got == test_y).mean() > 0.5


def test_knn_survives_a_tiny_temperature(blobs):
    train_x, train_y, test_x, _ = blobs
    nearest = knn(train_x, train_y, test_x, k=1)
    np.testing.assert_array_equal(knn(train_x, train_y, test_x, k=20, temperature=1e-6), nearest)


@pytest.mark.parametrize("n, k", [(7, 3), (100, 5), (401, 20), (30, 30), (1009, 1)])
def test_largest_finds_what_a_sort_finds(n, k):
    x = np.random.default_rng(n).permuted(np.tile(np.arange(n), (6, 1)), axis=1)
    x = x.astype(np.float32)
    values, columns = module._largest(x, k)
    np.testing.assert_array_equal(values, -np.sort(-x, axis=1)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(x, np.asarray(columns), 1), values)


def test_knn_keeps_names_and_an_empty_test_set():
    x = np.eye(3, dtype=np.float32)
    y = np.array(["cat", "dog", "eel"])
    assert knn(x, y, x[[2, 0]], k=1).tolist() == ["eel", "cat"]
    assert knn(x, y, x[:0]).tolist() == []


def test_blocks_of_training_rows_give_what_all_rows_give(blobs, monkeypatch):
    train_x, train_y, test_x, _ = blobs
    whole = knn(train_x, train_y, test_x, k=7)
    for size in (3, 101, 399):
        monkeypatch.setattr(module, "_N_ROWS", size)
        np.testing.assert_array_equal(knn(train_x, train_y, test_x, k=7), whole)


def test_knn_equals_scikit_learn(blobs):
    train_x, train_y, test_x, _ = blobs
    weights = lambda distances: np.exp((1 - distances) / 0.07)
    other = KNeighborsClassifier(20, metric="cosine", weights=weights).fit(train_x, train_y)
    same = knn(train_x, train_y, test_x) == other.predict(test_x)
    assert same.mean() > 0.995  # votes that differ by less than rounding may go either way


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 12),
    k=st.integers(1, 30),
    in_blocks=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_knn_of_odd_shapes(n, k, in_blocks, seed):
    """Few rows, ties, classes with a single row, and more neighbors than rows."""
    rng = np.random.default_rng(seed)
    # The shape is always [12, 2], so that little is compiled; rows beyond n repeat the others.
    rows = rng.integers(0, n, 12)
    train_x = rng.integers(-2, 3, (n, 2))[rows].astype(np.float32)
    train_y = rng.integers(0, 4, n)[rows]
    k = min(k, 13)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_N_ROWS", 5 if in_blocks else 100)
        got = knn(train_x, train_y, train_x, k=k, temperature=1.0)
    assert set(got) <= set(train_y)
    if k >= 12:  # all rows vote, and ties of cosines do not matter
        score = votes(train_x + 0, train_y, train_x, 12, 1.0)
        best = score[np.arange(12), np.searchsorted(np.unique(train_y), got)]
        np.testing.assert_allclose(best, score.max(axis=1), rtol=1e-5)
