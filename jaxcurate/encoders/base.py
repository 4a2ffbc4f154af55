"""Encoders by name, and one way to run them all: in batches, jitted, split over devices."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np

from jaxcurate.artifacts.files import fingerprint
from jaxcurate.artifacts.lazy_rows import PART_BYTES
from jaxcurate.checks import InputError, check_choice, check_given
from jaxcurate.encoders.buckets import bucketed
from jaxcurate.runtime.devices import ROWS, SAME, Devices
from jaxcurate.sources.base import Kind
from jaxcurate.sources.pictures import FITS, Fit

_BYTES_AT_ONCE = 2**30
"""Number of bytes that encoding may take in each memory, besides weights."""

Precision = Literal["float32", "bfloat16"]

ENCODERS: dict[str, "MakeEncoder"] = {}
"""Functions that make an encoder, by the name of the encoder; filled in `jaxcurate.encoders`."""
FUNCTION = "package.module:function"
"""Key in `ENCODERS` of a function of the user's, whatever its name is."""
DEFAULTS: dict[Kind, str] = {
    "picture": "efficientnet_lite0",
    "text": "bert",
    "vector": "identity",
}
"""Encoder of the items of each kind, unless another is chosen."""


@dataclass(frozen=True)
class EmbedConfig:
    """Settings of the encoder, which turns items into embeddings.

    Raises:
        InputError: naming the field that cannot be used.

    Examples:
        >>> EmbedConfig("pca", n_components=16).n_components
        16
    """

    encoder: str | None = field(default=None, metadata={"known": ENCODERS})
    """Name of the encoder, or `package.module:function` for a function of your own. By default
    vectors stay as they are, pictures are encoded by `efficientnet_lite0` and texts by `bert`."""
    n_components: int = 64
    """Number of principal components that `pca` keeps."""
    resolution: int | None = None
    """Side in pixels of the squares that pictures are read as. By default that of the encoder: 32
    for `pixels` and `pca`, and the side that a network was trained with."""
    fit: Fit | None = None
    """Way to make a square of a picture: `crop` keeps its center, `pad` the whole picture on white,
    `squash` changes its aspect. By default that of the encoder."""
    weights: str | None = None
    """Weights of the encoder: a file, a folder or `hf:NAME`. By default those of its package."""
    precision: Precision = "float32"
    """Precision of a network. `bfloat16` is faster on accelerators and less exact."""
    batch_size: int = 1024
    """Number of items that are read at a time. Fewer are encoded at a time if they would take
    gigabytes."""
    part_bytes: int = PART_BYTES
    """Largest size in bytes of a file of embeddings. A larger pool lies in several parts, and so do
    labels and distances of a tree. Neither embeddings nor subsets depend on it."""

    def __post_init__(self) -> None:
        if self.encoder is not None and ":" not in self.encoder:
            check_choice("encoder", self.encoder, ENCODERS)
        check_given("encoder", self.encoder, "chooses by the kind of the items")
        for name in ("n_components", "batch_size", "part_bytes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        check_given("resolution", self.resolution, "takes that of the encoder")
        check_given("weights", self.weights, "takes those of the encoder's package")
        if self.fit is not None:
            check_choice("fit", self.fit, FITS)
        check_choice("precision", self.precision, get_args(Precision))

    def inputs(self) -> dict[str, Any]:
        """Returns the settings that embeddings depend on, as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "part_bytes"}


class Encoder(NamedTuple):
    """Function of prepared items and parameters that can be jitted, with its parameters."""

    encode: Callable[[Any, Any], Any]
    """Function ``encode(items, params)`` from prepared items ``[b, ...]`` to ``[b, d]``."""
    params: Any
    """Parameters of the function, a pytree of arrays."""
    kinds: tuple[Kind, ...]
    """Kinds of items that the encoder takes."""
    prepare: Callable[[Any], Any] | None = None
    """Function that is applied to each item in the threads that read: from an RGB picture of Pillow
    or a text to an array, of the same shape for all items. None for vectors."""
    bytes_per_item: int = 0
    """Number of bytes that encoding takes for each item, besides the item itself."""
    n_used: Callable[[np.ndarray], np.ndarray] | None = None
    """Number of leading entries ``[b]`` that each of the prepared items ``[b, length]`` uses, by
    which items are grouped; None if all use all."""
    precisions: tuple[Precision, ...] = ("float32",)
    """Precisions that the encoder can compute in."""
    is_jax: bool = True
    """False if ``encode`` is any function of a list of items, which is not jitted."""


def weights_fingerprint(settings: EmbedConfig) -> str | None:
    """Returns a fingerprint of the files with the weights of an encoder, or None if none are named.

    It is made of names, sizes and times of change, since weights take gigabytes. Weights of the
    Hugging Face hub are known by their name alone.

    Examples:
        >>> weights_fingerprint(EmbedConfig("pca")) is None
        True
    """
    if settings.weights is None:
        return None
    path = Path(settings.weights).expanduser()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(file.relative_to(path).as_posix(), file.stat()) for file in files if file.is_file()]
    return fingerprint([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


Batches = Callable[[Callable[[Any], Any] | None], Iterable[Any]]
"""Function that starts a pass over the items of this process: it takes the function that prepares
an item, and returns batches of prepared items, arrays ``[b, ...]``."""
MakeEncoder = Callable[[EmbedConfig, Batches, Devices], Encoder]
"""Function that makes an encoder, with the arguments of :func:`make_encoder`."""


def make_encoder(
    settings: EmbedConfig, batches: Batches, devices: Devices, kind: Kind = "picture"
) -> Encoder:
    """Returns the encoder that the settings name, fitted to the items if it has to be.

    Args:
        settings: the name of the encoder and its settings.
        batches: function that starts a pass over the items of this process; called only by an
            encoder that is fitted to the items, those of all processes.
        devices: the devices to use. Their processes have to call together.
        kind: kind of the items.

    Raises:
        InputError: the items do not suit the encoder, or its weights cannot be used.

    Examples:
        >>> import jaxcurate as jc
        >>> rng = np.random.default_rng(0)
        >>> items = rng.normal(size=(40, 8)).astype(np.float32)
        >>> devices = jc.Devices.first(1)
        >>> settings = EmbedConfig("pca", n_components=3)
        >>> encoder = make_encoder(settings, lambda prepare: [items], devices, "vector")
        >>> embed(encoder, items, batch_size=40, devices=devices).shape
        (40, 3)
    """
    name = settings.encoder or DEFAULTS[kind]
    make = ENCODERS[FUNCTION if ":" in name else name]
    encoder = make(settings, batches, devices)
    if settings.precision not in encoder.precisions:
        raise InputError(f"embed.encoder={name!r} computes in {' or '.join(encoder.precisions)}")
    if kind not in encoder.kinds:
        suited = [known for known, usual in DEFAULTS.items() if known in encoder.kinds]
        raise InputError(
            f"embed.encoder={name!r} takes {_plural(suited)}, but the items are {_plural([kind])}"
            f": {DEFAULTS[kind]!r} takes these"
        )
    return encoder


def embed(
    encoder: Encoder, items: Sequence[Any] | np.ndarray, *, batch_size: int, devices: Devices
) -> np.ndarray:
    """Returns the embeddings of at most ``batch_size`` prepared items.

    A batch that would take gigabytes is encoded in several steps.

    Args:
        encoder: an encoder from :func:`make_encoder`.
        items: ``b`` prepared items; fewer than ``batch_size`` are padded, so that all batches share
            one compiled function.
        batch_size: number of items in a full batch.
        devices: the devices to use.

    Returns:
        float32 ``[b, d]``. Rows that an encoder returns unchanged keep their type.

    Raises:
        InputError: a function of the user's returns something else than rows of numbers.

    Examples:
        >>> import jaxcurate as jc
        >>> images = np.full((5, 4, 4, 3), 255, np.uint8)
        >>> devices = jc.Devices.first(1)
        >>> encoder = make_encoder(EmbedConfig("pixels"), lambda prepare: [images], devices)
        >>> embeddings = embed(encoder, images, batch_size=8, devices=devices)
        >>> embeddings.shape, embeddings.max().item()
        ((5, 48), 1.0)
    """
    if not encoder.is_jax:
        return encoder.encode(items, encoder.params)
    stacked = items if isinstance(items, np.ndarray) else np.stack(items)
    kernel = devices.spmd(_encode, (ROWS, SAME), ROWS, encode=encoder.encode)
    encode = lambda part, at_once: _in_steps(kernel, encoder.params, part, at_once, devices)
    if encoder.n_used is None:
        return encode(stacked, min(batch_size, _most_at_once(encoder, stacked, devices)))
    length, parts = stacked.shape[1], []
    for positions, used in bucketed(encoder.n_used(stacked), length):
        shorter = encoder._replace(bytes_per_item=encoder.bytes_per_item * used // length)
        part = stacked[positions, :used]
        # A small step, since each length is compiled for it and the last step is padded to it.
        at_once = min(batch_size, _TEXTS_AT_ONCE, _most_at_once(shorter, part, devices))
        parts.append((positions, encode(part, at_once)))
    out = np.empty((len(stacked), parts[0][1].shape[1]), np.float32)
    for positions, part in parts:
        out[positions] = part
    return out


_TEXTS_AT_ONCE = 64
"""Largest number of texts in a step."""


def _in_steps(
    kernel: Callable[..., Any], params: Any, items: np.ndarray, at_once: int, devices: Devices
) -> np.ndarray:
    """Returns the embeddings of items, ``at_once`` in each step."""
    parts = []
    for start in range(0, len(items), at_once):
        part = items[start : start + at_once]
        placed, _ = devices.put_rows(part, at_least=at_once)
        parts.append(np.asarray(kernel(placed, params))[: len(part)])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _most_at_once(encoder: Encoder, items: np.ndarray, devices: Devices) -> int:
    """Returns the number of items that may be encoded at a time, by the memory that they take."""
    # Each byte of an image becomes a float32, and resizing makes another.
    per_item = max(1, encoder.bytes_per_item, 8 * items[0].size)
    # CPU devices share one memory; any others have one each.
    n_memories = 1 if jax.default_backend() == "cpu" else devices.count
    return n_memories * max(1, _BYTES_AT_ONCE // per_item)


def _encode(
    items: jax.Array,
    params: Any,
    *,
    encode: Callable[[Any, Any], Any],
    axis_name: str | None,
) -> jax.Array:
    del axis_name  # no item depends on another
    return encode(items, params)


def _plural(kinds: Sequence[str]) -> str:
    return " and ".join(f"{kind}s" for kind in kinds)
