r"""Exact nearest centroid: a proven bound on the rounding error, and a recheck within it.

The score :math:`\|c\|^2 / 2 - x \cdot c` loses digits where clusters are small beside their
distance from the origin, and more of them in bfloat16. A row whose best two scores lie within
twice the error bound is ambiguous, and its label is found anew, in the end from differences
:math:`\|x - c\|^2`, which lose nothing. So the labels do not depend on how the scores were made.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.kmeans.kernels.compact import over_flagged
from jaxcurate.kmeans.kernels.dispatch import top2_of_all
from jaxcurate.kmeans.kernels.scores import HIGHEST, Precision, Top2, half_norms, rounded, tiles_of

_FEW = 4
"""Largest number of centroids of a row to gather; with more, it is compared with all."""
_SCORES = 2**22
"""Number of scores of ambiguous rows that are held at a time."""


class Rounding(NamedTuple):
    """Norms that bound the error of scores between the rows and any centroids."""

    norms: jax.Array
    """Norms of the rows, float32 ``[n]``."""
    lost: jax.Array
    """Norms of the part of each row that the products leave out, float32 ``[n]``."""


def rounding_of(x: jax.Array, precision: Precision) -> Rounding:
    """Returns the norms of rows ``[n, d]``, and of the part of them that bfloat16 leaves out."""
    norms = jnp.sqrt(jnp.sum(x**2, axis=1))
    if precision == "float32":
        return Rounding(norms, jnp.zeros_like(norms))
    return Rounding(norms, jnp.sqrt(jnp.sum(_lost(x) ** 2, axis=1)))


def loss_of(centroids: jax.Array, precision: Precision) -> jax.Array:
    """Returns the largest fraction of a centroid's norm that products leave out; 0 in float32."""
    if precision == "float32":
        return jnp.float32(0)
    lost, sizes = jnp.sum(_lost(centroids) ** 2, axis=1), jnp.sum(centroids**2, axis=1)
    return jnp.sqrt(jnp.max(jnp.where(sizes > 0, lost / sizes, 0)))


def score_tolerance(rounding: Rounding, loss: jax.Array, least: jax.Array, d: int) -> jax.Array:
    r"""Returns the difference, float32 ``[n]``, beyond which two scores are in the right order.

    The centroid nearest to :math:`x` has a norm of at most :math:`R = \|x\| + \|x - c\|`, for
    any centroid :math:`c`.

    Args:
        rounding: Norms of the rows.
        loss: Result of :func:`loss_of` for the centroids.
        least: Least score of each row, float32 ``[n]``.
        d: Number of columns.
    """
    size = rounding.norms
    distance = jnp.sqrt(jnp.maximum(size**2 + 2 * least, 0))
    # The least score is itself uncertain: for errors below one in a hundred, what is missing in
    # the root is less than a fifth of it, or the root is less than half of |x|.
    reach = size + jnp.maximum(size / 2, 1.2 * distance)
    return 2.0 * score_error_bound(rounding, loss, reach, d)


def score_error_bound(rounding: Rounding, loss: jax.Array, reach: jax.Array, d: int) -> jax.Array:
    r"""Returns a bound on the error of scores, float32 ``[n]``.

    A product of ``d`` terms added up in any order is off by at most :math:`d u \|x\| \|c\|`,
    half a squared norm by :math:`d u \|c\|^2 / 2`, with :math:`u = 2^{-24}`; sixteen more cover
    the subtraction and float32 made of three bfloat16. What bfloat16 leaves out of either factor
    is bounded by Cauchy and Schwarz.

    Args:
        rounding: Norms of the rows.
        loss: Result of :func:`loss_of` for the centroids.
        reach: Largest norm of a centroid that can be nearest, float32 ``[n]``.
        d: Number of columns.

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1.
    """
    size, lost = rounding
    float32 = (d + 16) * 2.0**-24 * reach * (size + reach / 2)
    left_out = lost * reach + (size + lost) * loss * reach
    return float32 + 1.01 * left_out + 5e-37  # products may underflow


def search(
    x: jax.Array,
    weights: jax.Array,
    centroids: jax.Array,
    rounding: Rounding,
    *,
    block: int,
    precision: Precision,
) -> tuple[Top2, jax.Array]:
    """Returns the nearest centroid of each row, and the rows where it is ambiguous.

    Args:
        x: float32 ``[n, d]``, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; rows of weight 0 are never ambiguous.
        centroids: float32 ``[k, d]``.
        rounding: Norms of the rows, for this precision.
        block: Number of rows in a block.
        precision: Precision of the scores.

    Returns:
        The best two centroids, and flags of the rows for :func:`recheck`, bool ``[n]``.
    """
    tiles = tiles_of(centroids, block)
    best = top2_of_all(x, tiles, block=block, precision=precision)
    close = score_tolerance(rounding, loss_of(centroids, precision), best.scores, x.shape[1])
    return best, (best.second_scores - best.scores <= close) & (weights > 0)


