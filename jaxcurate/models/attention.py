"""Attention over the tokens of an image, by the fastest means that the backend has."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

_FUSED_HEADS = range(8, 129, 8)
"""Numbers of features of a head for which cuDNN has attention in one kernel, on all GPUs."""
_FUSED_FROM = 8.0
"""Lowest compute capability of GPUs with that kernel."""


def is_fused(precision: str, head: int) -> bool:
    """Returns whether attention runs as one kernel, which keeps no weights of all pairs of tokens.

    The kernel is that of cuDNN, for NVIDIA GPUs and bfloat16. TPUs and CPUs have XLA, which fuses
    the softmax with its neighbors.

    Args:
        precision: precision of queries, keys and values.
        head: number of features of a head.

    Examples:
        >>> is_fused("float32", 64)
        False
    """
    if precision != "bfloat16" or head not in _FUSED_HEADS or jax.default_backend() != "gpu":
        return False
    # GPUs of other vendors name their architecture, such as gfx90a, in place of a number.
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    return capability.replace(".", "", 1).isdigit() and float(capability) >= _FUSED_FROM


def attend(
    qkv: jax.Array, *, heads_first: bool, fused: bool, precision: Any, rotation: Any = None
) -> jax.Array:
    """Returns means of values, weighted by the softmax of scaled products of queries and keys.

    Args:
        qkv: queries, keys and values, ``[b, n, 3, h, d]``.
        heads_first: True to move the heads before the tokens.
        fused: True for one kernel for all.
        precision: precision of matrix products to request from XLA.
        rotation: function that rotates queries or keys by their positions; None for none.

    Returns:
        ``[b, n, h, d]``.

    References:
        Vaswani et al.: Attention is all you need (2017), https://arxiv.org/abs/1706.03762,
        section 3.2.
        Dao et al.: FlashAttention (2022), https://arxiv.org/abs/2205.14135, for the fused kernel.

    Examples:
        >>> qkv = jnp.ones((2, 5, 3, 1, 8))
        >>> attend(qkv, heads_first=False, fused=False, precision="highest").shape
        (2, 5, 1, 8)
    """
    if heads_first:
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        scores, mixes = "bhqd,bhkd->bhqk", "bhqk,bhkd->bhqd"
    else:
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        scores, mixes = "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd"
    if rotation is not None:
        q, k = rotation(q), rotation(k)
    if fused:
        # The kernel wants tokens first; XLA cancels this transpose of a transpose.
        turned = [x.swapaxes(1, 2) for x in (q, k, v)] if heads_first else [q, k, v]
        return jax.nn.dot_product_attention(*turned, implementation="cudnn")
    score = jnp.einsum(scores, q, k, precision=precision)
    weight = nnx.softmax(score.astype(jnp.float32) / np.sqrt(qkv.shape[-1]), axis=-1)
    mixed = jnp.einsum(mixes, weight.astype(v.dtype), v, precision=precision)
    return mixed.swapaxes(1, 2) if heads_first else mixed
