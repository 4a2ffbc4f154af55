"""Average precision against scikit-learn."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from jaxcurate.evaluation import ProbeTask, average_precisions
from jaxcurate.evaluation.probes.retrieval import retrieval

module = importlib.import_module("jaxcurate.evaluation.probes.retrieval")


def unit(x):
    lengths = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return x / np.maximum(lengths, 1e-12)


def expected(gallery_x, gallery_y, query_x, query_y, leave_one_out=False):
    """Returns the average precisions of scikit-learn; 0 for labels that the gallery lacks."""
    cosine = unit(query_x) @ unit(gallery_x).T
    precisions = []
    for row, label in enumerate(query_y):
        others = np.arange(len(gallery_y)) != (row if leave_one_out else -1)
        relevant = (gallery_y == label)[others]
        precisions.append(
            average_precision_score(relevant, cosine[row, others]) if relevant.any() else 0.0
        )
    return np.array(precisions)


@pytest.mark.parametrize("elements", [2**24, 400 * 7])
def test_average_precisions_equal_scikit_learn(blobs, elements, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_ELEMENTS", elements)  # also in many blocks of queries
    got = average_precisions(*blobs)
    np.testing.assert_allclose(got, expected(*blobs), atol=1e-4)
    np.testing.assert_array_equal(retrieval(ProbeTask(*blobs)), got)
    assert 0.3 < got.mean() < 1


def test_a_query_does_not_find_itself(blobs):
    x, y, _, _ = blobs
    got = average_precisions(x, y, x, y, leave_one_out=True)
    np.testing.assert_allclose(got, expected(x, y, x, y, leave_one_out=True), atol=1e-4)
    assert got.mean() < average_precisions(x, y, x, y).mean()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), leave_one_out=st.booleans())
def test_ties_share_their_place(seed, leave_one_out):
    """Rows of a small grid, in which many cosines are equal, and classes with a single row."""
    rng = np.random.default_rng(seed)
    # Directions of which all products are exact, so that ties are ties in both.
    x = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]], np.float32)[rng.integers(0, 5, 9)]
    y = rng.integers(0, 5, 9)
    other_x = x if leave_one_out else x[rng.permutation(9)]
    other_y = y if leave_one_out else rng.integers(0, 6, 9)
    got = average_precisions(x, y, other_x, other_y, leave_one_out=leave_one_out)
    np.testing.assert_allclose(got, expected(x, y, other_x, other_y, leave_one_out), atol=1e-12)


def test_labels_that_no_row_has_are_not_found():
    x, y = np.eye(3, dtype=np.float32), np.array(["cat", "dog", "eel"])
    fox = np.array(["fox", "cat", "dog"])
    assert average_precisions(x, y, x[[0, 0, 1]], fox).tolist() == [0.0, 1.0, 1.0]
    assert average_precisions(x, y, x, y, leave_one_out=True).tolist() == [0.0, 0.0, 0.0]
    assert average_precisions(x, y, x[:0], y[:0]).shape == (0,)
