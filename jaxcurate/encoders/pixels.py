"""Pixels as embeddings, the simplest encoder of pictures."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxcurate.encoders.base import Batches, EmbedConfig, Encoder
from jaxcurate.runtime.devices import Devices
from jaxcurate.sources.pictures import Fit, square

RESOLUTION = 32
"""Default side in pixels of the squares that pictures are read as."""


def make(settings: EmbedConfig, batches: Batches, devices: Devices) -> Encoder:
    """Returns the encoder, which needs no fitting."""
    del batches, devices
    return Encoder(_encode, (), ("picture",), prepare(settings))


def prepare(settings: EmbedConfig) -> "functools.partial[np.ndarray]":
    """Returns the function from a picture to a small square of averages over areas."""
    side = settings.resolution or RESOLUTION
    return functools.partial(_small, side=side, fit=settings.fit or "crop")


def pixels(images: jax.Array) -> jax.Array:
    """Flattens items into rows.

    Args:
        images: uint8 ``[b, h, w, c]``, scaled to [0, 1]; or vectors ``[b, d]`` of any type, which
            become float32.

    Returns:
        float32 ``[b, d]``.

    Examples:
        >>> print(pixels(jnp.array([[[[0, 255, 0]]]], jnp.uint8)))
        [[0. 1. 0.]]
    """
    if images.ndim == 2:
        return images.astype(jnp.float32)
    return (images.astype(jnp.float32) / 255).reshape(len(images), -1)


def n_columns(side: int) -> int:
    """Returns the number of columns that square RGB images become.

    Args:
        side: side of the images in pixels.

    Examples:
        >>> n_columns(32)
        3072
    """
    return 3 * side**2


def _small(picture: Image.Image, side: int, fit: Fit) -> np.ndarray:
    return np.asarray(square(picture, side, fit))


def _encode(images: jax.Array, params: Any) -> jax.Array:
    del params
    return pixels(images)
