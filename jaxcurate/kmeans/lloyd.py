"""Lloyd's iterations, the whole loop inside jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate import parallel
from jaxcurate.kmeans.active import search_moved
from jaxcurate.kmeans.nearest import (
    nearest,
    rounding_of,
    search,
    settle,
    squared_distances,
)
from jaxcurate.kmeans.scores import Best, Precision, best_two_in_blocks, tiles_of
from jaxcurate.kmeans.sums import sums_of_differences

_SKIP_FROM = 64
"""Clusters from which on it pays to look for work that need not be done."""


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
    compared: jax.Array
    """float32 ``[max_iter + 1]``: for each assignment, the share of ``n k`` scores worked out."""
    in_doubt: jax.Array
    """float32 ``[max_iter + 1]``: for each assignment, the share of rows searched again."""


LLOYD_SPECS = LloydState(
    parallel.SAME, parallel.ROWS, parallel.SAME, parallel.SAME, parallel.SAME, parallel.SAME
)


def lloyd(
    x: jax.Array,
    weights: jax.Array,
    centroids: jax.Array,
    *,
    max_iter: int,
    block: int,
    axis_name: str | None,
    precision: Precision = "float32",
    skip: bool | None = None,
    plain: bool = False,
) -> LloydState:
    """Moves each centroid to the mean of its rows until no label changes.

    A cluster that no row joined or left keeps its centroid to the last bit, and so does an empty
    one.

    Args:
        x: float32 ``[n, d]``, this device's rows, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; 0 marks padding.
        centroids: float32 ``[k, d]``, where to begin.
        max_iter: iterations at most; 0 only assigns.
        block: rows at a time in the distances.
        axis_name: the mapped axis over which rows are split.
        precision: of the distances that are tried first; the labels are the same.
        skip: whether to leave out distances that cannot change a label; by default where there
            are clusters enough. The result is the same.
        plain: take the float32 scores at their word. For many small problems side by side, whose
            rows are centred closely.

    References:
        Lloyd, Least squares quantization in PCM, 1982.
    """
    k = len(centroids)
    skip = (k >= _SKIP_FROM if skip is None else skip) and not plain
    rounding = rounding_of(x, precision)
    n_rows = parallel.psum(jnp.sum(weights > 0, dtype=jnp.float32), axis_name)

    class Loop(NamedTuple):
        state: LloydState
        best: Best
        touched: jax.Array

    def assign(
        centroids: jax.Array, moved: jax.Array, before: Best
    ) -> tuple[Best, jax.Array, jax.Array]:
        options = dict(block=block, precision=precision)
        if skip:
            return search_moved(x, weights, centroids, moved, before, rounding, **options)
        if plain:
            best = best_two_in_blocks(x, tiles_of(centroids, k), block=block)
            return best, jnp.zeros_like(weights, bool), jnp.float32(1)
        best, doubt = search(x, weights, centroids, rounding, **options)
        return best, doubt, jnp.float32(1)

    def step(loop: Loop) -> Loop:
        state, before, touched = loop
        first = state.n_iter < 0
        centroids = updated(
            x,
            weights,
            state.labels,
            state.centroids,
            touched,
            everywhere=plain,
            axis_name=axis_name,
        )
        moved = jnp.any(centroids != state.centroids, axis=1) | first
        best, doubt, compared = assign(centroids, moved, before)
        best = best if plain else settle(x, centroids, best, doubt)
        changed = (best.labels != state.labels) & (weights > 0)
        n_changed = parallel.psum(jnp.sum(changed, dtype=jnp.int32), axis_name)
        n_iter = state.n_iter + 1
        in_doubt = parallel.psum(jnp.sum(doubt, dtype=jnp.float32), axis_name) / n_rows
        now = LloydState(
            centroids,
            best.labels,
            n_changed,
            n_iter,
            state.compared.at[n_iter].set(jnp.minimum(compared + in_doubt, 1)),
            state.in_doubt.at[n_iter].set(in_doubt),
        )
        touched = touched_by(changed, state.labels, best.labels, k, axis_name)
        return Loop(now, best, touched)

    def unfinished(loop: Loop) -> jax.Array:
        state = loop.state
        return (state.n_changed > 0) & (state.n_iter < max_iter)

    labels = jnp.zeros_like(x[:, 0], jnp.int32) - 1
    nothing = jnp.zeros_like(x[:, 0])
    shares = jnp.zeros(max_iter + 1)
    begin = Loop(
        LloydState(centroids, labels, jnp.int32(1), jnp.int32(-1), shares, shares),
        Best(labels, nothing, nothing),
        jnp.zeros(k, bool),
    )
    return jax.lax.while_loop(unfinished, step, begin).state


def touched_by(
    changed: jax.Array, before: jax.Array, after: jax.Array, k: int, axis_name: str | None
) -> jax.Array:
    """The clusters that a row joined or left, bool ``[k]``.

    Args:
        changed: bool ``[n]``.
        before: int32 ``[n]``, the labels before; -1 where there was none.
        after: int32 ``[n]``.
        k: clusters.
        axis_name: the mapped axis over which rows are split.
    """
    ends = jnp.concatenate([jnp.where(before < 0, k, before), after])
    ends = jnp.where(jnp.concatenate([changed, changed]), ends, k)
    touched = jnp.zeros(k, jnp.int32).at[ends].max(1, mode="drop")
    return parallel.psum(touched, axis_name) > 0


def updated(
    x: jax.Array,
    weights: jax.Array,
    labels: jax.Array,
    centroids: jax.Array,
    touched: jax.Array,
    *,
    everywhere: bool,
    axis_name: str | None,
) -> jax.Array:
    """The means of the touched clusters, ``[k, d]``; the other centroids as they were.

    Args:
        x: float32 ``[n, d]``.
        weights: float32 ``[n]``; 0 marks padding.
        labels: int32 ``[n]``.
        centroids: float32 ``[k, d]``.
        touched: bool ``[k]``: the clusters to look at.
        everywhere: go through all rows, not through those of the touched clusters alone.
        axis_name: the mapped axis over which rows are split.
    """
    sums, counts = parallel.psum(
        sums_of_differences(x, weights, labels, centroids, None if everywhere else touched),
        axis_name,
    )
    moves = sums / jnp.maximum(counts, 1e-30)[:, None]
    return jnp.where(touched[:, None], centroids + moves, centroids)


def assigned(
    x: jax.Array,
    centroids: jax.Array,
    *,
    block: int,
    axis_name: str | None,
    precision: Precision = "float32",
) -> tuple[jax.Array, jax.Array]:
    """Labels int32 ``[n]`` and squared distances float32 ``[n]`` to the nearest centroids."""
    del axis_name  # every row is on its own
    labels = nearest(x, centroids, block=block, precision=precision)
    return labels, squared_distances(x, centroids, labels)
