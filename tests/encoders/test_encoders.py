"""Encoders against scikit-learn, on one device and on several."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA as SklearnPCA

from jaxcurate.checks import InputError
from jaxcurate.encoders import EmbedConfig, Encoder, embed, make_encoder
from jaxcurate.encoders.pca import fit_pca
from jaxcurate.runtime.devices import ONE_DEVICE


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 8 * 8 * 3)) * 15
    noise = 4 * rng.normal(size=parts.shape)
    return np.clip(parts + noise + 128, 0, 255).astype(np.uint8).reshape(-1, 8, 8, 3)


def encode(images, settings, devices, batch=128):
    batches = [images[i : i + batch] for i in range(0, len(images), batch)]
    kind = "vector" if images.ndim == 2 else "picture"
    encoder = make_encoder(settings, lambda prepare: iter(batches), devices, kind)
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


def test_pixels_are_flattened(images, devices):
    out = encode(images, EmbedConfig("pixels"), devices)
    np.testing.assert_allclose(out, images.reshape(len(images), -1) / 255, atol=1e-6)


@pytest.mark.parametrize("name", ["pixels", "pca", "efficientnet_lite0"])
def test_pictures_are_read_at_the_size_of_the_encoder(name):
    color = Image.new("RGB", (60, 30), (51, 102, 204))
    own = {"pixels": 32, "pca": 32, "efficientnet_lite0": 224}[name]
    for side in (None, 4):
        for fit in (None, "crop", "squash", "pad"):
            prepare = prepare_of(name, EmbedConfig(name, resolution=side, fit=fit))
            small = prepare(color)
            assert small.shape == (side or own, side or own, 3) and small.dtype == np.uint8
            assert (small[small.shape[0] // 2] == (51, 102, 204)).all()
            assert (small[0] == (255 if fit == "pad" else (51, 102, 204))).all()


def prepare_of(name, settings):
    if name == "pca":
        return make_encoder(
            settings, lambda prepare: [np.zeros((2, 4, 4, 3), np.uint8)], ONE_DEVICE
        ).prepare
    return make_encoder(settings, lambda prepare: [], ONE_DEVICE).prepare


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_given_vectors_stay_as_they_are(devices, dtype):
    x = (np.random.default_rng(0).normal(size=(5, 3)) * 9).astype(jnp.dtype(dtype))
    out = encode(x, EmbedConfig(), devices)
    assert out.dtype == x.dtype
    np.testing.assert_array_equal(out, x)


def reverse_each(items):
    """Returns the lengths of texts, or rows from the last column to the first."""
    if isinstance(items, np.ndarray):
        return items[:, ::-1]
    return np.array([[len(item)] for item in items])


def test_a_function_of_the_users_is_an_encoder(devices):
    settings = EmbedConfig(f"{__name__}:reverse_each")
    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(encode(x, settings, devices), x[:, ::-1])
    encoder = make_encoder(settings, lambda prepare: [], devices, "text")
    lengths = embed(encoder, [encoder.prepare("abc"), "ab"], batch_size=9, devices=devices)
    assert lengths.tolist() == [[3.0], [2.0]] and lengths.dtype == np.float32


def test_a_function_in_the_current_folder_is_an_encoder(tmp_path, monkeypatch, devices):
    (tmp_path / "an_encoder_of_mine.py").write_text("def twice(items):\n    return 2 * items\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    x = np.arange(6.0).reshape(2, 3)
    settings = EmbedConfig("an_encoder_of_mine:twice")
    np.testing.assert_array_equal(encode(x, settings, devices), 2 * x)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:f", "cannot be imported: No module named 'no_such_package'"),
        ("numpy:no_such_function", "cannot be imported: module 'numpy' has no attribute"),
        ("numpy:pi", "is float, not a function"),
        (":f", "cannot be imported"),
    ],
)
def test_what_is_no_function_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        make_encoder(EmbedConfig(name), lambda prepare: [], ONE_DEVICE, "vector")


def test_a_function_that_returns_something_else_is_refused():
    for name in ("numpy:ravel", "numpy:isnan", "numpy:sum"):
        encoder = make_encoder(EmbedConfig(name), lambda prepare: [], ONE_DEVICE, "vector")
        with pytest.raises(InputError, match=r"an array \[2, d\] of real numbers is needed"):
            embed(encoder, np.ones((2, 3)), batch_size=2, devices=ONE_DEVICE)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("pixels", "vector", "takes pictures, but the items are vectors: 'identity' takes these"),
        ("identity", "picture", "takes vectors, but the items are pictures: 'efficientnet_lite0'"),
        ("pca", "text", "takes pictures and vectors, but the items are texts: 'bert'"),
    ],
)
def test_an_encoder_of_other_items_is_refused(name, kind, message):
    with pytest.raises(InputError, match=message):
        make_encoder(EmbedConfig(name), lambda prepare: [np.ones((3, 2))], ONE_DEVICE, kind)


def test_a_precision_that_an_encoder_does_not_have_is_refused():
    settings = EmbedConfig("pixels", precision="bfloat16")
    with pytest.raises(InputError, match=r"embed\.encoder='pixels' computes in float32"):
        make_encoder(settings, lambda prepare: [], ONE_DEVICE)


def test_texts_are_grouped_by_length(devices):
    """Every text is encoded with the entries that it uses, in the shortest length that has room."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 101, 300)
    tokens = np.where(np.arange(100) < lengths[:, None], rng.integers(1, 9, (300, 100)), 0)
    seen = []

    def total(batch, params):
        seen.append(batch.shape[1])
        return jnp.stack([batch.sum(1), jnp.full(len(batch), batch.shape[1])], 1) * 1.0

    encoder = Encoder(total, (), ("text",), n_used=lambda tokens: (tokens > 0).sum(1))
    out = embed(encoder, list(tokens), batch_size=1000, devices=devices)
    np.testing.assert_array_equal(out[:, 0], tokens.sum(1))
    np.testing.assert_array_equal(
        out[:, 1], np.select([lengths <= 32, lengths <= 64], [32, 64], 100)
    )
    assert sorted(set(seen)) == [32, 64, 100]


def test_pca_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="pca of 12288 columns, at most 8192"):
        fit_pca([np.zeros((2, 64, 64, 3), np.uint8)], 2)
    with pytest.raises(ValueError, match="no items"):
        fit_pca([], 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder": "clip"}, "encoder='clip'; known: 'identity', 'pixels', 'pca'"),
        ({"n_components": 0}, "n_components=0"),
        ({"resolution": -1}, "resolution=-1"),
        ({"resolution": 0}, "resolution=0 must be at least 1; None takes that of the encoder"),
        ({"weights": ""}, "weights='' must not be empty; None takes those"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"fit": "stretch"}, "fit='stretch'; known: 'crop', 'pad', 'squash'"),
        ({"precision": "float8"}, "precision='float8'"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        EmbedConfig(**fields)
