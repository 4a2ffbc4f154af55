"""Encoders against scikit-learn, on one device and on several."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA as SklearnPCA

from jaxcurate.encoders import EmbedConfig, embed, make_encoder
from jaxcurate.encoders.pca import fit_pca
from jaxcurate.encoders.pixels import pixels
from jaxcurate.runtime.devices import ONE_DEVICE


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 8 * 8 * 3)) * 15
    noise = 4 * rng.normal(size=parts.shape)
    return np.clip(parts + noise + 128, 0, 255).astype(np.uint8).reshape(-1, 8, 8, 3)


def encode(images, settings, devices, batch=128):
    batches = [images[i : i + batch] for i in range(0, len(images), batch)]
    encoder = make_encoder(settings, lambda: iter(batches), devices)
    parts = [embed(encoder, b, batch_size=batch, devices=devices) for b in batches]
    return np.concatenate(parts)


@pytest.mark.parametrize("n_components", [5, 100])
def test_pca_is_that_of_scikit_learn(images, devices, n_components):
    ours = encode(images, EmbedConfig("pca", n_components), devices)
    flat = images.reshape(len(images), -1) / 255
    theirs = SklearnPCA(n_components, svd_solver="full").fit(flat)
    np.testing.assert_allclose(ours.var(0), theirs.explained_variance_, rtol=0.01)
    np.testing.assert_allclose(ours.mean(0), 0, atol=1e-5)
    expected = theirs.transform(flat)
    signs = np.sign((ours * expected).sum(0))
    first = slice(0, 5)  # later directions have variances too close to tell them apart
    np.testing.assert_allclose(ours[:, first], (expected * signs)[:, first], atol=1e-3)


def test_pca_does_not_depend_on_devices_or_batches(images, devices):
    single = encode(images, EmbedConfig("pca", 4), ONE_DEVICE, batch=500)
    four = encode(images, EmbedConfig("pca", 4), devices, batch=64)
    np.testing.assert_allclose(single, four, atol=1e-4)


def test_pca_of_vectors_keeps_distances(devices):
    x = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    out = encode(x, EmbedConfig("pca", 99), devices)
    assert out.shape == (50, 7)
    distances = [np.linalg.norm(a[:, None] - a[None], axis=-1) for a in (x, out)]
    np.testing.assert_allclose(*distances, atol=1e-4)


def test_pixels_flatten_and_resize(images, devices):
    out = encode(images, EmbedConfig("pixels"), devices)
    np.testing.assert_allclose(out, images.reshape(len(images), -1) / 255, atol=1e-6)
    small = encode(images, EmbedConfig("pixels", resolution=4), devices)
    assert small.shape == (500, 48)
    flat = np.full((1, 8, 8, 3), 51, np.uint8)
    np.testing.assert_allclose(pixels(jnp.asarray(flat), resolution=4), 0.2, atol=1e-6)


def test_pixels_take_vectors_as_they_are(devices):
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(encode(x, EmbedConfig("pixels"), devices), x)


def test_pca_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="pca of 12288 columns, at most 8192"):
        fit_pca([np.zeros((2, 64, 64, 3), np.uint8)], 2)
    with pytest.raises(ValueError, match="no items"):
        fit_pca([], 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder": "clip"}, "encoder='clip'; known: 'pixels', 'pca', 'efficientnet_lite0'"),
        ({"n_components": 0}, "n_components=0"),
        ({"resolution": -1}, "resolution=-1"),
        ({"resolution": 0}, "resolution=0 must be at least 1; None keeps the size"),
        ({"weights": ""}, "weights='' must not be empty; None takes those"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        EmbedConfig(**fields)
