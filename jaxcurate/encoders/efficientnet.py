"""ImageNet features of EfficientNet-Lite0, as an encoder."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.encoders.base import EmbedConfig, Encoder
from jaxcurate.models import efficientnet
from jaxcurate.runtime.devices import Devices

_BYTES = 216
"""Number of bytes per pixel in the widest layers of the network, as measured: 10.8 GB for 1,024
images of 224 pixels a side."""
_RESOLUTION = 64
"""Default side of the images in pixels."""


def make(
    settings: EmbedConfig, batches: Callable[[], Iterable[np.ndarray]], devices: Devices
) -> Encoder:
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
    resolution = settings.resolution or _RESOLUTION
    return Encoder(_encode, params, resolution, _BYTES * resolution**2)


def _encode(images: jax.Array, params: Any, *, resolution: int) -> jax.Array:
    return efficientnet.encode(params, images, resolution=resolution)
