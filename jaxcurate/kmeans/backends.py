"""The best two centroids of each row, by the implementation that fits the backend."""

import functools

import jax

from jaxcurate.kmeans.fused import best_two_fused
from jaxcurate.kmeans.scores import Best, Precision, Tiles, best_two_in_blocks


def best_two_of_all(
    x: jax.Array, tiles: Tiles, *, block: int, precision: Precision = "float32"
) -> Best:
    """The best centroid of each row and the score of the second best.

    Args:
        x: float32 ``[n, d]``, ``n`` a multiple of ``block``.
        tiles: of centroids.
        block: rows at a time where XLA does it; the TPU kernel has its own blocks.
        precision: what the products are made of.
    """
    return jax.lax.platform_dependent(
        x,
        tiles,
        tpu=functools.partial(best_two_fused, precision=precision),
        default=functools.partial(best_two_in_blocks, block=block, precision=precision),
    )
