"""Assignment that compares rows only with the centroids that moved, and is exact.

A centroid that stayed where it was scores what it scored. So a row needs the scores of those that
moved, next to its own old best and to the least old score of any other. Only a row whose own
centroid receded past its second best, or whose candidates are too close to call, is searched
among all centroids. Both are dense: the centroids that moved are brought together in tiles, and
so are the rows to be searched.

References:
    Kaukoranta, Fraenti and Nevalainen, A fast exact GLA based on code vector activity detection,
    2000.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcurate.kmeans.assignment.exact import Rounding, loss_of, score_tolerance
from jaxcurate.kmeans.kernels.dispatch import top2_of_all
from jaxcurate.kmeans.kernels.scores import Precision, Top2, tiles_of

WORTHWHILE = 0.8
"""Fraction of moved centroids from which on all are scored, which saves rechecks of rows."""


def search_moved(
    x: jax.Array,
    weights: jax.Array,
    centroids: jax.Array,
    moved: jax.Array,
    before: Top2,
    rounding: Rounding,
    *,
    block: int,
    precision: Precision,
) -> tuple[Top2, jax.Array, jax.Array]:
    """Returns the nearest centroid of each row, given the best two before some centroids moved.

    The result is as good as that of :func:`~jaxcurate.kmeans.assignment.exact.search`.

    Args:
        x: float32 ``[n, d]``, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; rows of weight 0 may get any label.
        centroids: Centroids after the move, float32 ``[k, d]``.
        moved: Flags of the centroids that moved, bool ``[k]``.
        before: Best two centroids before the move.
        rounding: Norms of the rows, for this precision.
        block: Number of rows in a block.
        precision: Precision of the scores; the labels do not depend on it.

    Returns:
        The best two centroids; flags of the ambiguous rows, bool ``[n]``; and the fraction of the
        scores that were computed.
    """
    loss = loss_of(centroids, precision)
    moved |= jnp.mean(moved, dtype=jnp.float32) >= WORTHWHILE
    # If few centroids moved, narrow tiles have little padding.
    tiles = tiles_of(centroids, max(1, block // 4), moved)
    now = top2_of_all(x, tiles, block=block, precision=precision)
    close_at = lambda least: score_tolerance(rounding, loss, least, x.shape[1])
    best, sure = merged(before, now, moved, close_at)
    return best, ~sure & (weights > 0), jnp.mean(moved, dtype=jnp.float32)


def merged(
    before: Top2,
    now: Top2,
    moved: jax.Array,
    close_at: Callable[[jax.Array], jax.Array],
) -> tuple[Top2, jax.Array]:
    """Returns the best two centroids, merged from those before a move and the moved ones.

    Args:
        before: Best two of all centroids before the move.
        now: Best two of the moved centroids, after the move.
        moved: Flags of the centroids that moved, bool ``[k]``.
        close_at: Function from the least score ``[n]`` to the tolerance of scores.

    Returns:
        The best two of all centroids, and flags of the rows that are not ambiguous, bool ``[n]``.
    """
    # A centroid that stayed keeps its score: that of the old best, unless it moved, is known, and
    # the scores of the others are at least that of the old second best.
    own_moved = moved[before.labels]
    stayed = jnp.where(own_moved, jnp.inf, before.scores)
    others_stayed = jnp.where(jnp.all(moved), jnp.inf, before.second_scores)
    close = close_at(jnp.minimum(jnp.minimum(stayed, now.scores), others_stayed))
    keep = ~own_moved & (now.scores > stayed + close)
    others = jnp.where(own_moved, others_stayed, stayed)
    others = jnp.minimum(others, now.second_scores)
    switch = others > now.scores + close
    return (
        Top2(
            jnp.where(keep, before.labels, now.labels),
            jnp.where(keep, stayed, now.scores),
            jnp.where(keep, jnp.minimum(before.second_scores, now.scores), others),
        ),
        keep | switch,
    )
