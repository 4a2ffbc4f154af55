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

from jaxcurate.kmeans.nearest import Rounding, loss_of, margin, search
from jaxcurate.kmeans.scores import Best, Precision, best_two_of_all, tiles_of

_WORTHWHILE = 0.8
_WIDTH = 256


def search_moved(
    x: jax.Array,
    weights: jax.Array,
    centroids: jax.Array,
    moved: jax.Array,
    before: Best,
    rounding: Rounding,
    *,
    block: int,
    precision: Precision,
) -> tuple[Best, jax.Array, jax.Array]:
    """As :func:`~jaxcurate.kmeans.nearest.search`, given the best before some centroids moved.

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
    d = x.shape[1]
    loss = loss_of(centroids, precision)
    options = dict(block=block, precision=precision)

    def among_moved() -> tuple[Best, jax.Array]:
        now = best_two_of_all(x, tiles_of(centroids, moved, _WIDTH), **options)
        close_at = lambda least: margin(rounding, loss, least, d)
        best, sure = merged(before, now, moved[before.labels], close_at)
        return best, ~sure & (weights > 0)

    def among_all() -> tuple[Best, jax.Array]:
        return search(x, weights, tiles_of(centroids), rounding, loss, **options)

    share = jnp.mean(moved, dtype=jnp.float32)
    worthwhile = share < _WORTHWHILE
    best, doubt = jax.lax.cond(worthwhile, among_moved, among_all)
    return best, doubt, jnp.where(worthwhile, share, 1)


def merged(
    before: Best,
    now: Best,
    own_moved: jax.Array,
    close_at: Callable[[jax.Array], jax.Array],
) -> tuple[Best, jax.Array]:
    """What is known after the scores of the centroids that moved.

    Args:
        before: the best among all centroids as they were.
        now: the best among those that moved, where they are now.
        own_moved: bool ``[n]``: whether the row's old label is among them.
        close_at: from the least score ``[n]`` to the margin of doubt.

    Returns:
        The best of both, and where it is sure, bool ``[n]``.
    """
    # What stayed scores what it scored: the old best, unless it moved, and the others at least
    # as much as the old second best.
    stayed = jnp.where(own_moved, jnp.inf, before.scores)
    close = close_at(jnp.minimum(jnp.minimum(stayed, now.scores), before.others))
    keep = ~own_moved & (now.scores > stayed + close)
    others = jnp.where(own_moved, before.others, stayed)
    others = jnp.minimum(others, now.others)
    switch = others > now.scores + close
    return (
        Best(
            jnp.where(keep, before.labels, now.labels),
            jnp.where(keep, stayed, now.scores),
            jnp.where(keep, jnp.minimum(before.others, now.scores), others),
        ),
        keep | switch,
    )
