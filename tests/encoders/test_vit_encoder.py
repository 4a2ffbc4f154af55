"""The encoder of published Vision Transformers against its model, on several devices."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.encoders import EmbedConfig, embed, make_encoder
from jaxcurate.models import PictureInput, ViT, ViTConfig, save_vit
from jaxcurate.runtime.devices import ONE_DEVICE

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def model():
    config = ViTConfig(image_size=16, patch_size=4, width=16, depth=1, n_heads=2)
    return ViT(config, rngs=nnx.Rngs(0))


@pytest.fixture
def folder(tmp_path, model):
    picture = PictureInput(16, 20, "bilinear", True, MEAN, STD)
    save_vit(model, tmp_path / "weights", picture=picture)
    return str(tmp_path / "weights")


def made(settings, devices):
    return make_encoder(settings, lambda prepare: iter(()), devices)


def test_features_are_those_of_the_model(folder, model, devices):
    encoder = made(EmbedConfig("vit", weights=folder), devices)
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
    features = embed(encoder, images, batch_size=12, devices=devices)
    scaled = (images / 255 - np.array(MEAN)) / np.array(STD)
    expected = model(jnp.asarray(scaled, jnp.float32))
    np.testing.assert_allclose(features, expected, atol=1e-5)
    rough = made(EmbedConfig("vit", weights=folder, precision="bfloat16"), ONE_DEVICE)
    near = embed(rough, images, batch_size=12, devices=ONE_DEVICE)
    assert 0 < np.abs(near - features).max() < 0.1


def test_pictures_are_cropped_as_the_folder_asks(folder, devices):
    # Columns of 10 pixels: of a shorter side of 20, 16 are kept, from the center of the picture.
    picture = Image.fromarray(np.repeat(np.arange(60, dtype=np.uint8)[None], 40, 0)).convert("RGB")
    encoder = made(EmbedConfig("vit", weights=folder), devices)
    prepared = encoder.prepare(picture)
    assert prepared.shape == (16, 16, 3) and prepared.dtype == np.uint8
    expected = 29.5 + 2 * (np.arange(16) - 7.5)
    np.testing.assert_allclose(prepared[8, :, 0], expected, atol=1)
    squashed = made(EmbedConfig("vit", weights=folder, fit="squash"), devices).prepare(picture)
    np.testing.assert_allclose(squashed[8, :, 0], 29.5 + 3.75 * (np.arange(16) - 7.5), atol=1)
    larger = made(EmbedConfig("vit", weights=folder, resolution=32), devices).prepare(picture)
    assert larger.shape == (32, 32, 3)
    assert np.ptp(larger[8, :, 0].astype(int)) == pytest.approx(31, abs=1)  # the same fraction


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(weights=None), "embed.encoder='vit' needs embed.weights: a folder or hf:NAME"),
        (dict(weights="/nowhere"), "/nowhere: there is no such folder"),
        (dict(resolution=3), "embed.resolution=3 is less than a patch of 4 pixels"),
    ],
)
def test_what_cannot_be_used_is_named(folder, fields, words):
    with pytest.raises(InputError, match=words):
        made(EmbedConfig("vit", **dict(weights=folder) | fields), ONE_DEVICE)