def recheck(x: jax.Array, centroids: jax.Array, best: Top2, ambiguous: jax.Array) -> Top2:
    """Returns ``best`` after an exact search for the ambiguous rows, bool ``[n]``."""
    k = len(centroids)
    norms = half_norms(centroids)

    def some(rows: jax.Array, best: Top2) -> Top2:
        new = nearest_exact(x.at[rows].get(mode="clip"), centroids, norms)
        return jax.tree.map(lambda old, now: old.at[rows].set(now, mode="drop"), best, new)

    return over_flagged(ambiguous, max(8, min(256, _SCORES // k)), some, best)


def nearest_exact(rows: jax.Array, centroids: jax.Array, norms: jax.Array) -> Top2:
    """Returns the exact nearest centroid of each of a few rows.

    Centroids whose float32 score lies within the error bound of the best are compared by squared
    differences.

    Args:
        rows: float32 ``[b, d]``; an array ``[k, b]`` is held.
        centroids: float32 ``[k, d]``.
        norms: Half the squared norms of the centroids, float32 ``[k]``.
    """
    k, d = centroids.shape
    positions = jnp.arange(k, dtype=jnp.int32)[:, None]
    scores = norms[:, None] - jnp.dot(centroids, rows.T, precision=HIGHEST)
    least = jnp.min(scores, axis=0)
    close = score_tolerance(rounding_of(rows, "float32"), jnp.float32(0), least, d)
    possible = scores <= (least + close)[None, :]

    def few() -> jax.Array:
        def take(left: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            first = jnp.min(jnp.where(left, positions, k), axis=0)
            return left & (positions != first[None, :]), first

        _, candidates = jax.lax.scan(take, possible, length=_FEW)
        near = centroids.at[candidates].get(mode="clip")
        squared = by_differences(rows.T[:, None, :], near.transpose(2, 0, 1))
        squared = jnp.where(candidates < k, squared, jnp.inf)
        least = jnp.min(squared, axis=0, keepdims=True)
        return jnp.min(jnp.where(squared <= least, candidates, k - 1), axis=0)

    def many() -> jax.Array:
        squared = by_differences(rows.T[:, None, :], centroids.T[:, :, None])
        squared = jnp.where(possible, squared, jnp.inf)
        least = jnp.min(squared, axis=0, keepdims=True)
        return jnp.min(jnp.where(squared <= least, positions, k - 1), axis=0)

    if k <= 8 * _FEW:
        labels = many()
    else:
        labels = jax.lax.cond(jnp.max(jnp.sum(possible, axis=0)) <= _FEW, few, many)
    others = jnp.min(jnp.where(positions == labels[None, :], jnp.inf, scores), axis=0)
    return Top2(labels, least, others)


def by_differences(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns squared distances ``[...]`` of points ``[d, ...]``, added up in a fixed order."""
    shape = jnp.broadcast_shapes(a.shape[1:], b.shape[1:])
    zero = (a[0] + b[0]) * 0

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + (a[i] - b[i]) ** 2

    return jax.lax.fori_loop(0, len(a), add, jnp.broadcast_to(zero, shape))


def nearest(
    x: jax.Array, centroids: jax.Array, *, block: int, precision: Precision = "float32"
) -> jax.Array:
    """Returns the index of the nearest centroid of each row in squared Euclidean distance.

    The result is exact up to the rounding of the float32 distances themselves. Of centroids at
    equal distance the first is returned.

    Args:
        x: float32 ``[n, d]``, ``n`` a multiple of ``block``.
        centroids: float32 ``[k, d]``.
        block: Number of rows in a block.
        precision: Precision of the first products; the labels do not depend on it.

    Returns:
        int32 ``[n]``.
    """
    rounding = rounding_of(x, precision)
    weights = jnp.ones_like(rounding.norms)
    best, ambiguous = search(x, weights, centroids, rounding, block=block, precision=precision)
    return recheck(x, centroids, best, ambiguous).labels


def squared_distances(
    x: jax.Array, centroids: jax.Array, labels: jax.Array, *, block: int
) -> jax.Array:
    """Returns the squared distance of each row to the centroid of its label, without cancellation.

    Args:
        x: float32 ``[n, d]``, ``n`` a multiple of ``block``.
        centroids: float32 ``[k, d]``.
        labels: int32 ``[n]``.
        block: Number of rows in a block.

    Returns:
        float32 ``[n]``.
    """

    def measured(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        rows, numbers = inputs
        return jnp.sum((rows - centroids[numbers]) ** 2, axis=1)

    blocks = x.reshape(-1, block, x.shape[1]), labels.reshape(-1, block)
    return jax.lax.map(measured, blocks).reshape(-1)


def _lost(x: jax.Array) -> jax.Array:
    return x - rounded(x)
