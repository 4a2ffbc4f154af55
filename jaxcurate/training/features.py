"""Features of images, from pretrained encoders."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcurate.models.vit import ViT, ViTConfig
from jaxcurate.runtime.devices import ROWS, SAME, Devices
from jaxcurate.training import augment
from jaxcurate.training.config import PretrainConfig
from jaxcurate.training.pretrain import Params, check_images


def encoder(params: Params, run: int, model: ViTConfig) -> ViT:
    """Returns the encoder of one run as a Flax module.

    Args:
        params: the weights of all runs, from :func:`jaxcurate.training.pretrain`.
        run: the number of the run.
        model: the shape that the encoders were pretrained with.

    Examples:
        >>> import jaxcurate as jc
        >>> from jaxcurate.training import Run, pretrain
        >>> model = ViTConfig(image_size=8, patch_size=8, width=8, depth=1, n_heads=1)
        >>> settings = PretrainConfig(model, n_steps=2, batch_size=4, runs_per_device=1)
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
        >>> runs = [Run(np.arange(20), seed=0)]
        >>> trained = pretrain(images, runs, settings, devices=jc.Devices.first(1))
        >>> type(encoder(trained.params, 0, model)).__name__
        'ViT'
    """
    vit = nnx.eval_shape(lambda: ViT(model, rngs=nnx.Rngs(0)))
    structure, state = nnx.split(vit)
    nnx.replace_by_pure_dict(state, jax.tree.map(lambda p: jnp.asarray(p[run]), params))
    return nnx.merge(structure, state)


def _encode(
    images: jax.Array, params: Params, *, axis_name: str | None, model: ViTConfig
) -> jax.Array:
    """Returns features ``[m, n_runs, width]`` of this device's images, uint8 ``[m, s, s, 3]``."""
    scaled = augment.scale(images)

    def encode_by(run_params: Params) -> jax.Array:
        return encoder(jax.tree.map(lambda p: p[None], run_params), 0, model)(scaled)

    return jnp.moveaxis(jax.lax.map(encode_by, params), 0, 1)


def encode(
    params: Params,
    images: np.ndarray,
    settings: PretrainConfig,
    *,
    devices: Devices | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Returns the features of images by every encoder.

    Args:
        params: the weights of all runs, from :func:`jaxcurate.training.pretrain`.
        images: uint8 ``[n, s, s, 3]``, an array or a memmap, of which one batch is read at a time.
        settings: the settings that the encoders were pretrained with.
        devices: the devices over which the images are split; all by default.
        batch_size: number of images that a device encodes at a time.

    Returns:
        float32 ``[n_runs, n, width]``.

    Raises:
        InputError: the images are not uint8 of the model's size.

    Examples:
        >>> import jaxcurate as jc
        >>> from jaxcurate.training import Run, pretrain
        >>> model = ViTConfig(image_size=8, patch_size=8, width=8, depth=1, n_heads=1)
        >>> settings = PretrainConfig(model, n_steps=2, batch_size=4, runs_per_device=1)
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
        >>> runs = [Run(np.arange(20), seed=0)]
        >>> devices = jc.Devices.first(1)
        >>> trained = pretrain(images, runs, settings, devices=devices)
        >>> encode(trained.params, images, settings, devices=devices).shape
        (1, 20, 8)
    """
    check_images(images, settings)
    devices = Devices.all() if devices is None else devices
    kernel = devices.spmd(_encode, (ROWS, SAME), ROWS, model=settings.model)
    step = batch_size * devices.count
    n_runs = len(jax.tree.leaves(params)[0])
    features = np.empty((n_runs, len(images), settings.model.width), np.float32)
    for first in range(0, len(images), step):
        placed, _ = devices.put_rows(np.asarray(images[first : first + step]), batch_size)
        encoded = np.asarray(kernel(placed, params)).swapaxes(0, 1)
        features[:, first : first + step] = encoded[:, : len(images) - first]
    return features
