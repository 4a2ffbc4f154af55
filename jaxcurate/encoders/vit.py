"""Features of a pretrained Vision Transformer, from a folder of weights, as an encoder."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.encoders.base import Batches, EmbedConfig, Encoder
from jaxcurate.models.picture_input import PictureInput
from jaxcurate.models.pretrained import load_vit
from jaxcurate.models.vit_config import ViTArchitecture
from jaxcurate.runtime.devices import Devices
from jaxcurate.sources.pictures import Filter, Fit, square

_FLOATS = 4
"""Number of bytes of an activation."""


def make(settings: EmbedConfig, batches: Batches, devices: Devices) -> Encoder:
    """Returns the encoder with the weights of a folder, or of a model on the Hugging Face hub.

    Pictures are resized and cropped as the folder asks, at another resolution in proportion.

    Raises:
        InputError: no weights are named, or they cannot be used.
    """
    del batches, devices  # it is fitted to nothing
    if settings.weights is None:
        raise InputError("embed.encoder='vit' needs embed.weights: a folder or hf:NAME")
    model, info = load_vit(settings.weights, precision=settings.precision)
    picture = info.picture
    if settings.resolution is not None:
        picture = picture.at(settings.resolution)
    if picture.size < model.config.patch_size:
        raise InputError(
            f"embed.resolution={picture.size} is less than a patch of "
            f"{model.config.patch_size} pixels"
        )
    filters = ("box", "bilinear", "bicubic", "lanczos")
    if picture.resample not in filters:
        raise InputError(f"{info.folder}: resample={picture.resample!r} is not supported")
    fit = settings.fit or ("crop" if picture.crop else "squash")
    graph, params = nnx.split(model)
    return Encoder(
        functools.partial(_encode, graph=graph, mean=picture.mean, std=picture.std),
        params,
        ("picture",),
        functools.partial(_prepare, picture_input=picture, fit=fit),
        bytes_per_item(model.config, picture.size),
        precisions=("float32", "bfloat16"),
    )


def bytes_per_item(config: ViTArchitecture, size: int) -> int:
    """Returns about how many bytes a picture takes while a block is computed.

    Args:
        config: shape of the model.
        size: side of the pictures in pixels.

    Examples:
        >>> bytes_per_item(ViTArchitecture(width=64, n_heads=2), size=32)
        65536
    """
    n_tokens = (size // config.patch_size) ** 2 + config.n_prefix
    widest = max(2 * config.n_heads * n_tokens, 3 * config.width, 2 * config.n_hidden)
    pixels = 2 * 3 * size**2  # as floats, and again in patches
    return _FLOATS * (pixels + n_tokens * (2 * config.width + widest))


def _prepare(picture: Image.Image, picture_input: PictureInput, fit: Fit) -> np.ndarray:
    shorter = picture_input.resize if picture_input.crop and fit == "crop" else None
    name = cast(Filter, picture_input.resample)
    return np.asarray(square(picture, picture_input.size, fit, shorter=shorter, filter=name))


def _encode(
    images: jax.Array,
    params: Any,
    *,
    graph: nnx.GraphDef,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> jax.Array:
    """Returns features float32 ``[b, d]`` of images uint8 ``[b, size, size, 3]``."""
    shift, scale = (jnp.asarray(color, jnp.float32)[None, None, None] for color in (mean, std))
    scaled = (images.astype(jnp.float32) / 255 - shift) / scale
    return nnx.merge(graph, params)(scaled)
