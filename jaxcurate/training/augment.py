"""Random views of images, on the device: crop and resize, flip, colour jitter, grey."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.checks import InputError

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the random changes."""

    crop_scale: tuple[float, float] = (0.4, 1.0)
    """Least and greatest area of the crop, as fractions of the image."""
    crop_ratio: float = 4 / 3
    """Greatest ratio of the crop's sides, at least 1; its inverse is the least."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    brightness: float = 0.4
    """Largest change of the factor 1 that the image is multiplied by."""
    contrast: float = 0.4
    """Largest change of the factor 1 that distances from the mean gray are multiplied by."""
    saturation: float = 0.4
    """Largest change of the factor 1 that distances from a pixel's own gray are multiplied by."""
    grey: float = 0.2
    """Probability of losing the colors altogether."""

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise InputError(f"crop_scale={self.crop_scale} must be 0 < low <= high <= 1")
        if self.crop_ratio < 1:
            raise InputError(f"crop_ratio={self.crop_ratio} must be at least 1")
        for name in ("flip", "brightness", "contrast", "saturation", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} must be within [0, 1]")


class Draw(NamedTuple):
    """Random choices for a batch: one float32 ``[b]`` each, ``flip`` and ``grey`` bool."""

    height: jax.Array
    width: jax.Array
    top: jax.Array
    left: jax.Array
    flip: jax.Array
    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array


def scale(images: jax.Array) -> jax.Array:
    """Maps uint8 images to float32 in [-1, 1], which is what the encoders see."""
    return images.astype(jnp.float32) / 127.5 - 1


def draw(key: jax.Array, n: int, strength: Augmentation) -> Draw:
    """Draws ``n`` random changes; sides and corners are shares of the image."""
    u = jax.random.uniform(key, (9, n))
    low, high = strength.crop_scale
    area = low + (high - low) * u[0]
    ratio = jnp.exp((2 * u[1] - 1) * jnp.log(strength.crop_ratio))
    height = jnp.minimum(1, jnp.sqrt(area / ratio))
    width = jnp.minimum(1, jnp.sqrt(area * ratio))

    def around_one(v: jax.Array, s: float) -> jax.Array:
        return 1 + s * (2 * v - 1)

    return Draw(
        height=height,
        width=width,
        top=(1 - height) * u[2],
        left=(1 - width) * u[3],
        flip=u[4] < strength.flip,
        brightness=around_one(u[5], strength.brightness),
        contrast=around_one(u[6], strength.contrast),
        saturation=jnp.where(u[7] < strength.grey, 0, around_one(u[8], strength.saturation)),
    )


def resampling(start: jax.Array, extent: jax.Array, size: int) -> jax.Array:
    """Matrices that crop and stretch one axis, bilinear: float32 ``[b, size out, size in]``.

    A crop and its resize are then two matrix products, which every backend does well; a crop is
    never larger than the image, so that nothing needs low-pass filtering.

    Args:
        start: ``[b]`` where the crop begins, as a share of the axis.
        extent: ``[b]`` its length, as a share of the axis.
        size: pixels along the axis, before and after.
    """
    center = (jnp.arange(size) + 0.5)[None, :]
    at = size * start[:, None] + center * extent[:, None] - 0.5
    at = jnp.clip(at, 0, size - 1)
    return jnp.maximum(0, 1 - jnp.abs(at[:, :, None] - jnp.arange(size)[None, None, :]))


def apply(images: jax.Array, d: Draw) -> jax.Array:
    """Changes float32 images ``[b, s, s, 3]`` in [-1, 1] as drawn; the result stays in [-1, 1]."""
    size = images.shape[1]
    vertical = resampling(d.top, d.height, size)
    horizontal = resampling(d.left, d.width, size)
    horizontal = jnp.where(d.flip[:, None, None], horizontal[:, ::-1], horizontal)
    x = jnp.einsum("bij,bjkc->bikc", vertical, images, precision="highest")
    x = jnp.einsum("bxk,bikc->bixc", horizontal, x, precision="highest")

    def each(v: jax.Array) -> jax.Array:
        return v[:, None, None, None]

    luma = jnp.asarray(LUMA, jnp.float32)[None, None, None]
    # Black is -1 here: brightness is a multiple of the distance from black.
    x = (x + 1) * each(d.brightness)
    middle = jnp.mean(jnp.sum(x * luma, axis=-1), axis=(1, 2))
    x = each(d.contrast) * x + each((1 - d.contrast) * middle)
    x = each(d.saturation) * x + each(1 - d.saturation) * jnp.sum(x * luma, -1, keepdims=True)
    return jnp.clip(x - 1, -1, 1)


def augment(key: jax.Array, images: jax.Array, strength: Augmentation) -> jax.Array:
    """Returns one random view of each image.

    Args:
        key: a PRNG key.
        images: uint8 ``[b, s, s, 3]``.
        strength: how strong the changes are.

    Returns:
        float32 ``[b, s, s, 3]`` in [-1, 1].
    """
    return apply(scale(images), draw(key, len(images), strength))
