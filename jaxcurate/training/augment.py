"""Random views of images, on the device: crop, resize, flip, colors, blur, solarization."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.checks import InputError
from jaxcurate.training.objectives.base import Crop

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the gray value of a pixel (ITU-R BT.601)."""
_FINISH = 2**20
"""Number folded into the key of a group of views, for blur and solarization."""


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the random changes that make views of images.

    Raises:
        InputError: naming the field that cannot be used.

    Examples:
        >>> Augmentation(flip=0.0, brightness=0.8).brightness
        0.8
    """

    crop_scale: tuple[float, float] = (0.4, 1.0)
    """Smallest and largest area of the crop, as fractions of the image."""
    crop_ratio: float = 4 / 3
    """Largest ratio of the crop's sides, at least 1; the smallest ratio is its inverse."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    brightness: float = 0.4
    """Largest deviation from 1 of the factor that the image is multiplied by."""
    contrast: float = 0.4
    """Largest deviation from 1 of the factor that differences from the mean gray are multiplied
    by."""
    saturation: float = 0.4
    """Largest deviation from 1 of the factor that differences from the gray of the same pixel are
    multiplied by."""
    gray: float = 0.2
    """Probability of a conversion to grayscale."""
    blur: float = 0.0
    """Probability of a blur by a Gaussian."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the Gaussian, in pixels of the view."""
    solarize: float = 0.0
    """Probability of a solarization: the bright half of all values is inverted."""

    OLD_FIELDS: ClassVar[dict[str, str]] = {"grey": "gray"}

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise InputError(f"crop_scale={self.crop_scale} must be 0 < low <= high <= 1")
        if self.crop_ratio < 1:
            raise InputError(f"crop_ratio={self.crop_ratio} must be at least 1")
        low, high = self.blur_sigma
        if not 0 < low <= high:
            raise InputError(f"blur_sigma={self.blur_sigma} must be 0 < low <= high")
        fractions = ("flip", "brightness", "contrast", "saturation", "gray", "blur", "solarize")
        for name in fractions:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} must be within [0, 1]")


class Draw(NamedTuple):
    """Random changes of the images of a batch: ``[b]`` each, float32 and for ``flip`` bool."""

    height: jax.Array
    """Height of the crop, as a fraction of the image."""
    width: jax.Array
    """Width of the crop, as a fraction of the image."""
    top: jax.Array
    """Upper edge of the crop, as a fraction of the image."""
    left: jax.Array
    """Left edge of the crop, as a fraction of the image."""
    flip: jax.Array
    """True for images that are mirrored."""
    brightness: jax.Array
    """Factor of the brightness."""
    contrast: jax.Array
    """Factor of the contrast."""
    saturation: jax.Array
    """Factor of the saturation; 0 for grayscale."""


def scale(images: jax.Array) -> jax.Array:
    """Returns uint8 images as float32 in [-1, 1], the input of the encoders.

    Examples:
        >>> scale(jnp.array([0, 255], jnp.uint8)).tolist()
        [-1.0, 1.0]
    """
    return images.astype(jnp.float32) / 127.5 - 1


def draw(key: jax.Array, n: int, strength: Augmentation) -> Draw:
    """Returns ``n`` random changes of the given strength."""
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
        saturation=jnp.where(u[7] < strength.gray, 0, around_one(u[8], strength.saturation)),
    )


