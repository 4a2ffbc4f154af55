r"""Assignment that compares blocks of neighbouring rows with the centroids near them, and is exact.

Rows are put in an order in which those of a block lie close together. For each block and each
centroid a gap is known: by how much the centroid's score exceeds that of a row's own centroid, at
least, whichever row of the block it is. When centroids move, these lower bounds shrink by no more
than the triangle inequality allows; a centroid whose gap is still wide can win none of the rows,
and is left out for the whole block. So what is worked out stays dense.

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
"""The iteration in which rows are first put in order: before, centroids move too far. Where that
does not pay yet, it is tried again after twice as many iterations, and so on."""
_AT_ONCE = 64
"""Centroids that a block is compared with at a time."""
_PLACED = 1024
"""Centroids at a time that are put in order."""
_LEAST_CLUSTERS, _LEAST_BLOCKS, _LEAST_COLUMNS = 256, 16, 16
"""Below these there is little to leave out, or looking for it costs as much."""
_LARGEST_SHARE = 8
"""Gaps may take this part of the rows' memory."""
_BETTER = 0.6
"""The share of the scores of moved centroids from which on all of them are worked out."""


class PruningBounds(NamedTuple):
    """Lower bounds that a device knows for blocks of its rows. The first axis is that of the
    devices."""

    order: jax.Array
    """int32 ``[1, n]``: the rows, neighbours side by side; one where it would not pay."""
    lower_bounds: jax.Array
    """float32 ``[1, n / block, k]``: how much the score of each centroid exceeds that of the
    own one, at least, for all rows of a block; minus infinity where that is not known."""
    in_use: jax.Array
    """bool ``[1]``: whether the rows are in order, and the bounds of any meaning."""


PRUNING_SPECS = specs(PruningBounds, ROWS, ROWS, ROWS)


def pays(n: int, d: int, k: int, block: int) -> bool:
    """Tells whether bounds are worth their memory and time, for ``n`` rows of one device."""
    small = k < _LEAST_CLUSTERS or n < _LEAST_BLOCKS * block or d < _LEAST_COLUMNS
    return not small and _LARGEST_SHARE * k <= block * d


