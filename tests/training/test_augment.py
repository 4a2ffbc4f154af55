"""Views of another size, blur, solarization, and views of crops that were made before."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.training import Augmentation, augment
from jaxcurate.training.objectives import Crop

STILL = Augmentation(
    crop_scale=(1, 1), crop_ratio=1, flip=0, brightness=0, contrast=0, saturation=0, gray=0
)
"""An augmentation that changes nothing."""


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3)).astype(np.uint8)


@pytest.mark.parametrize("n_out", [3, 5, 7, 12, 20])
def test_crops_of_any_size_are_those_of_pillow(n_out):
    """Pillow's triangle filter, on one row of numbers in float32."""
    row = np.random.default_rng(1).normal(size=12).astype(np.float32)
    starts, extents = np.array([0.0, 0.1, 0.55, 0.3]), np.array([1.0, 0.8, 0.45, 0.1])
    got = augment.resampling(
        jnp.asarray(starts, jnp.float32), jnp.asarray(extents, jnp.float32), 12, n_out
    )
    assert got.shape == (4, n_out, 12)
    for matrix, start, extent in zip(np.asarray(got), starts, extents, strict=True):
        box = (12 * start, 0, 12 * min(1, start + extent), 1)
        wanted = Image.fromarray(row[None]).resize((n_out, 1), Image.Resampling.BILINEAR, box=box)
        np.testing.assert_allclose(matrix @ row, np.asarray(wanted)[0], atol=2e-5)


def test_smaller_views_are_averages(images):
    crops = (Crop(1, 12), Crop(2, 4))
    whole, small = augment.crops_of(jax.random.key(0), jnp.asarray(images), crops, STILL)
    assert whole.shape == (6, 12, 12, 3) and small.shape == (12, 4, 4, 3)
    np.testing.assert_array_equal(small[:6], small[6:])
    for i in range(6):
        for channel in range(3):
            plane = Image.fromarray(np.asarray(whole)[i, :, :, channel])
            wanted = np.asarray(plane.resize((4, 4), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(small[i, :, :, channel], wanted, atol=1e-5)


def test_the_usual_views_are_crops_and_colors_alone(images):
    """The bits of pretraining stay: blur and solarization take nothing from the random numbers."""
    key, x = jax.random.key(5), jnp.asarray(images)
    drawn = augment.draw(key, 6, Augmentation())
    wanted = augment.apply(augment.scale(x), drawn)
    np.testing.assert_array_equal(augment.augment(key, x, Augmentation()), wanted)
    blurred = augment.augment(key, x, Augmentation(blur=1.0, blur_sigma=(0.01, 0.01)))
    np.testing.assert_allclose(blurred, wanted, atol=1e-6)


def test_blur_is_a_gaussian():
    x = np.random.default_rng(2).normal(size=(3, 9, 9, 3))
    sigma = np.array([0.0, 0.7, 2.0])
    got = augment.blurred(jnp.asarray(x, jnp.float32), jnp.asarray(sigma, jnp.float32))
    np.testing.assert_array_equal(got[0], x[0].astype(np.float32))
    distance = np.subtract.outer(np.arange(9), np.arange(9))
    for i in (1, 2):
        weights = np.exp(-(distance**2) / (2 * sigma[i] ** 2))
        weights /= weights.sum(axis=1, keepdims=True)
        wanted = np.einsum("ij,kl,jlc->ikc", weights, weights, x[i])
        np.testing.assert_allclose(got[i], wanted, atol=2e-6)


def test_blur_and_solarization_are_as_frequent_as_asked(images):
    x = augment.scale(jnp.asarray(np.repeat(images[:1], 400, axis=0)))
    for change in (dict(blur=0.3, blur_sigma=(1.0, 2.0)), dict(solarize=0.3)):
        strength = dataclasses.replace(STILL, **change)
        y = augment.finish(jax.random.key(1), x, strength)
        changed = np.abs(y - x).max(axis=(1, 2, 3)) > 1e-3
        assert 0.2 < changed.mean() < 0.4


def test_solarization_inverts_the_bright_half():
    values = jnp.broadcast_to(jnp.arange(256, dtype=jnp.uint8)[None, :, None, None], (1, 256, 1, 3))
    y = augment.finish(
        jax.random.key(0), augment.scale(values), dataclasses.replace(STILL, solarize=1.0)
    )
    wanted = np.where(np.arange(256) >= 128, 255 - np.arange(256), np.arange(256))
    np.testing.assert_allclose((y[0, :, 0, 0] + 1) * 127.5, wanted, atol=1e-4)


def test_crops_of_the_host_get_the_colors_of_crops_on_the_device(images):
    """A crop of the whole picture is the picture, whoever makes it."""
    strength = dataclasses.replace(
        Augmentation(), crop_scale=(1, 1), crop_ratio=1, blur=0.5, solarize=0.5
    )
    crops = (Crop(2, 12), Crop(1, 12, recolor=False))
    key, x = jax.random.key(3), jnp.asarray(images)
    wanted = augment.crops_of(key, x, crops, strength)
    got = augment.recolored_crops(key, [jnp.concatenate([x, x]), x], crops, strength)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    plain = augment.scale(x)
    mirrored = np.abs(got[1] - plain).max(axis=(1, 2, 3)) > 1e-6
    expected = np.where(mirrored[:, None, None, None], plain[:, :, ::-1], plain)
    np.testing.assert_allclose(got[1], expected, atol=1e-6)
    assert 0 < mirrored.sum() < 6


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(blur=1.5), r"blur=1.5 must be within \[0, 1\]"),
        (dict(solarize=-0.1), "solarize=-0.1"),
        (dict(blur_sigma=(0.0, 1.0)), r"blur_sigma=\(0.0, 1.0\)"),
        (dict(blur_sigma=(2.0, 1.0)), "blur_sigma"),
    ],
)
def test_impossible_strengths_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        Augmentation(**change)