def resampling(
    start: jax.Array, extent: jax.Array, size: int, n_out: int | None = None
) -> jax.Array:
    """Returns matrices that crop one axis and resize it by bilinear interpolation.

    With them, a crop and its resize are two matrix products, which are fast on every backend.
    Where a crop has more pixels than the result, the triangle of the interpolation is as wide as
    needed that nothing aliases.

    Args:
        start: first edge of the crop, as a fraction of the axis, ``[b]``.
        extent: length of the crop, as a fraction of the axis, ``[b]``.
        size: number of pixels along the axis before.
        n_out: number of pixels after; ``size`` by default.

    Returns:
        float32 ``[b, n_out, size]``, output pixels by input pixels.

    Examples:
        >>> print(resampling(jnp.array([0.5]), jnp.array([0.5]), 2)[0])  # the second pixel, twice
        [[0.25 0.75]
         [0.   1.  ]]
    """
    n_out = size if n_out is None else n_out
    middle = (jnp.arange(n_out) + 0.5)[None, :]
    pixels = jnp.arange(size)[None, None, :]
    extent = extent * (size / n_out)  # pixels before for each pixel after
    if n_out >= size:  # a crop is never larger than the image, so that no low-pass is needed
        position = size * start[:, None] + middle * extent[:, None] - 0.5
        position = jnp.clip(position, 0, size - 1)
        return jnp.maximum(0, 1 - jnp.abs(position[:, :, None] - pixels))
    position = size * start[:, None] + middle * extent[:, None] - 0.5
    radius = jnp.maximum(1, extent)[:, None, None]
    weights = jnp.maximum(0, 1 - jnp.abs(position[:, :, None] - pixels) / radius)
    return weights / jnp.sum(weights, axis=2, keepdims=True)


def crop_and_flip(images: jax.Array, drawn: Draw, size: int | None = None) -> jax.Array:
    """Returns crops of images, resized and mirrored.

    Args:
        images: float32 ``[b, s, s, 3]``.
        drawn: the changes, from :func:`draw`.
        size: side of the result in pixels; that of the images by default.

    Returns:
        float32 ``[b, size, size, 3]``.
    """
    vertical = resampling(drawn.top, drawn.height, images.shape[1], size)
    horizontal = resampling(drawn.left, drawn.width, images.shape[2], size)
    horizontal = jnp.where(drawn.flip[:, None, None], horizontal[:, ::-1], horizontal)
    x = jnp.einsum("bij,bjkc->bikc", vertical, images, precision="highest")
    return jnp.einsum("bxk,bikc->bixc", horizontal, x, precision="highest")


def recolor(x: jax.Array, drawn: Draw) -> jax.Array:
    """Returns images ``[b, s, s, 3]`` in [-1, 1] with changed colors."""

    def each(v: jax.Array) -> jax.Array:
        return v[:, None, None, None]

    luma = jnp.asarray(LUMA, jnp.float32)[None, None, None]
    # Black is -1, and brightness scales the difference from black.
    x = (x + 1) * each(drawn.brightness)
    middle = jnp.mean(jnp.sum(x * luma, axis=-1), axis=(1, 2))
    x = each(drawn.contrast) * x + each((1 - drawn.contrast) * middle)
    gray = jnp.sum(x * luma, -1, keepdims=True)
    x = each(drawn.saturation) * x + each(1 - drawn.saturation) * gray
    return jnp.clip(x - 1, -1, 1)


def apply(images: jax.Array, drawn: Draw, size: int | None = None) -> jax.Array:
    """Returns images with random changes applied.

    Args:
        images: float32 ``[b, s, s, 3]`` in [-1, 1].
        drawn: the changes, from :func:`draw`.
        size: side of the result in pixels; that of the images by default.

    Returns:
        float32 ``[b, size, size, 3]`` in [-1, 1].
    """
    return recolor(crop_and_flip(images, drawn, size), drawn)


def blurred(x: jax.Array, sigma: jax.Array) -> jax.Array:
    """Returns images blurred by Gaussians, whose weights are renormalized at the edges.

    Args:
        x: float32 ``[b, s, s, 3]``.
        sigma: standard deviation for each image in pixels, ``[b]``; 0 to leave the image as it is.

    Examples:
        >>> point = jnp.zeros((1, 5, 5, 3)).at[0, 2, 2].set(1)
        >>> bool(blurred(point, jnp.array([0.0]))[0, 2, 2, 0] == 1)
        True
    """

    def matrix(size: int) -> jax.Array:
        pixels = jnp.arange(size, dtype=jnp.float32)
        distance = pixels[:, None] - pixels[None, :]
        # At 0.05 pixels the weight of a neighbor is 0 in float32.
        width = jnp.maximum(sigma, 0.05)[:, None, None]
        weights = jnp.exp(-0.5 * (distance[None] / width) ** 2)
        return weights / jnp.sum(weights, axis=2, keepdims=True)

    x = jnp.einsum("bij,bjkc->bikc", matrix(x.shape[1]), x, precision="highest")
    return jnp.einsum("bxk,bikc->bixc", matrix(x.shape[2]), x, precision="highest")


