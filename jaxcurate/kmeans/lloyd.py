"""Lloyd's iterations, the whole loop inside jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate import parallel
from jaxcurate.kmeans.nearest import nearest, squared_distances
from jaxcurate.kmeans.sums import cluster_sums


class LloydState(NamedTuple):
    """Where the iterations stand; ``labels`` always belong to ``centroids``."""

    centroids: jax.Array
    """float32 ``[k, d]``."""
    labels: jax.Array
    """int32 ``[n]``."""
    n_changed: jax.Array
    """int32: rows whose label the last iteration changed."""
    n_iter: jax.Array
    """int32: iterations done."""


LLOYD_SPECS = LloydState(parallel.SAME, parallel.ROWS, parallel.SAME, parallel.SAME)


def lloyd(
    x: jax.Array,
    weights: jax.Array,
    centroids: jax.Array,
    *,
    max_iter: int,
    block: int,
    axis_name: str | None,
) -> LloydState:
    """Moves each centroid to the mean of its rows until no label changes.

    An empty cluster keeps its centroid.

    Args:
        x: float32 ``[n, d]``, this device's rows, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; 0 marks padding.
        centroids: float32 ``[k, d]``, where to begin.
        max_iter: iterations at most; 0 only assigns.
        block: rows at a time in the distances.
        axis_name: the mapped axis over which rows are split.

    References:
        Lloyd, Least squares quantization in PCM, 1982.
    """

    def assign(centroids: jax.Array) -> jax.Array:
        return nearest(x, centroids, block=block)

    def step(state: LloydState) -> LloydState:
        centroids = updated(x, weights, state.labels, state.centroids, block, axis_name)
        labels = assign(centroids)
        moved = jnp.sum((labels != state.labels) & (weights > 0), dtype=jnp.int32)
        n_changed = parallel.psum(moved, axis_name)
        return LloydState(centroids, labels, n_changed, state.n_iter + 1)

    def unfinished(state: LloydState) -> jax.Array:
        return (state.n_changed > 0) & (state.n_iter < max_iter)

    begin = LloydState(centroids, assign(centroids), jnp.int32(1), jnp.int32(0))
    return jax.lax.while_loop(unfinished, step, begin)


def updated(
    x: jax.Array,
    weights: jax.Array,
    labels: jax.Array,
    centroids: jax.Array,
    block: int,
    axis_name: str | None,
) -> jax.Array:
    """The mean of each cluster, ``[k, d]``, found as a correction to its centroid.

    The differences from the present centroid are small and nearly cancel, so that their float32
    sum keeps digits that the sum of a large cluster's rows would lose.
    """
    sums, counts = cluster_sums(x - centroids[labels], weights, labels, len(centroids), block=block)
    sums, counts = parallel.psum((sums, counts), axis_name)
    return centroids + sums / jnp.maximum(counts, 1e-30)[:, None]


def assigned(
    x: jax.Array, centroids: jax.Array, *, block: int, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Labels int32 ``[n]`` and squared distances float32 ``[n]`` to the nearest centroids."""
    del axis_name  # every row is on its own
    labels = nearest(x, centroids, block=block)
    return labels, squared_distances(x, centroids, labels)
