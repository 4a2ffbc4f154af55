"""ImageNet features of EfficientNet-Lite0, as an encoder."""

import functools
import os
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.encoders.base import Batches, EmbedConfig, Encoder
from jaxcurate.models import efficientnet
from jaxcurate.runtime.devices import Devices
from jaxcurate.sources.pictures import Fit, square

_BYTES = 216
"""Number of bytes per pixel in the widest layers of the network, as measured: 10.8 GB for 1,024
images of 224 pixels a side."""
RESOLUTION = 224
"""Side in pixels of the squares that the network was trained with."""
_SHORTER = 256 / 224
"""Length of the shorter side, as a multiple of the crop, as the weights are evaluated."""


def make(settings: EmbedConfig, batches: Batches, devices: Devices) -> Encoder:
    """Returns the encoder with the published weights, from its package or a file.

    Raises:
        InputError: the weights cannot be read, or are not the published ones.
    """
    del batches, devices  # it is fitted to nothing
    try:
        weights = settings.weights
        params = efficientnet.load(None if weights is None else os.path.expanduser(weights))
    except FileNotFoundError as error:
        missing = f"embed.weights={settings.weights!r}: there is no such file"
        raise InputError(missing if settings.weights else str(error)) from error
    except OSError as error:
        raise InputError(
            f"embed.weights={settings.weights!r} cannot be read ({error.strerror})"
        ) from error
    side = settings.resolution or RESOLUTION
    prepare = functools.partial(_prepare, side=side, fit=settings.fit or "crop")
    return Encoder(_encode, params, ("picture",), prepare, _BYTES * side**2)


def _prepare(picture: Image.Image, side: int, fit: Fit) -> np.ndarray:
    shorter = round(side * _SHORTER)
    return np.asarray(square(picture, side, fit, shorter=shorter, filter="bicubic"))


def _encode(images: jax.Array, params: Any) -> jax.Array:
    return efficientnet.encode(params, images, resolution=images.shape[1])
