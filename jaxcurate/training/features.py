"""Features of images by pretrained encoders."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcurate.models.vit import ViT, ViTConfig
from jaxcurate.runtime.devices import ROWS, SAME, Devices
from jaxcurate.training import augment
from jaxcurate.training.pretrain import Params, PretrainConfig, check_images


def encoder(params: Params, run: int, model: ViTConfig) -> ViT:
    """Returns the encoder of one run, as a Flax module."""
    vit = nnx.eval_shape(lambda: ViT(model, rngs=nnx.Rngs(0)))
    structure, state = nnx.split(vit)
    nnx.replace_by_pure_dict(state, jax.tree.map(lambda p: jnp.asarray(p[run]), params))
    return nnx.merge(structure, state)


def _encode(
    images: jax.Array, params: Params, *, axis_name: str | None, model: ViTConfig
) -> jax.Array:
    """Returns features ``[m, n_runs, width]`` of this device's images, uint8 ``[m, s, s, 3]``."""
    scaled = augment.scale(images)

    def one(p: Params) -> jax.Array:
        return encoder(jax.tree.map(lambda a: a[None], p), 0, model)(scaled)

    return jnp.moveaxis(jax.lax.map(one, params), 0, 1)


def encode(
    params: Params,
    images: np.ndarray,
    settings: PretrainConfig,
    *,
    devices: Devices | None = None,
    block: int = 256,
) -> np.ndarray:
    """Returns features of images by every encoder.

    Args:
        params: from :func:`jaxcurate.training.pretrain`.
        images: uint8 ``[n, s, s, 3]``, an array or a memmap, read block by block.
        settings: those that the encoders were pretrained with.
        devices: the devices over which the images are split; all by default.
        block: images that a device takes at a time.

    Returns:
        float32 ``[n_runs, n, width]``.

    Raises:
        ValueError: the images are not uint8 of the model's size.
    """
    check_images(images, settings)
    devices = Devices.all() if devices is None else devices
    kernel = devices.spmd(_encode, (ROWS, SAME), ROWS, model=settings.model)
    step = block * devices.count
    n_runs = len(jax.tree.leaves(params)[0])
    features = np.empty((n_runs, len(images), settings.model.width), np.float32)
    for first in range(0, len(images), step):
        part, _ = devices.put_rows(np.asarray(images[first : first + step]), block)
        out = np.asarray(kernel(part, params)).swapaxes(0, 1)
        features[:, first : first + step] = out[:, : len(images) - first]
    return features
