"""The encoders by name, and one way to run them all: batched, jitted, split over devices."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcurate.checks import InputError, check_choice, check_given
from jaxcurate.runtime.devices import ROWS, SAME, Devices

_BYTES_AT_ONCE = 2**30

ENCODERS: dict[str, "MakeEncoder"] = {}
"""What makes each encoder, by the encoder's name; filled in `jaxcurate.encoders`."""


@dataclass(frozen=True)
class EmbedConfig:
    """Settings of the encoder, which makes embeddings of items.

    Raises:
        ValueError: naming the field that cannot be used.
    """

    encoder: str = field(default="pca", metadata={"known": ENCODERS})
    """Name of the encoder."""
    n_components: int = 64
    """Directions that `pca` keeps."""
    resolution: int | None = None
    """Pixels a side that images are resized to; by default they keep their size."""
    weights: str | None = None
    """File with the encoder's weights; by default those of its package."""
    batch_size: int = 1024
    """Items that the devices encode at a time, together."""

    def __post_init__(self) -> None:
        check_choice("encoder", self.encoder, ENCODERS)
        for name in ("n_components", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        check_given("resolution", self.resolution, "keeps the size of the images")
        check_given("weights", self.weights, "takes those of the encoder's package")


class Encoder(NamedTuple):
    """A function of items and parameters, ready to be jitted."""

    encode: Callable[..., jax.Array]
    """``encode(images, params, *, resolution)``: ``[b, ...]`` to float32 ``[b, d]``."""
    params: Any
    resolution: int | None
    bytes_per_item: int = 0
    """Bytes that encoding one item takes besides the item."""


MakeEncoder = Callable[[EmbedConfig, Callable[[], Iterable[np.ndarray]], Devices], Encoder]
"""Makes an encoder, with the arguments of :func:`make_encoder`."""


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
    return ENCODERS[settings.encoder](settings, batches, devices)


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
