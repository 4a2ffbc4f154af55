"""Leaks beside brute force."""

import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate.curation import content_digests, leaks


@pytest.fixture(scope="module")
def splits():
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(400, 8)).astype(np.float32)
    held_out = rng.normal(size=(60, 8)).astype(np.float32)
    held_out[:20] = 3 * pool[rng.integers(0, 30, 20)] + 0.1 * rng.normal(size=(20, 8))
    pool[300:330] = pool[:30] + 0.02 * rng.normal(size=(30, 8))
    pool[350] = 0
    return pool, held_out


def test_leaks_are_those_of_brute_force(splits, devices):
    pool, held_out = splits
    unit = [a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-9) for a in splits]
    cosine = unit[1].astype(np.float64) @ unit[0].T.astype(np.float64)
    for given in (pool, jc.make_pool(pool)):
        found = leaks(given, held_out, 0.98, devices=devices)
        np.testing.assert_array_equal(found.held_out, np.flatnonzero(cosine.max(axis=1) >= 0.98))
        np.testing.assert_array_equal(found.pool, np.flatnonzero(cosine.max(axis=0) >= 0.98))
        np.testing.assert_array_equal(found.nearest, cosine.argmax(axis=1)[found.held_out])
        expected = cosine.max(axis=1)[found.held_out]
        np.testing.assert_allclose(found.similarity, expected, atol=1e-6)
        assert 5 < len(found.held_out) < len(found.pool) and not found.same.any()
    rest = np.delete(pool, found.pool, axis=0)
    clean = leaks(rest, held_out, 0.98)
    assert len(clean.held_out) == len(clean.pool) == 0


def test_equal_contents_leak_whatever_their_embeddings_are():
    items, held_out = np.array([[1], [2], [3], [2]]), np.array([[9], [2], [3]])
    digests = {"digests": content_digests(items), "held_out_digests": content_digests(held_out)}
    pool, x = np.eye(4), np.array([[0, 0, 0.1, 1], [1, 0, 0, 0], [-1, -1, -1, -1]])
    found = leaks(pool, x, None, **digests)
    np.testing.assert_array_equal(found.held_out, [1, 2])
    np.testing.assert_array_equal(found.nearest, [1, 2])
    np.testing.assert_array_equal(found.pool, [1, 2, 3])
    both = leaks(pool, x, 0.9, **digests)
    np.testing.assert_array_equal(both.held_out, [0, 1, 2])
    np.testing.assert_array_equal(both.nearest, [3, 1, 2])
    np.testing.assert_array_equal(both.same, [False, True, True])
    np.testing.assert_array_equal(both.pool, [0, 1, 2, 3])
    assert (
        both.similarity[0] == pytest.approx(1 / np.sqrt(1.01)) and (both.similarity[1:] == 1).all()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0}, "threshold=0 must"),
        ({"held_out": np.ones((2, 3))}, "3 columns"),
        ({"held_out": np.array([[np.nan, 0, 0, 0]])}, "has a NaN"),
        ({"pool": np.ones(4)}, "pool must have two axes"),
        ({"digests": np.arange(4)}, "must be given together"),
        (
            {"digests": np.arange(3), "held_out_digests": np.arange(4)},
            "digests has 3 entries, but there are 4 rows",
        ),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(jc.InputError, match=message):
        leaks(**({"pool": np.eye(4), "held_out": np.eye(4), "threshold": 0.9} | change))
