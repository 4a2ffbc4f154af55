"""Nearest centroid: blocked distances and argmin that never hold ``n x k`` numbers."""

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


def nearest(x: jax.Array, centroids: jax.Array, *, block: int) -> jax.Array:
    r"""The index of the centroid nearest to each row, in squared Euclidean distance.

    Minimises :math:`\|c\|^2 / 2 - x \cdot c`, which has the order of :math:`\|x - c\|^2`, with
    float32 products. Of equal centroids the first wins.

    Args:
        x: float32 ``[n, d]``, ``n`` a multiple of ``block``; best roughly centred, since the
            rounding error grows with the norms.
        centroids: float32 ``[k, d]``.
        block: rows at a time; ``[block, k]`` is the largest array that is held.

    Returns:
        int32 ``[n]``.
    """
    k, d = centroids.shape
    half_norms = 0.5 * jnp.sum(centroids**2, axis=1)[None, :]
    positions = jnp.arange(k, dtype=jnp.int32)[None, :]

    def one_block(rows: jax.Array) -> jax.Array:
        scores = half_norms - jnp.dot(rows, centroids.T, precision=HIGHEST)
        # The minimum first, its position in a second pass: both vectorise, argmin does not
        # (four times slower on XLA's CPU backend).
        least = jnp.min(scores, axis=1, keepdims=True)
        # The position is clipped for rows of NaN, which compare false with their own minimum.
        return jnp.minimum(jnp.min(jnp.where(scores <= least, positions, k), axis=1), k - 1)

    return jax.lax.map(one_block, x.reshape(-1, block, d)).reshape(-1)


def squared_distances(x: jax.Array, centroids: jax.Array, labels: jax.Array) -> jax.Array:
    """The squared distance of each row to the centroid of its label, without cancellation.

    Args:
        x: float32 ``[n, d]``.
        centroids: float32 ``[k, d]``.
        labels: int32 ``[n]``.

    Returns:
        float32 ``[n]``.
    """
    return jnp.sum((x - centroids[labels]) ** 2, axis=1)
