r"""Exact assignment that compares blocks of neighboring rows with the centroids near them.

Rows are put in an order in which those of a block lie close together. For each block and each
centroid a lower bound is kept of the difference between the centroid's score and the score of a
row's current centroid, over all rows of the block. When centroids move, these lower bounds shrink
by no more than the triangle inequality allows. A centroid whose lower bound stays large can be
nearest to none of the rows, and is left out for the whole block. So the computation stays dense.

References:
    Elkan, Using the triangle inequality to accelerate k-means, 2003.
    Ding et al., Yinyang k-means, 2015.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.kmeans.assignment.exact import Rounding, loss_of, score_error_bound, score_tolerance
from jaxcurate.kmeans.assignment.moved import WORTHWHILE, merged, search_moved
from jaxcurate.kmeans.kernels.compact import flagged
from jaxcurate.kmeans.kernels.scores import (
    Precision,
    Top2,
    half_norms,
    nothing_yet,
    rounded,
    top2_of_tile,
)
from jaxcurate.runtime import collectives
from jaxcurate.runtime.devices import ROWS, specs

_FIRST = 2
"""Iteration in which rows are first sorted, since centroids move too far before. If pruning does
not pay yet, rows are sorted again after twice as many iterations, and so on."""
_TILE = 64
"""Number of centroids that a block is compared with at a time."""
_SORT_BLOCK = 1024
"""Number of centroids that are sorted at a time."""
_LEAST_CLUSTERS, _LEAST_BLOCKS, _LEAST_COLUMNS = 256, 16, 16
"""Smallest sizes for which pruning can save more than it costs."""
_MEMORY_DIVISOR = 8
"""Divisor of the rows' memory that gives the largest memory for lower bounds."""
_BETTER = 0.6
"""Fraction of the moved centroids' scores from which on all of these scores are computed."""


class PruningBounds(NamedTuple):
    """Lower bounds of a device for blocks of its rows; the first axis is that of the devices."""

    order: jax.Array
    """Row numbers in an order of neighbors, int32 ``[1, n]``; a single 0 if pruning cannot pay."""
    lower_bounds: jax.Array
    """Lower bounds of the score of each centroid minus that of the row's current centroid, for all
    rows of a block, float32 ``[1, n / block, k]``; minus infinity if there is no bound."""
    in_use: jax.Array
    """True if the rows are sorted and the bounds are valid, bool ``[1]``."""


PRUNING_SPECS = specs(PruningBounds, ROWS, ROWS, ROWS)


def pays(n: int, d: int, k: int, block: int) -> bool:
    """Returns whether bounds are worth their memory and time, for ``n`` rows of one device.

    Examples:
        >>> from jaxcurate.kmeans.assignment.pruned import pays
        >>> pays(n=100_000, d=64, k=1000, block=1024), pays(n=100_000, d=64, k=20, block=1024)
        (True, False)
    """
    small = k < _LEAST_CLUSTERS or n < _LEAST_BLOCKS * block or d < _LEAST_COLUMNS
    return not small and _MEMORY_DIVISOR * k <= block * d


