import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcurate.kmeans.row_view import RowView
from jaxcurate.neighbors import nearest_rows
from jaxcurate.runtime.devices import ONE_DEVICE, Devices


def brute_force(embeddings, queries, metric):
    """Returns all distances in float64, and the rows by distance, the lower row first."""
    x, q = np.asarray(embeddings, np.float64), np.asarray(queries, np.float64)
    if metric == "cosine":
        x, q = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, q))
        distances = 1 - q @ x.T
    else:
        distances = ((q[:, None] - x[None]) ** 2).sum(-1)
    return distances, np.argsort(distances, axis=1, kind="stable")


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("n_devices", [1, 4])
def test_against_brute_force(metric, n_devices):
    rng = np.random.default_rng(0)
    x, q = (
        100 + rng.normal(size=(1500, 8)),
        100 + rng.normal(size=(37, 8)),
    )  # far off: digits
    x *= rng.uniform(0.5, 2, (1500, 1)) if metric == "cosine" else 1
    x, q = x.astype(np.float32), q.astype(np.float32)
    found = nearest_rows(x, q, 9, metric, devices=Devices.first(n_devices), block=16)
    distances, rows = brute_force(x, q, metric)
    assert found.rows.shape == found.distances.shape == (37, 9)
    if metric == "euclidean":
        np.testing.assert_array_equal(found.rows, rows[:, :9])
    else:  # cosines of rows far from 0 are nearly equal: the choice is right up to rounding
        worst = np.take_along_axis(distances, found.rows, 1).max(axis=1)
        assert (worst <= np.sort(distances, axis=1)[:, 8] + 1e-6).all()
    expected = np.take_along_axis(distances, found.rows, 1)
    np.testing.assert_allclose(found.distances, expected, rtol=1e-5, atol=1e-9)


def test_cosine_ignores_lengths_and_a_row_of_zeros_is_at_right_angles():
    x = np.array([[1, 0], [0, 0], [-3, 0.1], [50, 50], [0, 2]], np.float32)
    found = nearest_rows(x, np.array([[0.1, 0]]), 5)
    np.testing.assert_array_equal(found.rows, [[0, 3, 1, 4, 2]])
    np.testing.assert_allclose(found.distances[0, :4], [0, 1 - np.sqrt(0.5), 1, 1], atol=1e-6)


def test_equal_rows_come_in_order_whatever_the_devices(devices):
    x = np.repeat(np.random.default_rng(1).normal(size=(6, 3)), 20, axis=0)
    for used in (ONE_DEVICE, devices):
        found = nearest_rows(x, x[::20], 20, "euclidean", devices=used, block=8)
        np.testing.assert_array_equal(found.rows, np.arange(120).reshape(6, 20))


def test_a_small_pool_gives_all_of_its_rows():
    x = np.random.default_rng(2).normal(size=(5, 3))
    found = nearest_rows(x, x[:2], 9)
    assert found.rows.shape == (2, 5)
    np.testing.assert_array_equal(np.sort(found.rows, axis=1), np.tile(np.arange(5), (2, 1)))


def test_many_queries_are_searched_in_chunks(monkeypatch):
    rng = np.random.default_rng(3)
    x, q = rng.normal(size=(200, 4)), rng.normal(size=(50, 4))
    whole = nearest_rows(x, q, 3)
    module = importlib.import_module("jaxcurate.neighbors.nearest_rows")
    monkeypatch.setattr(module, "_QUERIES", 16)
    np.testing.assert_array_equal(nearest_rows(x, q, 3).rows, whole.rows)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.integers(1, 9),
    st.integers(1, 40),
    st.sampled_from(["cosine", "euclidean"]),
    st.sampled_from([1, 200, 2**20]),
    st.booleans(),
)
def test_distances_in_blocks_equal_those_of_one_query_at_a_time(
    seed, n_queries, n_best, width, metric, n_bytes, as_view
):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, width)).astype(np.float32)
    x[:5] = 0
    queries = np.concatenate([x[:1], rng.normal(size=(n_queries, width))]).astype(np.float32)
    rows = rng.integers(0, len(x), (len(queries), n_best))
    module = importlib.import_module("jaxcurate.neighbors.nearest_rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_DISTANCE_BYTES", n_bytes)
        pool = RowView(x[::-1], np.arange(len(x))[::-1]) if as_view else x
        found = module._distances(pool, queries, rows, metric)
    assert found.shape == rows.shape and found.dtype == np.float32
    for i, query in enumerate(queries.astype(np.float64)):
        near = x[rows[i]].astype(np.float64)
        if metric == "euclidean":
            expected = ((near - query) ** 2).sum(axis=1)
        else:
            lengths = np.linalg.norm(near, axis=1) * np.linalg.norm(query)
            expected = 1 - (near @ query) / np.where(lengths > 0, lengths, 1)
        np.testing.assert_allclose(found[i], expected, rtol=1e-6, atol=1e-14)


def test_distances_beyond_float32_are_infinite_and_do_not_warn():
    module = importlib.import_module("jaxcurate.neighbors.nearest_rows")
    x = np.array([[3e38, 0], [-3e38, 0]], np.float32)
    found = module._distances(x, x, np.array([[0, 1], [1, 0]]), "euclidean")
    np.testing.assert_array_equal(found, [[0, np.inf], [0, np.inf]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_per_query": 0}, "n_per_query=0"),
        ({"metric": "dot"}, "metric='dot'; known: 'euclidean', 'cosine'"),
        ({"queries": np.ones((2, 4))}, "queries have 4 columns, the embeddings 3"),
        ({"queries": np.ones(3)}, "queries must have two axes"),
        ({"queries": np.full((1, 3), np.nan)}, "queries has a NaN"),
        ({"embeddings": np.full((4, 3), np.inf)}, "embeddings has a NaN or an infinity"),
    ],
)
def test_bad_arguments_are_named(change, message):
    given = {"embeddings": np.ones((4, 3)), "queries": np.ones((1, 3)), "n_per_query": 1}
    with pytest.raises(ValueError, match=message):
        nearest_rows(**(given | change))
