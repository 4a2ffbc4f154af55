"""Encoders by name, and one way to run them all: in batches, jitted, split over devices."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxcurate.checks import InputError, check_choice, check_given
from jaxcurate.runtime.devices import ROWS, SAME, Devices

_BYTES_AT_ONCE = 2**30
"""Number of bytes that encoding may take in each memory, besides weights."""

ENCODERS: dict[str, "MakeEncoder"] = {}
"""Functions that make an encoder, by the name of the encoder; filled in `jaxcurate.encoders`."""


@dataclass(frozen=True)
class EmbedConfig:
    """Settings of the encoder, which turns items into embeddings.

    Raises:
        InputError: naming the field that cannot be used.

    Examples:
        >>> EmbedConfig("pca", n_components=16).n_components
        16
    """

    encoder: str = field(default="pca", metadata={"known": ENCODERS})
    """Name of the encoder."""
    n_components: int = 64
    """Number of principal components that `pca` keeps."""
    resolution: int | None = None
    """Side in pixels of the squares that images are resized to; by default they keep their size."""
    weights: str | None = None
    """File with the weights of the encoder; by default the one in its package."""
    batch_size: int = 1024
    """Number of items that all devices together encode at a time."""

    def __post_init__(self) -> None:
        check_choice("encoder", self.encoder, ENCODERS)
        for name in ("n_components", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        check_given("resolution", self.resolution, "keeps the size of the images")
        check_given("weights", self.weights, "takes those of the encoder's package")


class Encoder(NamedTuple):
    """Function of items and parameters that can be jitted, with its parameters."""

    encode: Callable[..., jax.Array]
    """Function ``encode(items, params, *, resolution)`` from ``[b, ...]`` to float32 ``[b, d]``."""
    params: Any
    """Parameters of the function, a pytree of arrays."""
    resolution: int | None = None
    """Side in pixels that images are resized to; None keeps their size."""
    bytes_per_item: int = 0
    """Number of bytes that encoding takes for each item, besides the item itself."""
    prepare: Callable[[Any], np.ndarray] | None = None
    """Function, run on the host and by several threads, from an item to an array."""
    kind: Literal["picture", "text", "vector"] = "picture"
    """Kind of the items."""
    n_used: Callable[[np.ndarray], np.ndarray] | None = None
    """Function from prepared items ``[b, n]`` to the number of leading entries that each uses."""


MakeEncoder = Callable[[EmbedConfig, Callable[[], Iterable[np.ndarray]], Devices], Encoder]
"""Function that makes an encoder, with the arguments of :func:`make_encoder`."""


def make_encoder(
    settings: EmbedConfig, batches: Callable[[], Iterable[np.ndarray]], devices: Devices
) -> Encoder:
    """Returns the encoder that the settings name, fitted to the items if it has to be.

    Args:
        settings: the name of the encoder and its settings.
        batches: function that starts a pass over all items, in arrays ``[b, ...]``; called only
            by an encoder that is fitted to them.
        devices: the devices to use.

    Raises:
        InputError: the items do not suit the encoder, or its weights cannot be used.

    Examples:
        >>> import jaxcurate as jc
        >>> rng = np.random.default_rng(0)
        >>> items = rng.normal(size=(40, 8)).astype(np.float32)
        >>> devices = jc.Devices.first(1)
        >>> encoder = make_encoder(EmbedConfig("pca", n_components=3), lambda: [items], devices)
        >>> embed(encoder, items, batch_size=40, devices=devices).shape
        (40, 3)
    """
    return ENCODERS[settings.encoder](settings, batches, devices)


def embed(encoder: Encoder, items: np.ndarray, *, batch_size: int, devices: Devices) -> np.ndarray:
    """Returns the embeddings of at most ``batch_size`` items.

    A batch that would take gigabytes is encoded in several steps.

    Args:
        encoder: an encoder from :func:`make_encoder`.
        items: ``[b, ...]``; fewer than ``batch_size`` items are padded, so that all batches share
            one compiled function.
        batch_size: number of items in a full batch.
        devices: the devices to use.

    Returns:
        float32 ``[b, d]``.

    Examples:
        >>> import jaxcurate as jc
        >>> images = np.full((5, 4, 4, 3), 255, np.uint8)
        >>> devices = jc.Devices.first(1)
        >>> encoder = make_encoder(EmbedConfig("pixels"), lambda: [images], devices)
        >>> embeddings = embed(encoder, images, batch_size=8, devices=devices)
        >>> embeddings.shape, embeddings.max().item()
        ((5, 48), 1.0)
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
    """Returns the number of items that may be encoded at a time, by the memory that they take."""
    # Each byte of an image becomes a float32, and resizing makes another.
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
    del axis_name  # no item depends on another
    return encode(images, params, resolution=resolution)