def no_bounds(n: int, d: int, k: int, block: int) -> PruningBounds:
    """Returns bounds that are not in use, of the right shapes."""
    n, n_blocks = (n, n // block) if pays(n, d, k, block) else (1, 1)
    return PruningBounds(
        jnp.zeros((1, n), jnp.int32), jnp.zeros((1, n_blocks, k)), jnp.zeros(1, bool)
    )


def sort_rows(
    bounds: PruningBounds, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> PruningBounds:
    """Returns bounds with rows sorted by cluster, and clusters in an order of neighbors."""
    k = len(centroids)
    place = jnp.zeros(k, jnp.int32).at[neighbor_order(centroids)].set(jnp.arange(k))
    by_place = jnp.argsort(jnp.where(weights > 0, place[labels], k)).astype(jnp.int32)
    return PruningBounds(
        by_place[None], jnp.full_like(bounds.lower_bounds, -jnp.inf), jnp.ones(1, bool)
    )


def neighbor_order(points: jax.Array) -> jax.Array:
    """Returns an order ``[k]`` of points ``[k, d]`` in which close points follow each other.

    Points are grouped by the nearest of about ``k^(3/4)`` of them, and these points by the nearest
    of about ``k^(1/2)``.
    """
    k = len(points)
    some, few = (points[:: max(1, round(k**power))] for power in (1 / 4, 1 / 2))
    by_few = jnp.argsort(about_nearest(some, few))
    place = jnp.zeros_like(by_few).at[by_few].set(jnp.arange(len(some)))
    return jnp.argsort(place[about_nearest(points, some)])


def about_nearest(points: jax.Array, few: jax.Array) -> jax.Array:
    """Returns the index of the nearest of a few points ``[m, d]``, for each point, roughly."""
    norms = half_norms(few)
    nearest_to = lambda point: jnp.argmin(norms - jnp.dot(few, point))
    return jax.lax.map(nearest_to, points, batch_size=min(_SORT_BLOCK, len(points)))


def search_pruned(
    x: jax.Array,
    weights: jax.Array,
    old: jax.Array,
    centroids: jax.Array,
    moved: jax.Array,
    before: Top2,
    bounds: PruningBounds,
    n_iter: jax.Array,
    rounding: Rounding,
    *,
    block: int,
    precision: Precision,
    axis_name: str | None,
) -> tuple[Top2, jax.Array, jax.Array, PruningBounds]:
    """Returns the nearest centroid of each row, searched for by blocks of neighbors if it pays.

    The result is as good as that of :func:`~jaxcurate.kmeans.assignment.moved.search_moved`.

    Args:
        x: float32 ``[n, d]``, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; rows of weight 0 may get any label.
        old: Centroids before the move, float32 ``[k, d]``.
        centroids: Centroids after the move, float32 ``[k, d]``.
        moved: Flags of the centroids that moved, bool ``[k]``.
        before: Best two centroids before the move.
        bounds: Lower bounds before the move.
        n_iter: Number of the iteration, int32; 0 for the first assignment.
        rounding: Norms of the rows, for this precision.
        block: Number of rows in a block.
        precision: Precision of the scores; the labels do not depend on it.
        axis_name: Mapped axis over which rows are split.

    Returns:
        The best two centroids; flags of the ambiguous rows, bool ``[n]``; the fraction of the
        scores that were computed; and the new lower bounds.
    """
    plain = lambda: search_moved(
        x, weights, centroids, moved, before, rounding, block=block, precision=precision
    )
    if bounds.order.shape[1] < len(x):
        return *plain(), bounds
    arrange = ~bounds.in_use[0] & (n_iter >= _FIRST) & (n_iter & (n_iter - 1) == 0)
    bounds = jax.lax.cond(
        arrange, lambda: sort_rows(bounds, weights, before.labels, old), lambda: bounds
    )
    # The sum may underflow.
    centroid_shift = 1.001 * jnp.sqrt(jnp.sum((centroids - old) ** 2, axis=1)) + 1e-18
    centroid_shift = jnp.where(moved, centroid_shift, 0)
    moved |= arrange | (jnp.mean(moved, dtype=jnp.float32) >= WORTHWHILE)
    loss = jnp.maximum(loss_of(old, precision), loss_of(centroids, precision))
    # Bounds the error of any score: products with the longest row or the longest centroid.
    longest = jnp.sqrt(2 * jnp.maximum(jnp.max(half_norms(old)), jnp.max(half_norms(centroids))))
    error = score_error_bound(rounding, loss, jnp.maximum(longest, rounding.norms), x.shape[1])
    max_radius = jnp.sqrt(jnp.maximum(2 * before.scores + rounding.norms**2 + 4 * error, 0))
    # Bounds the increase of the score of each row's own centroid.
    base_scores = own_scores(x, centroids, before.labels, block=block)
    own_increase = jnp.where(
        centroid_shift[before.labels] > 0, base_scores - before.scores + 2 * error, 0
    )

    order = bounds.order.reshape(-1, block)
    of_block = lambda a, f: f(a[order], axis=1)
    lower_bounds = relax_bounds(
        bounds.lower_bounds[0],
        of_block(max_radius, jnp.max),
        of_block(own_increase, jnp.max),
        centroid_shift,
    )
    # A centroid that is left out must not precede the second nearest, by which ambiguous rows are
    # recognized. The lower bound of a row's own centroid is at most 0, so it is never left out.
    typical_gap = jnp.maximum(of_block(before.second_scores - before.scores, jnp.mean), 0)
    wanted = ~(lower_bounds > typical_gap[:, None])
    scored = wanted & moved[None, :]
    fraction = jnp.sum(scored, dtype=jnp.int32).astype(jnp.float32) / scored.size
    all_of = jnp.mean(moved, dtype=jnp.float32)

    def by_blocks() -> tuple[Top2, jax.Array, jax.Array, jax.Array]:
        now, lower_bounds_now = top2_pruned(x, centroids, base_scores, order, scored, precision)
        lower_bounds_now -= 2 * of_block(error, jnp.max)[:, None]
        close_at = lambda least: score_tolerance(rounding, loss, least, x.shape[1])
        best, sure = merged(before, now, moved, close_at)
        left_out = jnp.min(jnp.where(moved[None, :] & ~wanted, lower_bounds, jnp.inf), axis=1)
        beyond = jnp.zeros_like(best.scores).at[order].set(left_out[:, None])
        best = best._replace(second_scores=jnp.minimum(best.second_scores, best.scores + beyond))
        return (
            best,
            ~sure & (weights > 0),
            fraction,
            jnp.where(scored, lower_bounds_now, lower_bounds),
        )

    worthwhile = bounds.in_use[0] & (arrange | (fraction <= _BETTER * all_of))
    best, ambiguous, fraction, lower_bounds = jax.lax.cond(
        worthwhile, by_blocks, lambda: (*plain(), lower_bounds)
    )
    fraction = collectives.psum(fraction, axis_name) / collectives.axis_size(axis_name)
    return (
        best,
        ambiguous,
        fraction,
        PruningBounds(bounds.order, lower_bounds[None], worthwhile[None]),
    )


def relax_bounds(
    lower_bounds: jax.Array,
    max_radius: jax.Array,
    own_increase: jax.Array,
    centroid_shift: jax.Array,
) -> jax.Array:
    r"""Returns lower bounds, float32 ``[b, k]``, that hold after the centroids moved.

    With a row at most :math:`u` from its own centroid and a lower bound :math:`g`, another centroid
    is :math:`\sqrt{u^2 + 2 g}` or more away. If it moved by :math:`\delta`, its score fell by at
    most :math:`\delta \sqrt{u^2 + 2 g} - \delta^2 / 2`, which grows with :math:`u`.

    Args:
        lower_bounds: Lower bounds before the move, float32 ``[b, k]``.
        max_radius: Largest distance of a row to its own centroid, float32 ``[b]``.
        own_increase: Largest increase of the score of a row's own centroid, float32 ``[b]``.
        centroid_shift: Distance that each centroid moved, float32 ``[k]``.
    """
    max_radius, own_increase, centroid_shift = (
        max_radius[:, None],
        own_increase[:, None],
        centroid_shift[None, :],
    )
    twice = 2 * jnp.maximum(lower_bounds, 0)
    apart = jnp.sqrt(twice + max_radius**2)
    rounding = 4e-7 * apart**2
    fall = centroid_shift * (apart - 0.5 * centroid_shift) + rounding
    known = centroid_shift**2 < twice  # otherwise a centroid may have passed a row
    left = jnp.where(known, lower_bounds - fall, -jnp.inf)
    return jnp.where(centroid_shift > 0, left, lower_bounds) - own_increase


def own_scores(x: jax.Array, centroids: jax.Array, labels: jax.Array, *, block: int) -> jax.Array:
    """Returns the score of each row's own centroid, float32 ``[n]``."""
    norms = half_norms(centroids)

    def scored(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        rows, numbers = inputs
        return norms[numbers] - jnp.sum(rows * centroids[numbers], axis=1)

    blocks = x.reshape(-1, block, x.shape[1]), labels.reshape(-1, block)
    return jax.lax.map(scored, blocks).reshape(-1)


def top2_pruned(
    x: jax.Array,
    centroids: jax.Array,
    base_scores: jax.Array,
    order: jax.Array,
    scored: jax.Array,
    precision: Precision,
) -> tuple[Top2, jax.Array]:
    """Returns the best two of each row among the centroids scored for its block, and bounds.

    Args:
        x: float32 ``[n, d]``.
        centroids: float32 ``[k, d]``.
        base_scores: Score of each row's own centroid, from which bounds are measured, float32
            ``[n]``.
        order: Row numbers of each block, int32 ``[n / block, block]``.
        scored: Flags of the centroids to score for each block, bool ``[n / block, k]``.
        precision: Precision of the products.

    Returns:
        The best two centroids; and the least difference of a centroid's score and the base score in
        each block, float32 ``[n / block, k]``, 0 for a centroid that is not scored.
    """
    k = len(centroids)
    norms = half_norms(centroids)
    # One more tile, so that no slice reaches beyond the end.
    fill = jnp.full(_TILE, k, jnp.int32)

    def one_block(given: tuple[jax.Array, ...]) -> tuple[Top2, jax.Array]:
        numbers, wanted = given
        rows, base = x[numbers], base_scores[numbers]
        if precision == "bfloat16":
            # Rounded in the loop: XLA hoists a mere astype, which copies all rows.
            rows = rounded(rows).astype(precision)
        places = jnp.concatenate([flagged(wanted), fill])

        def one_tile(i: jax.Array, carry: tuple[Top2, jax.Array]) -> tuple[Top2, jax.Array]:
            best, lower_bounds = carry
            tile = jax.lax.dynamic_slice(places, (i * _TILE,), (_TILE,))
            members = centroids.at[tile].get(mode="clip")
            half = norms.at[tile].get(mode="fill", fill_value=jnp.inf)
            best, scores = top2_of_tile(rows, members, half, tile, best, precision)
            least = jnp.min(scores - base[None, :], axis=1)
            return best, lower_bounds.at[tile].set(least, mode="drop")

        n_tiles = -(-jnp.sum(wanted, dtype=jnp.int32) // _TILE)
        begin = nothing_yet(rows), norms * 0
        return jax.lax.fori_loop(0, n_tiles, one_tile, begin)

    best, lower_bounds = jax.lax.map(one_block, (order, scored))
    unsorted = lambda a: jnp.zeros(len(x), a.dtype).at[order.reshape(-1)].set(a.reshape(-1))
    return jax.tree.map(unsorted, best), lower_bounds
