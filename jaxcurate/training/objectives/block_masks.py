"""Random masks of patches in blocks, drawn on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

N_BLOCKS = 16
"""Number of blocks that are drawn for a mask. Patches that are still missing then are single."""
ASPECT = (0.3, 1 / 0.3)
"""Smallest and largest ratio of the height of a block to its width."""
SMALLEST = 4
"""Smallest number of patches of a block, unless the whole mask is smaller."""


class BlockMasks(NamedTuple):
    """Masked patches of images."""

    mask: jax.Array
    """True for masked patches, bool ``[n, n_patches]``."""
    places: jax.Array
    """Numbers of the masked patches, then of others as padding, int32 ``[n, most]``."""
    is_masked: jax.Array
    """False for the padding, bool ``[n, most]``."""


def block_masks(key: jax.Array, n: int, grid: int, ratio: tuple[float, float]) -> BlockMasks:
    """Returns random masks of images, made of blocks of patches.

    The fraction of masked patches is drawn uniformly for each image. Blocks of random area, shape
    and place follow one another until so many patches are covered; the last block is cut off below.
    Thus every mask has exactly the number of patches that was drawn, and shapes are static.

    Args:
        key: a PRNG key.
        n: number of images.
        grid: number of patches along a side of an image.
        ratio: smallest and largest fraction of masked patches. At least one patch is masked.

    References:
        Bao, Dong, Piao, Wei: BEiT: BERT pre-training of image transformers (2022),
        https://arxiv.org/abs/2106.08254, algorithm 1.
        Zhou et al.: iBOT: image BERT pre-training with online tokenizer (2022),
        https://arxiv.org/abs/2111.07832.

    Examples:
        >>> masks = block_masks(jax.random.key(0), n=5, grid=4, ratio=(0.25, 0.5))
        >>> counts = masks.mask.sum(axis=1)
        >>> masks.places.shape, bool(((4 <= counts) & (counts <= 8)).all())
        ((5, 8), True)
    """
    n_patches = grid * grid
    size_key, block_key, rest_key = jax.random.split(key, 3)
    fraction = jax.random.uniform(size_key, (n,), minval=ratio[0], maxval=ratio[1])
    wanted = jnp.maximum(1, jnp.round(fraction * n_patches)).astype(jnp.int32)

    area, log_aspect, top, left = jax.random.uniform(block_key, (4, n, N_BLOCKS))
    smallest = jnp.minimum(SMALLEST, wanted)[:, None]
    area = smallest + (wanted[:, None] - smallest) * area
    low, high = jnp.log(jnp.asarray(ASPECT, jnp.float32))
    aspect = jnp.exp(low + (high - low) * log_aspect)
    rows = _interval(jnp.sqrt(area * aspect), top, grid)
    columns = _interval(jnp.sqrt(area / aspect), left, grid)
    covers = (rows[:, :, :, None] & columns[:, :, None, :]).reshape(n, N_BLOCKS, n_patches)

    # Patches are ordered by the first block that covers them, and within a block row by row.
    # Those that no block covers come last, at random.
    first_block = jnp.argmax(covers, axis=1)
    order = first_block + jnp.arange(n_patches)[None] / n_patches
    order = jnp.where(
        covers.any(axis=1), order, N_BLOCKS + jax.random.uniform(rest_key, (n, n_patches))
    )
    most = max(1, round(ratio[1] * n_patches))
    places = jnp.argsort(order, axis=1)[:, :most].astype(jnp.int32)
    is_masked = jnp.arange(most)[None] < wanted[:, None]
    mask = jnp.zeros((n, n_patches), bool)
    mask = jax.vmap(lambda m, p, v: m.at[p].set(v))(mask, places, is_masked)
    return BlockMasks(mask, places, is_masked)


def _interval(length: jax.Array, start: jax.Array, grid: int) -> jax.Array:
    """Returns the rows or columns of blocks, bool ``[n, N_BLOCKS, grid]``.

    Args:
        length: side of the blocks in patches, before rounding, ``[n, N_BLOCKS]``.
        start: place of the blocks, from 0 for the first one to 1 for the last one.
        grid: number of patches along a side of an image.
    """
    length = jnp.clip(jnp.round(length), 1, grid)
    first = jnp.minimum(jnp.floor(start * (grid - length + 1)), grid - length)
    place = jnp.arange(grid)[None, None]
    return (first[:, :, None] <= place) & (place < (first + length)[:, :, None])
