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
"""Where more of the centroids moved, all are scored: it saves the search of rows in doubt."""


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
    """Works as :func:`~jaxcurate.kmeans.assignment.exact.search`, given the best before some
    centroids moved.

    Args:
        x: float32 ``[n, d]``, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; rows of weight 0 may get any label.
        centroids: float32 ``[k, d]``, as they are now.
        moved: bool ``[k]``: those that are not where they were.
        before: the best among the centroids as they were.
        rounding: of the rows, in this precision.
        block: rows at a time.
        precision: of the scores. The labels are the same in each.

    Returns:
        The best; where it is in doubt, bool ``[n]``; and the share of scores worked out.
    """
    loss = loss_of(centroids, precision)
    moved |= jnp.mean(moved, dtype=jnp.float32) >= WORTHWHILE
    # Of narrow tiles few places are left empty when few centroids moved.
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
    """Returns what is known after the scores of the centroids that moved.

    Args:
        before: the best among all centroids as they were.
        now: the best among those that moved, where they are now.
        moved: bool ``[k]``.
        close_at: from the least score ``[n]`` to the margin of doubt.

    Returns:
        The best of both, and where it is sure, bool ``[n]``.
    """
    # What stayed scores what it scored: the old best, unless it moved, and the others at least
    # as much as the old second best.
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
