"""Pixels as embeddings, the simplest encoder."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.encoders.base import EmbedConfig, Encoder
from jaxcurate.runtime.devices import Devices


def make(
    settings: EmbedConfig, batches: Callable[[], Iterable[np.ndarray]], devices: Devices
) -> Encoder:
    """Returns the encoder, which needs no fitting."""
    del batches, devices
    return Encoder(_encode, (), settings.resolution)


def pixels(images: jax.Array, *, resolution: int | None = None) -> jax.Array:
    """Flattens items into rows.

    Args:
        images: uint8 ``[b, h, w, c]``, scaled to [0, 1]; or float vectors ``[b, d]``, which are
            returned unchanged.
        resolution: side in pixels that images are resized to; None keeps their size.

    Returns:
        float32 ``[b, d]``.

    Examples:
        >>> print(pixels(jnp.array([[[[0, 255, 0]]]], jnp.uint8)))
        [[0. 1. 0.]]
    """
    if images.ndim == 2:
        return images.astype(jnp.float32)
    scaled = images.astype(jnp.float32) / 255
    if resolution is not None and images.shape[1:3] != (resolution, resolution):
        shape = (images.shape[0], resolution, resolution, images.shape[3])
        scaled = jax.image.resize(scaled, shape, "linear", antialias=True)
    return scaled.reshape(len(images), -1)


def n_columns(side: int) -> int:
    """Returns the number of columns that square RGB images become.

    Args:
        side: side of the images in pixels.

    Examples:
        >>> n_columns(32)
        3072
    """
    return 3 * side**2


def _encode(images: jax.Array, params: tuple[()], *, resolution: int | None) -> jax.Array:
    del params
    return pixels(images, resolution=resolution)
