"""Cluster sums: what the rows of each cluster add up to, by the way that fits the backend."""

import jax
import jax.numpy as jnp

from jaxcurate.kmeans.dense import over_flagged
from jaxcurate.kmeans.scores import HIGHEST

_FEW = 256
"""Clusters for which a product with one-hot labels of all rows is cheap."""
_PIECE = 1024
"""Rows at a time, in the order of their labels."""
_AT_ONCE = 4096
"""Rows at most that are gathered at a time on a CPU, of few rows a sixteenth."""


def sums_of_differences(
    x: jax.Array,
    weights: jax.Array,
    labels: jax.Array,
    centroids: jax.Array,
    touched: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Sums of the rows' differences from their centroids, and of their weights, by cluster.

    Differences from a centroid close to the mean are small and nearly cancel, so that their
    float32 sum keeps digits that the sum of a large cluster's rows would lose.

    Args:
        x: float32 ``[n, d]``.
        weights: float32 ``[n]``; rows of weight 0 are left out.
        labels: int32 ``[n]``; below 0 for none.
        centroids: float32 ``[k, d]``.
        touched: bool ``[k]``, the clusters that are wanted; all by default.

    Returns:
        Sums float32 ``[k, d]`` and counts float32 ``[k]``, in the same order of addition
        whenever the arguments are the same.
    """
    wanted = (weights > 0) & (labels >= 0)
    if touched is not None:
        wanted &= touched[labels]
    weights = jnp.where(wanted, weights, 0)
    # XLA's scatter is good on CPUs, slow on TPUs, and in some releases a compare-and-swap loop
    # on GPUs; matrix products are what their units are for.
    on_cpu = by_segments if touched is None else by_gathered_segments
    elsewhere = by_one_hot if len(centroids) <= _FEW else by_windows
    return jax.lax.platform_dependent(x, weights, labels, centroids, cpu=on_cpu, default=elsewhere)


def by_segments(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """All rows are scattered to their sums."""
    k = len(centroids)
    differences = x - centroids.at[labels].get(mode="clip")
    sums = jax.ops.segment_sum(differences * weights[:, None], labels, k)
    return sums, jax.ops.segment_sum(weights, labels, k)


def by_gathered_segments(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Rows of weight above 0 are gathered in blocks and scattered to their sums."""
    k, d = centroids.shape

    def add(rows: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        own = labels.at[rows].get(mode="clip")
        w = weights.at[rows].get(mode="fill", fill_value=0)
        sums, counts = by_segments(x.at[rows].get(mode="clip"), w, own, centroids)
        return carry[0] + sums, carry[1] + counts

    zeros = jnp.zeros((k, d), x.dtype), jnp.zeros(k, x.dtype)
    return over_flagged(weights > 0, min(_AT_ONCE, max(1, len(x) // 16)), add, zeros)


def by_one_hot(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A product of the one-hot labels with the rows, a piece at a time."""
    (n, d), k = x.shape, len(centroids)
    piece = min(_PIECE, n)

    def add(
        carry: tuple[jax.Array, jax.Array], part: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        rows, w, own = part
        differences = rows - centroids.at[own].get(mode="clip")
        one_hot = jax.nn.one_hot(own, k, dtype=x.dtype) * w[:, None]
        sums = carry[0] + jnp.dot(one_hot.T, differences, precision=HIGHEST)
        return (sums, carry[1] + jnp.sum(one_hot, axis=0)), None

    fill = -n % piece
    parts = (
        jnp.pad(x, ((0, fill), (0, 0))).reshape(-1, piece, d),
        jnp.pad(weights, (0, fill)).reshape(-1, piece),
        jnp.pad(labels, (0, fill)).reshape(-1, piece),
    )
    zeros = jnp.zeros((k, d), x.dtype), jnp.zeros(k, x.dtype)
    return jax.lax.scan(add, zeros, parts)[0]


def by_windows(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Rows in the order of their labels meet windows of clusters in small matrix products.

    Each turn takes the next rows in order, those of them whose labels fall in the window that
    begins with the first label, and adds to the sums of that window, which stand side by side.
    There are at most ``n / piece + k / window`` turns.
    """
    k, d = centroids.shape
    own = jnp.where(weights > 0, labels, k)
    order = jnp.argsort(own, stable=True).astype(jnp.int32)
    own = jnp.pad(own[order], (0, _PIECE), constant_values=k)
    order = jnp.pad(order, (0, _PIECE))
    centroids = jnp.pad(centroids, ((0, _FEW), (0, 0)))
    within = jnp.arange(_FEW, dtype=jnp.int32)

    def turn(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        begin, sums, counts = state
        rows = jax.lax.dynamic_slice(order, (begin,), (_PIECE,))
        local = jax.lax.dynamic_slice(own, (begin,), (_PIECE,))
        first = local[0]
        here = (local < k) & (local - first < _FEW)
        local = jnp.where(here, local - first, _FEW)  # _FEW has no place in the one-hot product
        window = jax.lax.dynamic_slice(centroids, (first, 0), (_FEW, d))
        differences = x[rows] - window.at[local].get(mode="clip")
        one_hot = (local[:, None] == within[None, :]) * weights[rows][:, None]
        one_hot = jnp.where(here[:, None], one_hot, 0)
        part = jnp.dot(one_hot.T, differences, precision=HIGHEST)
        old = jax.lax.dynamic_slice(sums, (first, 0), (_FEW, d))
        sums = jax.lax.dynamic_update_slice(sums, old + part, (first, 0))
        old = jax.lax.dynamic_slice(counts, (first,), (_FEW,))
        counts = jax.lax.dynamic_update_slice(counts, old + jnp.sum(one_hot, axis=0), (first,))
        return begin + jnp.sum(here, dtype=jnp.int32), sums, counts

    def unfinished(state: tuple[jax.Array, ...]) -> jax.Array:
        return own[state[0]] < k

    zeros = jnp.zeros((k + _FEW, d), x.dtype), jnp.zeros(k + _FEW, x.dtype)
    _, sums, counts = jax.lax.while_loop(unfinished, turn, (jnp.int32(0), *zeros))
    return sums[:k], counts[:k]
