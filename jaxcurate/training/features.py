"""Features of pictures and of texts, from pretrained encoders."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcurate.models.bert import Bert, BertConfig, is_used, pool
from jaxcurate.models.vit import ViT
from jaxcurate.models.vit_config import as_architecture
from jaxcurate.runtime.devices import ROWS, SAME, Devices, fetch
from jaxcurate.training import augment
from jaxcurate.training.config import PretrainConfig
from jaxcurate.training.objectives.base import Model
from jaxcurate.training.pretrain import Params, check_items


def encoder(params: Params, run: int, model: Model) -> ViT | Bert:
    """Returns the encoder of one run as a Flax module.

    Args:
        params: the weights of all runs, from :func:`jaxcurate.training.pretrain`.
        run: the number of the run.
        model: the shape that the encoders were pretrained with.

    Examples:
        >>> import jaxcurate as jc
        >>> from jaxcurate.training import Run, ViTConfig, pretrain
        >>> model = ViTConfig(image_size=8, patch_size=8, width=8, depth=1, n_heads=1)
        >>> settings = PretrainConfig(model, n_steps=2, batch_size=4, runs_per_device=1)
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
        >>> runs = [Run(np.arange(20), seed=0)]
        >>> trained = pretrain(images, runs, settings, devices=jc.Devices.first(1))
        >>> type(encoder(trained.params, 0, model)).__name__
        'ViT'
    """
    return model_of(jax.tree.map(lambda p: jnp.asarray(p[run]), params), model)


def model_of(params: Params, shape: Model) -> ViT | Bert:
    """Returns an encoder as a Flax module.

    Args:
        params: weights as nested dictionaries.
        shape: shape that the encoder was trained with.
    """

    def make() -> ViT | Bert:
        rngs = nnx.Rngs(0)
        return Bert(shape, rngs=rngs) if isinstance(shape, BertConfig) else ViT(shape, rngs=rngs)

    structure, state = nnx.split(nnx.eval_shape(make))
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(structure, state)


def _encode(items: jax.Array, params: Params, *, axis_name: str | None, model: Model) -> jax.Array:
    """Returns features ``[m, n_runs, d]`` of this device's items: pictures, uint8
    ``[m, s, s, 3]``, or token ids, int32 ``[m, n_tokens]``."""

    def encode_by(run_params: Params) -> jax.Array:
        network = model_of(run_params, model)
        if isinstance(network, Bert):
            return pool(network(items), is_used(items, network.config.pad_id), "mean")
        return network(augment.scale(items))

    return jnp.moveaxis(jax.lax.map(encode_by, params), 0, 1)


def encode(
    params: Params,
    items: np.ndarray,
    settings: PretrainConfig,
    *,
    devices: Devices | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Returns the features of items by every encoder.

    Args:
        params: the weights of all runs, from :func:`jaxcurate.training.pretrain`.
        items: pictures, uint8 ``[n, s, s, 3]``, or token ids, int32 ``[n, n_tokens]``, as an array
            or a memmap, of which one batch is read at a time. The features of a text are the mean
            of those of its tokens.
        settings: the settings that the encoders were pretrained with.
        devices: the devices over which the items are split; all by default.
        batch_size: number of items that a device encodes at a time.

    Returns:
        float32 ``[n_runs, n, d]``.

    Raises:
        InputError: the items are not those that the model takes.

    Examples:
        >>> import jaxcurate as jc
        >>> from jaxcurate.training import Run, ViTConfig, pretrain
        >>> model = ViTConfig(image_size=8, patch_size=8, width=8, depth=1, n_heads=1)
        >>> settings = PretrainConfig(model, n_steps=2, batch_size=4, runs_per_device=1)
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
        >>> runs = [Run(np.arange(20), seed=0)]
        >>> devices = jc.Devices.first(1)
        >>> trained = pretrain(images, runs, settings, devices=devices)
        >>> encode(trained.params, images, settings, devices=devices).shape
        (1, 20, 8)
    """
    check_items(items, settings)
    devices = Devices.all() if devices is None else devices
    model = settings.network
    kernel = devices.spmd(_encode, (ROWS, SAME), ROWS, model=model)
    step = batch_size * devices.count
    n_runs = len(jax.tree.leaves(params)[0])
    width = model.width if isinstance(model, BertConfig) else as_architecture(model).n_features
    features = np.empty((n_runs, len(items), width), np.float32)
    for first in range(0, len(items), step):
        placed, _ = devices.put_rows(np.asarray(items[first : first + step]), batch_size)
        encoded = fetch(kernel(placed, params)).swapaxes(0, 1)
        features[:, first : first + step] = encoded[:, : len(items) - first]
    return features
