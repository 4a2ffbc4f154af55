"""Cluster sums: what the rows of each cluster add up to, by the way that fits the backend."""

import jax
import jax.numpy as jnp

from jaxcurate.kmeans.scores import HIGHEST


def cluster_sums(
    x: jax.Array, weights: jax.Array, labels: jax.Array, n_clusters: int, *, block: int
) -> tuple[jax.Array, jax.Array]:
    """Weighted sums of the rows and of the weights, for each label.

    Args:
        x: float32 ``[n, d]``, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; 0 leaves a row out.
        labels: int32 ``[n]``.
        n_clusters: ``k``.
        block: rows at a time where the sums are matrix products.

    Returns:
        Sums float32 ``[k, d]`` and counts float32 ``[k]``.
    """
    if jax.default_backend() == "cpu":
        sums = jax.ops.segment_sum(x * weights[:, None], labels, n_clusters)
        return sums, jax.ops.segment_sum(weights, labels, n_clusters)
    # Scatter is slow on TPU, and in some releases a compare-and-swap loop on GPU; a product with
    # the one-hot labels is what their matrix units are for.
    return _one_hot_sums(x, weights, labels, n_clusters, block=block)


def _one_hot_sums(
    x: jax.Array, weights: jax.Array, labels: jax.Array, n_clusters: int, *, block: int
) -> tuple[jax.Array, jax.Array]:
    d = x.shape[1]

    def add(
        carry: tuple[jax.Array, jax.Array], part: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        rows, w, own = part
        one_hot = jax.nn.one_hot(own, n_clusters, dtype=x.dtype) * w[:, None]
        sums = carry[0] + jnp.dot(one_hot.T, rows, precision=HIGHEST)
        return (sums, carry[1] + jnp.sum(one_hot, axis=0)), None

    parts = (x.reshape(-1, block, d), weights.reshape(-1, block), labels.reshape(-1, block))
    zeros = jnp.zeros((n_clusters, d), x.dtype), jnp.zeros(n_clusters, x.dtype)
    return jax.lax.scan(add, zeros, parts)[0]
