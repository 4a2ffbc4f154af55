"""A small Vision Transformer: patches, fixed positions, pre-norm blocks, mean pooling."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcurate.checks import InputError, check_choice

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class ViTConfig:
    """Shape and precision of a :class:`ViT`.

    Raises:
        InputError: naming the field that cannot be used.

    Examples:
        >>> ViTConfig(image_size=32, patch_size=5)
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: patch_size=5 does not divide image_size=32
    """

    image_size: int = 32
    """Side of the square images in pixels."""
    patch_size: int = 8
    """Side of a patch in pixels; divides `image_size`."""
    width: int = 64
    """Number of features of a token, and of the output."""
    depth: int = 2
    """Number of transformer blocks."""
    n_heads: int = 2
    """Number of attention heads; divides `width`."""
    mlp_ratio: int = 4
    """Number of hidden units in the MLP of a block, as a multiple of `width`."""
    precision: Precision = "float32"
    """Precision of activations and matrix products. Weights are float32 either way, and `float32`
    asks the accelerator for full float32 products."""

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "width", "depth", "n_heads", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        if self.image_size % self.patch_size:
            raise InputError(
                f"patch_size={self.patch_size} does not divide image_size={self.image_size}"
            )
        if self.width % self.n_heads:
            raise InputError(f"n_heads={self.n_heads} does not divide width={self.width}")
        if self.width % 4:
            raise InputError(f"width={self.width} must be a multiple of 4, for the positions")
        check_choice("precision", self.precision, get_args(Precision))


def exactness(precision: Precision) -> str | None:
    """Returns the precision of matrix products to request from XLA.

    Examples:
        >>> exactness("float32")
        'highest'
    """
    return "highest" if precision == "float32" else None


def linear(
    n_in: int, n_out: int, precision: Precision, *, rngs: nnx.Rngs, use_bias: bool = True
) -> nnx.Linear:
    """Returns a linear layer of the given precision with Glorot-uniform weights in float32."""
    return nnx.Linear(
        n_in,
        n_out,
        use_bias=use_bias,
        dtype=jnp.dtype(precision),
        precision=exactness(precision),
        kernel_init=nnx.initializers.xavier_uniform(),
        rngs=rngs,
    )


def patches(images: jax.Array, size: int) -> jax.Array:
    """Cuts images into square patches.

    Args:
        images: ``[b, s, s, c]``.
        size: side of a patch in pixels; divides ``s``.

    Returns:
        ``[b * (s / size)^2, size * size * c]``, row by row.

    Examples:
        >>> patches(jnp.zeros((2, 8, 8, 3)), size=4).shape
        (8, 48)
    """
    b, s, _, c = images.shape
    grid = s // size
    x = images.reshape(b, grid, size, grid, size, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b * grid * grid, size * size * c)


@cache
def positions(grid: int, width: int) -> np.ndarray:
    """Returns fixed sine-cosine embeddings of the positions in a square grid.

    Args:
        grid: number of patches along a side.
        width: number of features, a multiple of 4.

    Returns:
        float32 ``[grid^2, width]``, row by row.

    References:
        Chen, Xie, He: An empirical study of training self-supervised vision transformers (2021),
        https://arxiv.org/abs/2104.02057, section 5.

    Examples:
        >>> print(positions(2, 4)[0])  # sine and cosine of row 0, then of column 0
        [0. 1. 0. 1.]
    """
    frequency = 100.0 ** -(np.arange(width // 4) / (width // 4))
    angle = np.arange(grid)[:, None] * frequency[None, :]
    wave = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    rows = np.repeat(wave, grid, axis=0)
    columns = np.tile(wave, (grid, 1))
    return np.concatenate([rows, columns], axis=1).astype(np.float32)


class Block(nnx.Module):
    """Attention and an MLP, each after a LayerNorm and with a skip connection."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        width, hidden = config.width, config.width * config.mlp_ratio
        dtype = jnp.dtype(config.precision)
        self.n_heads = config.n_heads
        self.head = width // config.n_heads
        self.precision: Precision = config.precision
        self.norm_1 = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.qkv = linear(width, 3 * width, config.precision, rngs=rngs)
        self.out = linear(width, width, config.precision, rngs=rngs)
        self.norm_2 = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.up = linear(width, hidden, config.precision, rngs=rngs)
        self.down = linear(hidden, width, config.precision, rngs=rngs)

    def __call__(self, x: jax.Array, n_tokens: int) -> jax.Array:
        """Maps tokens ``[b * n_tokens, width]`` to tokens of the same shape.

        The images of a batch are concatenated, because on a CPU products of plain matrices and
        their gradients take a third of the time of batched products.
        """
        qkv = self.qkv(self.norm_1(x)).reshape(-1, n_tokens, 3, self.n_heads, self.head)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        score = jnp.einsum("bqhd,bkhd->bhqk", q, k, precision=exactness(self.precision))
        weight = nnx.softmax(score.astype(jnp.float32) / np.sqrt(self.head), axis=-1)
        weight = weight.astype(v.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weight, v, precision=exactness(self.precision))
        x = x + self.out(mixed.reshape(x.shape))
        return x + self.down(nnx.gelu(self.up(self.norm_2(x))))


class ViT(nnx.Module):
    """Vision Transformer whose output is the mean of its tokens.

    Args:
        config: the shape and precision of the model.
        rngs: the source of the initial weights.

    References:
        Dosovitskiy et al.: An image is worth 16x16 words (2021),
        https://arxiv.org/abs/2010.11929.

    Examples:
        >>> config = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, n_heads=1)
        >>> def features(images):
        ...     return ViT(config, rngs=nnx.Rngs(0))(images)
        >>> nnx.eval_shape(features, jnp.zeros((2, 8, 8, 3))).shape  # traces, computes nothing
        (2, 8)
    """

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        patch = config.patch_size**2 * 3
        self.embed = linear(patch, config.width, config.precision, rngs=rngs)
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.depth)])
        self.norm = nnx.LayerNorm(config.width, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps float32 images ``[b, s, s, 3]`` in [-1, 1] to float32 features ``[b, width]``.

        Raises:
            InputError: the images are not of the configured size.
        """
        c = self.config
        if images.shape[1:] != (c.image_size, c.image_size, 3):
            raise InputError(
                f"images of shape {images.shape}, but image_size={c.image_size} wants "
                f"[b, {c.image_size}, {c.image_size}, 3]"
            )
        n_tokens = (c.image_size // c.patch_size) ** 2
        place = jnp.asarray(positions(c.image_size // c.patch_size, c.width))
        x = self.embed(patches(images, c.patch_size))
        x = x + jnp.tile(place, (len(images), 1)).astype(x.dtype)
        for block in self.blocks:
            x = block(x, n_tokens)
        x = self.norm(x.astype(jnp.float32))
        return jnp.mean(x.reshape(-1, n_tokens, c.width), axis=1)
