"""RankMe against a brute-force reference, on the host and on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcurate.checks import InputError
from jaxcurate.training.rankme import rankme, rankme_on_device


def reference(x):
    """Effective rank from the eigenvalues of the Gram matrix of the shorter side."""
    x = np.asarray(x, np.float64)
    gram = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    values = [max(0.0, v) ** 0.5 for v in np.linalg.eigvalsh(gram)]
    entropy = 0.0
    for value in values:
        part = value / sum(values)
        if part > 0:
            entropy -= part * np.log(part)
    return np.exp(entropy)


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (12, 12), (1, 5), (5, 1)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int8])
def test_rankme_equals_the_reference(shape, dtype):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=shape) * np.linspace(5, 1, shape[1])).astype(dtype)
    np.testing.assert_allclose(rankme(x), reference(x), rtol=1e-6)
    np.testing.assert_allclose(rankme_on_device(jnp.asarray(x)), reference(x), rtol=1e-4)


@pytest.mark.parametrize("spectrum", [[1, 1, 1, 1], [4, 3, 2, 1], [1, 1e-3, 0, 0], [7, 0, 0, 0]])
def test_rankme_of_known_singular_values(spectrum):
    rng = np.random.default_rng(1)
    left, _ = np.linalg.qr(rng.normal(size=(30, 4)))
    right, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    part = np.asarray(spectrum) / np.sum(spectrum)
    expected = np.exp(-sum(p * np.log(p) for p in part if p > 0))
    x = (left * spectrum) @ right
    assert rankme(x) == pytest.approx(expected, rel=1e-9)
    assert float(rankme_on_device(jnp.asarray(x))) == pytest.approx(expected, rel=1e-3)


def test_collapse_is_seen_and_units_are_not():
    rng = np.random.default_rng(2)
    spread = rng.normal(size=(500, 32))
    assert rankme(spread) > 30
    collapsed = rng.normal(size=32) + 1e-4 * spread
    assert rankme(collapsed) < 1.1 < 20 < rankme(collapsed - collapsed.mean(axis=0))
    for factor in (1e-200, 1e200):
        assert rankme(factor * spread) == pytest.approx(rankme(spread), rel=1e-9)
    assert float(rankme_on_device(jnp.asarray(collapsed))) < 1.1


def test_rank_of_zeros_is_zero():
    assert rankme(np.zeros((4, 3))) == 0
    assert float(rankme_on_device(jnp.zeros((4, 3)))) == 0


def test_on_device_under_jit_and_vmap():
    x = np.random.default_rng(3).normal(size=(3, 20, 6))
    got = jax.jit(jax.vmap(rankme_on_device))(jnp.asarray(x, jnp.bfloat16))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [reference(each) for each in x], rtol=1e-2)


@pytest.mark.parametrize(
    "x, words",
    [
        (np.zeros(5), r"features of shape \(5,\)"),
        (np.zeros((0, 5)), r"features of shape \(0, 5\)"),
        (np.zeros((2, 3, 4)), "features of shape"),
        (np.array([[1.0, 2], [np.nan, 1]]), "features has a NaN or an infinity, first in row 1"),
        (np.array([["a"]]), "features must hold real numbers"),
    ],
)
def test_bad_features_are_refused(x, words):
    with pytest.raises(InputError, match=words):
        rankme(x)
