"""Lloyd's iterations in memory, with the whole loop inside jit."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.kmeans.assignment.exact import (
    nearest,
    recheck,
    rounding_of,
    search,
    squared_distances,
)
from jaxcurate.kmeans.assignment.pruned import (
    PRUNING_SPECS,
    PruningBounds,
    no_bounds,
    search_pruned,
)
from jaxcurate.kmeans.kernels.cluster_sums import over_devices, sums_of_differences
from jaxcurate.kmeans.kernels.scores import Precision, Top2, tiles_of, top2_in_blocks
from jaxcurate.runtime import collectives
from jaxcurate.runtime.devices import ROWS, SAME, specs

_SKIP_FROM = 64
"""Smallest number of clusters for which pruning pays."""


class LloydState(NamedTuple):
    """State of the iterations; ``best`` always belongs to ``centroids``."""

    centroids: jax.Array
    """Centroids, float32 ``[k, d]``."""
    best: Top2
    """Nearest centroid of each row; the label is -1 before the first assignment."""
    touched: jax.Array
    """Flags of the clusters that a row joined or left in the last assignment, bool ``[k]``."""
    bounds: PruningBounds
    """Lower bounds for blocks of rows, by which centroids are left out."""
    n_iter: jax.Array
    """Number of iterations, int32; -1 before the first assignment."""
    distance_fraction: jax.Array
    """Fraction of the ``n k`` scores computed in each assignment, float32 ``[max_iter + 1]``."""
    recheck_fraction: jax.Array
    """Fraction of the rows rechecked in each assignment, float32 ``[max_iter + 1]``."""


LLOYD_SPECS = specs(
    LloydState, SAME, specs(Top2, ROWS, ROWS, ROWS), SAME, PRUNING_SPECS, SAME, SAME, SAME
)


def lloyd_like(
    n: int, d: int, n_clusters: int, max_iter: int, block: int, shards: int = 1
) -> LloydState:
    """Returns the shapes of a state for ``n`` rows, split over ``shards`` devices."""
    shape = jax.ShapeDtypeStruct
    begin = functools.partial(unassigned, max_iter=max_iter, block=block, axis_name=None)
    local = jax.eval_shape(
        begin, shape((n // shards, d), "float32"), shape((n_clusters, d), "float32")
    )
    whole = lambda a, spec: (
        shape((shards * a.shape[0], *a.shape[1:]), a.dtype) if spec == ROWS else a
    )
    return jax.tree.map(whole, local, LLOYD_SPECS)


def lloyd(
    x: jax.Array,
    weights: jax.Array,
    centroids: jax.Array,
    *,
    max_iter: int,
    block: int,
    axis_name: str | None,
    **options: Any,
) -> LloydState:
    """Runs all iterations from ``centroids`` ``[k, d]``, as :func:`more_iterations` does."""
    shared: dict[str, Any] = dict(block=block, axis_name=axis_name)
    state = unassigned(x, centroids, max_iter=max_iter, **shared)
    return more_iterations(x, weights, state, max_iter, **shared, **options)


def unassigned(
    x: jax.Array, centroids: jax.Array, *, max_iter: int, block: int, axis_name: str | None
) -> LloydState:
    """Returns the state of rows ``[n, d]`` and centroids ``[k, d]`` before an assignment."""
    del axis_name  # rows do not depend on each other
    nothing = jnp.zeros_like(x[:, 0])
    fractions = jnp.zeros(max_iter + 1)
    best = Top2(nothing.astype(jnp.int32) - 1, nothing, nothing)
    bounds = no_bounds(len(x), x.shape[1], len(centroids), block)
    touched = jnp.zeros(len(centroids), bool)
    return LloydState(centroids, best, touched, bounds, jnp.int32(-1), fractions, fractions)


def more_iterations(
    x: jax.Array,
    weights: jax.Array,
    state: LloydState,
    stop: jax.Array | int,
    *,
    block: int,
    axis_name: str | None,
    precision: Precision = "float32",
    skip: bool | None = None,
    plain: bool = False,
    unit: bool = False,
) -> LloydState:
    """Moves each centroid to the mean of its rows until no label changes.

    A cluster that no row joined or left, and an empty cluster, keep their centroids bit for bit.

    Args:
        x: Rows of this device, float32 ``[n, d]``, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; 0 marks padding.
        state: State to continue from.
        stop: Number of iterations to stop at, if labels change until then. Stops on the way do
            not change the final state.
        block: Number of rows in a block.
        axis_name: Mapped axis over which rows are split.
        precision: Precision of the first scores; the labels do not depend on it.
        skip: If True, leaves out distances that cannot change a label; by default if there are
            many clusters. The result does not depend on it.
        plain: If True, does not recheck ambiguous rows. For many small problems under vmap, whose
            rows are centered on their mean.
        unit: If True, scales the means to length 1, as the rows are: spherical k-means.

    References:
        Lloyd, Least squares quantization in PCM, 1982.
        Dhillon and Modha, Concept decompositions for large sparse text data, 2001.
    """
    k = len(state.centroids)
    skip = (k >= _SKIP_FROM if skip is None else skip) and not plain
    rounding = rounding_of(x, precision)
    n_rows = n_flagged(weights > 0, axis_name)

    def assign(
        state: LloydState, centroids: jax.Array
    ) -> tuple[Top2, jax.Array, jax.Array, PruningBounds]:
        """Returns the best two, the ambiguous rows, the fraction of computed scores, and bounds."""
        options: dict[str, Any] = dict(block=block, precision=precision)
        if skip:
            return search_pruned(
                x,
                weights,
                state.centroids,
                centroids,
                jnp.any(centroids != state.centroids, axis=1) | (state.n_iter < 0),
                state.best,
                state.bounds,
                state.n_iter + 1,
                rounding,
                axis_name=axis_name,
                **options,
            )
        if plain:
            best = top2_in_blocks(x, tiles_of(centroids, k), block=block)
            return best, jnp.zeros_like(weights, bool), jnp.float32(1), state.bounds
        best, ambiguous = search(x, weights, centroids, rounding, **options)
        return best, ambiguous, jnp.float32(1), state.bounds

    def step(state: LloydState) -> LloydState:
        before, touched = state.best, state.touched
        centroids = updated(
            x,
            weights,
            before.labels,
            state.centroids,
            touched,
            everywhere=plain,
            unit=unit,
            axis_name=axis_name,
        )
        best, ambiguous, distance_fraction, bounds = assign(state, centroids)
        best = best if plain else recheck(x, centroids, best, ambiguous)
        n_iter = state.n_iter + 1
        recheck_fraction = n_flagged(ambiguous, axis_name) / n_rows
        distance_fraction = state.distance_fraction.at[n_iter].set(
            jnp.minimum(distance_fraction + recheck_fraction, 1)
        )
        return LloydState(
            centroids,
            best,
            touched_by(weights, before.labels, best.labels, k, axis_name),
            bounds,
            n_iter,
            distance_fraction,
            state.recheck_fraction.at[n_iter].set(recheck_fraction),
        )

    def unfinished(state: LloydState) -> jax.Array:
        return (jnp.any(state.touched) | (state.n_iter < 0)) & (state.n_iter < stop)

    return jax.lax.while_loop(unfinished, step, state)


def n_flagged(flags: jax.Array, axis_name: str | None) -> jax.Array:
    """Returns the number of flags ``[n]`` that are set on all devices, a whole float32."""
    return collectives.psum(jnp.sum(flags, dtype=jnp.int32).astype(jnp.float32), axis_name)


def touched_by(
    weights: jax.Array, before: jax.Array, after: jax.Array, k: int, axis_name: str | None
) -> jax.Array:
    """Returns flags, bool ``[k]``, of the clusters that a row joined or left.

    Args:
        weights: float32 ``[n]``; rows of weight 0 do not count.
        before: Labels before, int32 ``[n]``; -1 for none.
        after: Labels after, int32 ``[n]``.
        k: Number of clusters.
        axis_name: Mapped axis over which rows are split.
    """
    changed = (before != after) & (weights > 0)
    ends = jnp.concatenate([jnp.where(before < 0, k, before), after])
    ends = jnp.where(jnp.concatenate([changed, changed]), ends, k)
    touched = jnp.zeros(k, jnp.int32).at[ends].max(1, mode="drop")
    return collectives.psum(touched, axis_name) > 0


def updated(
    x: jax.Array,
    weights: jax.Array,
    labels: jax.Array,
    centroids: jax.Array,
    touched: jax.Array,
    *,
    everywhere: bool,
    unit: bool,
    axis_name: str | None,
) -> jax.Array:
    """Returns the centroids ``[k, d]`` with those of the touched clusters moved to their means.

    Args:
        x: float32 ``[n, d]``.
        weights: float32 ``[n]``; 0 marks padding.
        labels: int32 ``[n]``.
        centroids: float32 ``[k, d]``.
        touched: Flags of the clusters to update, bool ``[k]``.
        everywhere: If True, adds up all rows, instead of the rows of touched clusters only.
        unit: If True, scales the means to length 1.
        axis_name: Mapped axis over which rows are split.
    """
    sums, counts = over_devices(
        *sums_of_differences(x, weights, labels, centroids, None if everywhere else touched),
        axis_name,
    )
    means = centroids + sums / jnp.maximum(counts, 1e-30)[:, None]
    if unit:
        means, has_direction = unit_rows(means)
        touched &= has_direction
    return jnp.where(touched[:, None], means, centroids)


def unit_rows(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns rows ``[n, d]`` scaled to length 1, and flags of those that are not zero."""
    lengths = jnp.sqrt(jnp.sum(x**2, axis=1))
    return x / jnp.maximum(lengths, 1e-30)[:, None], lengths > 1e-6


def assigned(
    x: jax.Array,
    centroids: jax.Array,
    *,
    block: int,
    axis_name: str | None,
    precision: Precision = "float32",
) -> tuple[jax.Array, jax.Array]:
    """Returns the nearest centroid, int32 ``[n]``, and its squared distance, float32 ``[n]``."""
    del axis_name  # rows do not depend on each other
    labels = nearest(x, centroids, block=block, precision=precision)
    return labels, squared_distances(x, centroids, labels, block=block)


def measured(
    x: jax.Array, centroids: jax.Array, labels: jax.Array, *, block: int, axis_name: str | None
) -> jax.Array:
    """Returns squared distances, float32 ``[n]``, of rows to the centroids of their labels."""
    del axis_name  # rows do not depend on each other
    return squared_distances(x, centroids, labels, block=block)