def finish(key: jax.Array, x: jax.Array, strength: Augmentation) -> jax.Array:
    """Returns images blurred and solarized at random, if the strengths say so.

    Args:
        key: the PRNG key of the views.
        x: float32 ``[b, s, s, 3]`` in [-1, 1].
        strength: the strengths of the changes.
    """
    u = jax.random.uniform(jax.random.fold_in(key, _FINISH), (3, len(x)))
    if strength.blur:
        low, high = strength.blur_sigma
        x = blurred(x, jnp.where(u[0] < strength.blur, low + (high - low) * u[1], 0))
    if strength.solarize:
        inverted = (u[2] < strength.solarize)[:, None, None, None] & (x > 0)
        x = jnp.where(inverted, -x, x)
    return x


def crops_of(
    key: jax.Array, images: jax.Array, crops: Sequence[Crop], strength: Augmentation
) -> tuple[jax.Array, ...]:
    """Returns random views of small images, for each group of crops.

    Args:
        key: a PRNG key.
        images: uint8 ``[b, s, s, 3]``.
        crops: groups of crops, of any size.
        strength: the strengths of the changes.

    Returns:
        float32 ``[n * b, size, size, 3]`` in [-1, 1] for each group.
    """
    return tuple(
        augment(group_key, jnp.concatenate([images] * crop.n), of_group, crop.size)
        for crop, group_key, of_group in _groups(key, crops, strength)
    )


def recolored_crops(
    key: jax.Array, images: Sequence[jax.Array], crops: Sequence[Crop], strength: Augmentation
) -> tuple[jax.Array, ...]:
    """Returns random views of crops that were made before: flipped, with other colors.

    Args:
        key: a PRNG key.
        images: uint8 ``[n * b, size, size, 3]`` for each group of crops.
        crops: groups of crops.
        strength: the strengths of the changes.

    Returns:
        float32 ``[n * b, size, size, 3]`` in [-1, 1] for each group.
    """
    views = []
    groups = _groups(key, crops, strength)
    for group, (_, group_key, of_group) in zip(images, groups, strict=True):
        drawn = draw(group_key, len(group), of_group)
        x = scale(group)
        x = jnp.where(drawn.flip[:, None, None, None], x[:, :, ::-1], x)
        views.append(finish(group_key, recolor(x, drawn), of_group))
    return tuple(views)


def augment(
    key: jax.Array, images: jax.Array, strength: Augmentation, size: int | None = None
) -> jax.Array:
    """Returns one random view of each image.

    Args:
        key: a PRNG key.
        images: uint8 ``[b, s, s, 3]``.
        strength: the strengths of the changes.
        size: side of the views in pixels; that of the images by default.

    Returns:
        float32 ``[b, size, size, 3]`` in [-1, 1].
    """
    drawn = draw(key, len(images), strength)
    return finish(key, apply(scale(images), drawn, size), strength)


_UNCHANGED = dict(brightness=0.0, contrast=0.0, saturation=0.0, gray=0.0, blur=0.0, solarize=0.0)
"""Strengths of the changes of colors, where there are none."""


def _groups(
    key: jax.Array, crops: Sequence[Crop], strength: Augmentation
) -> list[tuple[Crop, jax.Array, Augmentation]]:
    """Returns each group of crops with its key and its strengths."""
    groups = []
    for i, crop in enumerate(crops):
        of_group = strength if crop.scale is None else replace(strength, crop_scale=crop.scale)
        if not crop.recolor:
            of_group = replace(of_group, **_UNCHANGED)
        groups.append((crop, key if i == 0 else jax.random.fold_in(key, i), of_group))
    return groups
