"""The plainest encoder: pixels as they are."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.encoders.base import EmbedConfig, Encoder
from jaxcurate.runtime.devices import Devices


def make(
    settings: EmbedConfig, batches: Callable[[], Iterable[np.ndarray]], devices: Devices
) -> Encoder:
    """Returns the encoder, which is fitted to nothing."""
    del batches, devices
    return Encoder(_encode, (), settings.resolution)


def pixels(images: jax.Array, *, resolution: int | None = None) -> jax.Array:
    """Flattens items into rows.

    Args:
        images: uint8 ``[b, h, w, c]``, which become numbers in [0, 1]; vectors ``[b, d]`` of
            floats are taken as they are.
        resolution: images are resized to so many pixels a side; None keeps their size.

    Returns:
        float32 ``[b, d]``.
    """
    if images.ndim == 2:
        return images.astype(jnp.float32)
    scaled = images.astype(jnp.float32) / 255
    if resolution is not None and images.shape[1:3] != (resolution, resolution):
        shape = (images.shape[0], resolution, resolution, images.shape[3])
        scaled = jax.image.resize(scaled, shape, "linear", antialias=True)
    return scaled.reshape(len(images), -1)


def n_columns(side: int) -> int:
    """Returns the width of the rows that RGB images of so many pixels a side become."""
    return 3 * side**2


def _encode(images: jax.Array, params: tuple[()], *, resolution: int | None) -> jax.Array:
    del params
    return pixels(images, resolution=resolution)