def no_bounds(n: int, d: int, k: int, block: int) -> PruningBounds:
    """Returns room for what will be known."""
    n, n_blocks = (n, n // block) if pays(n, d, k, block) else (1, 1)
    return PruningBounds(
        jnp.zeros((1, n), jnp.int32), jnp.zeros((1, n_blocks, k)), jnp.zeros(1, bool)
    )


def sort_rows(
    bounds: PruningBounds, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> PruningBounds:
    """Returns rows in the order of their clusters, and these in one where neighbours come
    together."""
    k = len(centroids)
    place = jnp.zeros(k, jnp.int32).at[in_neighbourhoods(centroids)].set(jnp.arange(k))
    by_place = jnp.argsort(jnp.where(weights > 0, place[labels], k)).astype(jnp.int32)
    return PruningBounds(
        by_place[None], jnp.full_like(bounds.lower_bounds, -jnp.inf), jnp.ones(1, bool)
    )


def in_neighbourhoods(points: jax.Array) -> jax.Array:
    """Returns the numbers ``[k]`` of points ``[k, d]``, such that those close together follow each
    other.

    Each point goes with the nearest of some of them, and these with the nearest of a few.
    """
    k = len(points)
    some, few = (points[:: max(1, round(k**power))] for power in (1 / 4, 1 / 2))
    by_few = jnp.argsort(about_nearest(some, few))
    place = jnp.zeros_like(by_few).at[by_few].set(jnp.arange(len(some)))
    return jnp.argsort(place[about_nearest(points, some)])


def about_nearest(points: jax.Array, few: jax.Array) -> jax.Array:
    """Returns the number of the one of a few points ``[m, d]`` nearest to each, in whatever
    precision."""
    norms = half_norms(few)
    nearest_to = lambda point: jnp.argmin(norms - jnp.dot(few, point))
    return jax.lax.map(nearest_to, points, batch_size=min(_PLACED, len(points)))


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
    """Works as :func:`~jaxcurate.kmeans.assignment.moved.search_moved`, by blocks of neighbours
    where it pays.

    Args:
        x: float32 ``[n, d]``, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; rows of weight 0 may get any label.
        old: float32 ``[k, d]``, the centroids before they moved.
        centroids: float32 ``[k, d]``, as they are now.
        moved: bool ``[k]``: where the two differ.
        before: the best among the old ones.
        bounds: what is known of the rows.
        n_iter: int32: in which iteration this is; 0 is the first assignment.
        rounding: of the rows, in this precision.
        block: rows at a time.
        precision: of the scores. The labels are the same in each.
        axis_name: the mapped axis over which rows are split.

    Returns:
        The best; where it is in doubt, bool ``[n]``; the share of scores worked out; and what is
        known then.
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
    centroid_shift = (
        1.001 * jnp.sqrt(jnp.sum((centroids - old) ** 2, axis=1)) + 1e-18
    )  # may underflow
    centroid_shift = jnp.where(moved, centroid_shift, 0)
    moved |= arrange | (jnp.mean(moved, dtype=jnp.float32) >= WORTHWHILE)
    loss = jnp.maximum(loss_of(old, precision), loss_of(centroids, precision))
    # Of any score: products with the longest row of all, or the longest centroid.
    longest = jnp.sqrt(2 * jnp.maximum(jnp.max(half_norms(old)), jnp.max(half_norms(centroids))))
    error = score_error_bound(rounding, loss, jnp.maximum(longest, rounding.norms), x.shape[1])
    max_radius = jnp.sqrt(jnp.maximum(2 * before.scores + rounding.norms**2 + 4 * error, 0))
    # By how much the score of a row's own centroid rose, at most.
    own = own_scores(x, centroids, before.labels, block=block)
    own_increase = jnp.where(centroid_shift[before.labels] > 0, own - before.scores + 2 * error, 0)

    order = bounds.order.reshape(-1, block)
    of_block = lambda a, f: f(a[order], axis=1)
    lower_bounds = relax_bounds(
        bounds.lower_bounds[0],
        of_block(max_radius, jnp.max),
        of_block(own_increase, jnp.max),
        centroid_shift,
    )
    # What is left out must not come before the second nearest, which later tells what is sure.
    # The own centroid's gap is 0 or below, so that it is never left out.
    typical_gap = jnp.maximum(of_block(before.second_scores - before.scores, jnp.mean), 0)
    wanted = ~(lower_bounds > typical_gap[:, None])
    scored = wanted & moved[None, :]
    share = jnp.sum(scored, dtype=jnp.int32).astype(jnp.float32) / scored.size
    all_of = jnp.mean(moved, dtype=jnp.float32)

    def by_blocks() -> tuple[Top2, jax.Array, jax.Array, jax.Array]:
        now, lower_bounds_now = top2_pruned(x, centroids, own, order, scored, precision)
        lower_bounds_now -= 2 * of_block(error, jnp.max)[:, None]
        close_at = lambda least: score_tolerance(rounding, loss, least, x.shape[1])
        best, sure = merged(before, now, moved, close_at)
        left_out = jnp.min(jnp.where(moved[None, :] & ~wanted, lower_bounds, jnp.inf), axis=1)
        beyond = jnp.zeros_like(best.scores).at[order].set(left_out[:, None])
        best = best._replace(second_scores=jnp.minimum(best.second_scores, best.scores + beyond))
        return best, ~sure & (weights > 0), share, jnp.where(scored, lower_bounds_now, lower_bounds)

    worthwhile = bounds.in_use[0] & (arrange | (share <= _BETTER * all_of))
    best, ambiguous, share, lower_bounds = jax.lax.cond(
        worthwhile, by_blocks, lambda: (*plain(), lower_bounds)
    )
    share = collectives.psum(share, axis_name) / collectives.axis_size(axis_name)
    return best, ambiguous, share, PruningBounds(bounds.order, lower_bounds[None], worthwhile[None])


def relax_bounds(
    lower_bounds: jax.Array,
    max_radius: jax.Array,
    own_increase: jax.Array,
    centroid_shift: jax.Array,
) -> jax.Array:
    r"""Returns lower bounds, float32 ``[b, k]``, that hold after the centroids moved.

    With a row at most :math:`u` from its own centroid and a gap :math:`g`, another centroid is
    :math:`\sqrt{u^2 + 2 g}` or more away. If that one moved by :math:`\delta`, its score fell by
    at most :math:`\delta \sqrt{u^2 + 2 g} - \delta^2 / 2`, which grows with :math:`u`.

    Args:
        lower_bounds: float32 ``[b, k]``, before they moved.
        max_radius: float32 ``[b]``: no row is farther from its centroid.
        own_increase: float32 ``[b]``: no row's own score rose by more.
        centroid_shift: float32 ``[k]``: how far each centroid moved.
    """
    max_radius, own_increase, centroid_shift = (
        max_radius[:, None],
        own_increase[:, None],
        centroid_shift[None, :],
    )
    twice = 2 * jnp.maximum(lower_bounds, 0)
    apart = jnp.sqrt(twice + max_radius**2)
    fall = (
        centroid_shift * (apart - 0.5 * centroid_shift) + 4e-7 * apart**2
    )  # and what it is rounded by
    known = centroid_shift**2 < twice  # a centroid may have passed a row otherwise
    left = jnp.where(known, lower_bounds - fall, -jnp.inf)
    return jnp.where(centroid_shift > 0, left, lower_bounds) - own_increase


def own_scores(x: jax.Array, centroids: jax.Array, labels: jax.Array, *, block: int) -> jax.Array:
    """Returns the score of each row's centroid, float32 ``[n]``."""
    norms = half_norms(centroids)

    def scored(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        rows, own = part
        return norms[own] - jnp.sum(rows * centroids[own], axis=1)

    parts = x.reshape(-1, block, x.shape[1]), labels.reshape(-1, block)
    return jax.lax.map(scored, parts).reshape(-1)


def top2_pruned(
    x: jax.Array,
    centroids: jax.Array,
    own: jax.Array,
    order: jax.Array,
    scored: jax.Array,
    precision: Precision,
) -> tuple[Top2, jax.Array]:
    """Returns the best two of each row among the centroids that its block asks for, and bounds.

    Args:
        x: float32 ``[n, d]``.
        centroids: float32 ``[k, d]``.
        own: float32 ``[n]``: the score of each row's own centroid, which bounds are measured from.
        order: int32 ``[n / block, block]``: the rows of each block.
        scored: bool ``[n / block, k]``: the centroids that each is compared with.
        precision: what the products are made of.

    Returns:
        The best; and float32 ``[n / block, k]``, by how much a score exceeds the own
        one in a block, at least; 0 where the centroid was not asked for.
    """
    k = len(centroids)
    norms = half_norms(centroids)
    # One tile more than it takes: a slice never reaches beyond the end.
    fill = jnp.full(_AT_ONCE, k, jnp.int32)

    def one_block(given: tuple[jax.Array, ...]) -> tuple[Top2, jax.Array]:
        numbers, wanted = given
        rows, base = x[numbers], own[numbers]
        if precision == "bfloat16":
            # Rounded here: of an astype alone XLA makes a copy of all rows, before the loop.
            rows = rounded(rows).astype(precision)
        places = jnp.concatenate([flagged(wanted), fill])

        def one_tile(i: jax.Array, carry: tuple[Top2, jax.Array]) -> tuple[Top2, jax.Array]:
            best, lower_bounds = carry
            tile = jax.lax.dynamic_slice(places, (i * _AT_ONCE,), (_AT_ONCE,))
            members = centroids.at[tile].get(mode="clip")
            half = norms.at[tile].get(mode="fill", fill_value=jnp.inf)
            best, scores = top2_of_tile(rows, members, half, tile, best, precision)
            least = jnp.min(scores - base[None, :], axis=1)
            return best, lower_bounds.at[tile].set(least, mode="drop")

        n_tiles = -(-jnp.sum(wanted, dtype=jnp.int32) // _AT_ONCE)
        begin = nothing_yet(rows), norms * 0
        return jax.lax.fori_loop(0, n_tiles, one_tile, begin)

    best, lower_bounds = jax.lax.map(one_block, (order, scored))
    at_home = lambda part: jnp.zeros(len(x), part.dtype).at[order.reshape(-1)].set(part.reshape(-1))
    return jax.tree.map(at_home, best), lower_bounds
