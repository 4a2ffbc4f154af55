"""Vision Transformer that is trained here, or filled with published weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcurate.checks import InputError
from jaxcurate.models.positions import Rotation, resize_table, rotations, sine_cosine
from jaxcurate.models.vit_blocks import AttentionPool, Block, layer_norm, linear, token
from jaxcurate.models.vit_config import Precision, ViTArchitecture, ViTConfig, as_architecture

__all__ = ["Precision", "Tokens", "ViT", "ViTArchitecture", "ViTConfig", "patches"]


class Tokens(NamedTuple):
    """Tokens of images after the last block, float32."""

    first: jax.Array
    """Class token, if there is one, and registers, ``[b, n_prefix, width]``."""
    patches: jax.Array
    """Tokens of the patches, ``[b, n_patches, width]``, row by row."""


def patches(images: jax.Array, size: int) -> jax.Array:
    """Cuts images into square patches.

    Args:
        images: ``[b, h, w, c]``. Pixels at the right and the bottom that fill no patch are left
            out.
        size: side of a patch in pixels.

    Returns:
        ``[b * (h // size) * (w // size), size * size * c]``, row by row.

    Examples:
        >>> patches(jnp.zeros((2, 8, 8, 3)), size=4).shape
        (8, 48)
    """
    b, h, w, c = images.shape
    rows, columns = h // size, w // size
    x = images[:, : rows * size, : columns * size]
    x = x.reshape(b, rows, size, columns, size, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b * rows * columns, size * size * c)


class ViT(nnx.Module):
    """Vision Transformer; by default without a class token, and with the mean of tokens as output.

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
        c = self.config = as_architecture(config)
        n_pixels = c.patch_size**2 * 3
        self.embed = linear(n_pixels, c.width, c.precision, rngs=rngs, use_bias=c.embed_bias)
        rates = [c.drop_path * i / max(1, c.depth - 1) for i in range(c.depth)]
        self.blocks = nnx.List([Block(c, rate, rngs=rngs) for rate in rates])
        self.norm = layer_norm(c, rngs=rngs)
        # What the default lacks is made last, so that its weights are the same for a seed.
        self.class_token = token(1, c.width, rngs=rngs) if c.class_token else None
        self.registers = token(c.n_registers, c.width, rngs=rngs) if c.n_registers else None
        self.mask_token = token(1, c.width, rngs=rngs) if c.mask_token else None
        n_places = c.grid**2 + c.class_token
        learned = c.positions == "learned"
        self.places = token(n_places, c.width, rngs=rngs) if learned else None
        self.pre_norm = layer_norm(c, dtype=c.precision, rngs=rngs) if c.pre_norm else None
        self.pool = AttentionPool(c, rngs=rngs) if c.pooling == "attention" else None
        self.projection = (
            linear(c.n_pooled, c.projection, c.precision, rngs=rngs, use_bias=False)
            if c.projection
            else None
        )

    def __call__(
        self, images: jax.Array, mask: jax.Array | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Maps float32 images ``[b, h, w, 3]`` to float32 features ``[b, n_features]``.

        Args:
            images: normalized images; those of the default are in [-1, 1].
            mask: bool ``[b, n_patches]``, True for patches that the mask token takes the place of.
            key: a PRNG key in training, for skipped halves of blocks; None skips nothing.

        Raises:
            InputError: the images are not of the configured size, or the model has no mask token.
        """
        c = self.config
        x = self._encode(images, mask, key)
        if self.pool is not None:
            pooled = self.pool(x.astype(c.precision), len(x) // len(images))
        else:
            tokens = x.reshape(len(images), -1, c.width)
            pooled = _pooled(tokens, c)
        if c.final_norm == "pooled":
            pooled = self.norm(pooled.astype(jnp.float32))
        if self.projection is not None:
            pooled = self.projection(pooled)
        return pooled.astype(jnp.float32)

    def tokens(
        self,
        images: jax.Array,
        mask: jax.Array | None = None,
        key: jax.Array | None = None,
        keep: jax.Array | None = None,
    ) -> Tokens:
        """Maps float32 images ``[b, h, w, 3]`` to tokens, with the arguments of a call.

        Tokens are normalized, unless the last LayerNorm is for the pooled vector.

        Args:
            images: normalized images.
            mask: bool ``[b, n_patches]``, True for patches that the mask token takes the place of.
            key: a PRNG key in training; None skips nothing.
            keep: int32 ``[b, m]``, the numbers of the patches that are encoded, each with its
                position. All others are left out of the computation; None leaves out none.
        """
        x = self._encode(images, mask, key, keep).reshape(len(images), -1, self.config.width)
        x = x.astype(jnp.float32)
        return Tokens(x[:, : self.config.n_prefix], x[:, self.config.n_prefix :])

    def _encode(
        self,
        images: jax.Array,
        mask: jax.Array | None,
        key: jax.Array | None,
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the tokens of all images, ``[b * n_tokens, width]``, after the last block."""
        c = self.config
        grid = self._grid(images)
        if keep is not None and (c.positions == "rotary" or keep.shape[0] != len(images)):
            raise InputError(
                f"keep of shape {keep.shape} must be [{len(images)}, m], and positions="
                f"{c.positions!r} must not be rotary, which need all patches"
            )
        x = self._add_positions(self._embed(images, mask), len(images), grid, keep)
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        rotation: Rotation | None = None
        if c.positions == "rotary":
            # As device arrays, once for all blocks: each use of a NumPy array would be a constant
            # of its own in the program.
            tables = rotations(*grid, c.width // c.n_heads, c.rotary_base, c.n_prefix)
            axis = 0 if c.heads_first else 1  # of the heads, beside that of the tokens
            cosine, sine = (jnp.expand_dims(jnp.asarray(t), axis)[None] for t in tables)
            rotation = cosine, sine
        n_tokens = len(x) // len(images)

        def through(block: Block, x: jax.Array, key: jax.Array | None) -> jax.Array:
            return block(x, n_tokens, rotation, key)

        through = nnx.remat(through) if c.remat else through
        for i, block in enumerate(self.blocks):
            x = through(block, x, None if key is None else jax.random.fold_in(key, i))
        return self.norm(x.astype(jnp.float32)) if c.final_norm == "tokens" else x

    def _grid(self, images: jax.Array) -> tuple[int, int]:
        """Returns the numbers of rows and columns of patches."""
        c = self.config
        if c.any_size:
            if images.ndim == 4 and images.shape[3] == 3 and min(images.shape[1:3]) >= c.patch_size:
                return images.shape[1] // c.patch_size, images.shape[2] // c.patch_size
            raise InputError(
                f"images of shape {images.shape}, but patch_size={c.patch_size} wants "
                f"[b, h, w, 3] of at least {c.patch_size} pixels a side"
            )
        if images.shape[1:] != (c.image_size, c.image_size, 3):
            raise InputError(
                f"images of shape {images.shape}, but image_size={c.image_size} wants "
                f"[b, {c.image_size}, {c.image_size}, 3]"
            )
        return c.grid, c.grid

    def _embed(self, images: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Returns embeddings of the patches, ``[b * n_patches, width]``, masked ones replaced."""
        x = self.embed(patches(images, self.config.patch_size))
        if mask is None:
            return x
        if self.mask_token is None:
            raise InputError("mask is given, but the model has no mask token")
        if mask.shape != (len(images), len(x) // len(images)):
            raise InputError(
                f"mask has shape {mask.shape}, but there are {len(images)} images of "
                f"{len(x) // len(images)} patches"
            )
        return jnp.where(mask.reshape(-1, 1), self.mask_token[...].astype(x.dtype), x)

    def _add_positions(
        self, x: jax.Array, n_images: int, grid: tuple[int, int], keep: jax.Array | None
    ) -> jax.Array:
        """Adds positions to patches, and puts class token and registers before those to keep."""
        c = self.config
        first = [] if self.class_token is None else [self.class_token[...]]
        place = None
        if self.places is not None:
            table = self.places[...]
            if first:
                first, table = [first[0] + table[:1]], table[1:]
            antialias = c.interpolation == "bicubic_antialias"
            place = resize_table(table, (c.grid, c.grid), grid, antialias=antialias)
        elif c.positions == "sine_cosine":
            place = jnp.asarray(sine_cosine(*grid, c.width))
        if place is not None:
            x = x + jnp.tile(place, (n_images, 1)).astype(x.dtype)
        if keep is not None:
            rows = jnp.arange(n_images)[:, None] * (len(x) // n_images) + keep
            x = x[rows.reshape(-1)]
        if self.registers is not None:
            first.append(self.registers[...])
        if not first:
            return x
        prefix = jnp.concatenate(first).astype(x.dtype)
        prefix = jnp.broadcast_to(prefix[None], (n_images, *prefix.shape))
        x = jnp.concatenate([prefix, x.reshape(n_images, -1, c.width)], axis=1)
        return x.reshape(-1, c.width)


def _pooled(tokens: jax.Array, config: ViTArchitecture) -> jax.Array:
    """Returns vectors ``[b, n_pooled]`` of tokens ``[b, n_tokens, width]``."""
    if config.pooling == "class":
        return tokens[:, 0]
    mean = jnp.mean(tokens[:, config.n_prefix :], axis=1)
    return mean if config.pooling == "mean" else jnp.concatenate([tokens[:, 0], mean], axis=1)
