"""The encoders by name, and one way to run them all: batched, jitted, split over devices."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.encoders import pca
from jaxcurate.encoders.pixels import pixels
from jaxcurate.models import efficientnet
from jaxcurate.runtime.devices import ROWS, SAME, Devices

_BYTES_AT_ONCE = 2**30
_EFFICIENTNET_BYTES = 216
"""Bytes that a pixel of an image takes in the network's widest layers: measured 10.8 GB for 1,024
images of 224 pixels a side."""

ENCODERS = ("pixels", "pca", "efficientnet_lite0")


@dataclass(frozen=True)
class EmbedConfig:
    """Settings of the encoder, which makes embeddings of items.

    Raises:
        ValueError: naming the field that cannot be used.
    """

    encoder: str = "pca"
    """Encoder: `pca`, `pixels` or `efficientnet_lite0`."""
    n_components: int = 64
    """Directions that `pca` keeps."""
    resolution: int | None = None
    """Pixels a side that images are resized to; by default they keep their size."""
    weights: str | None = None
    """File with the encoder's weights; by default those of its package."""
    batch_size: int = 1024
    """Items that the devices encode at a time, together."""

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise InputError(f"encoder={self.encoder!r}; known: {', '.join(ENCODERS)}")
        for name in ("n_components", "resolution", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} must be at least 1")


class Encoder(NamedTuple):
    """A function of items and parameters, ready to be jitted."""

    encode: Callable[..., jax.Array]
    """``encode(images, params, *, resolution)``: ``[b, ...]`` to float32 ``[b, d]``."""
    params: Any
    resolution: int | None
    bytes_per_item: int = 0
    """Bytes that encoding one item takes besides the item."""


def make_encoder(
    settings: EmbedConfig, batches: Callable[[], Iterable[np.ndarray]], devices: Devices
) -> Encoder:
    """Returns the encoder that the settings name, fitted where it has to be.

    Args:
        settings: which encoder.
        batches: called for a pass over all items, by an encoder that is fitted to them.
        devices: the devices to use.

    Raises:
        ValueError: the items do not suit the encoder, or its weights cannot be used.
    """
    resolution = settings.resolution
    if settings.encoder == "pixels":
        return Encoder(_pixels, (), resolution)
    if settings.encoder == "pca":
        fitted = pca.fit_pca(
            batches(), settings.n_components, resolution=resolution, devices=devices
        )
        return Encoder(pca.project, fitted, resolution)
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
    resolution = resolution or 64
    return Encoder(_efficientnet, params, resolution, _EFFICIENTNET_BYTES * resolution**2)


def embed(encoder: Encoder, items: np.ndarray, *, batch_size: int, devices: Devices) -> np.ndarray:
    """Encodes at most ``batch_size`` items, in parts where they would take gigabytes together.

    Args:
        encoder: from :func:`make_encoder`.
        items: ``[b, ...]``; fewer than ``batch_size`` are padded, to share one compilation.
        batch_size: items to a full batch.
        devices: the devices to use.

    Returns:
        float32 ``[b, d]``.
    """
    kernel = devices.spmd(
        _encode,
        (ROWS, SAME),
        ROWS,
        encode=encoder.encode,
        resolution=encoder.resolution,
    )
    at_once = min(batch_size, _most_at_once(encoder, items, devices))
    parts = []
    for start in range(0, len(items), at_once):
        part = items[start : start + at_once]
        placed, _ = devices.put_rows(part, at_least=at_once)
        parts.append(np.asarray(kernel(placed, encoder.params))[: len(part)])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _most_at_once(encoder: Encoder, items: np.ndarray, devices: Devices) -> int:
    """Returns how many items may be encoded at a time, by the bytes that this takes."""
    # A byte of a pixel becomes a float32, and is resized to another.
    per_item = max(1, encoder.bytes_per_item, 8 * items[0].size)
    # CPU devices share one memory; any others have one each.
    n_memories = 1 if jax.default_backend() == "cpu" else devices.count
    return n_memories * max(1, _BYTES_AT_ONCE // per_item)


def _encode(
    images: jax.Array,
    params: Any,
    *,
    encode: Callable[..., jax.Array],
    resolution: int | None,
    axis_name: str | None,
) -> jax.Array:
    del axis_name  # every item is on its own
    return encode(images, params, resolution=resolution)


def _pixels(images: jax.Array, params: tuple[()], *, resolution: int | None) -> jax.Array:
    del params
    return pixels(images, resolution=resolution)


def _efficientnet(images: jax.Array, params: Any, *, resolution: int) -> jax.Array:
    return efficientnet.encode(params, images, resolution=resolution)
