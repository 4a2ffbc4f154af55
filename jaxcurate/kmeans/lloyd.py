"""Lloyd's iterations, the whole loop inside jit."""

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
"""Clusters from which on it pays to look for distances that can be left out."""
_SKIP_PRODUCTS = 2**28
"""Multiplications of an assignment from which on it pays: twenty smaller ones take less time than
the compilation of what leaves them out."""


class LloydState(NamedTuple):
    """Where the iterations stand; ``best`` always belongs to ``centroids``."""

    centroids: jax.Array
    """float32 ``[k, d]``."""
    best: Top2
    """The nearest centroid of each row; the label is -1 before the first assignment."""
    touched: jax.Array
    """bool ``[k]``: the clusters that a row joined or left in the last assignment."""
    bounds: PruningBounds
    """Lower bounds for blocks of rows, which leave out centroids."""
    n_iter: jax.Array
    """int32: iterations done; -1 before the first assignment."""
    distance_fraction: jax.Array
    """float32 ``[max_iter + 1]``: for each assignment, the share of ``n k`` scores worked out."""
    recheck_fraction: jax.Array
    """float32 ``[max_iter + 1]``: for each assignment, the share of rows searched again."""


LLOYD_SPECS = specs(
    LloydState, SAME, specs(Top2, ROWS, ROWS, ROWS), SAME, PRUNING_SPECS, SAME, SAME, SAME
)


def lloyd_like(
    n: int, d: int, n_clusters: int, max_iter: int, block: int, shards: int = 1
) -> LloydState:
    """Returns the shapes of a state for ``n`` rows, split over so many devices."""
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
    """Returns iterations from ``centroids`` ``[k, d]`` to the end: :func:`more_iterations`."""
    shared: dict[str, Any] = dict(block=block, axis_name=axis_name)
    state = unassigned(x, centroids, max_iter=max_iter, **shared)
    return more_iterations(x, weights, state, max_iter, **shared, **options)


def unassigned(
    x: jax.Array, centroids: jax.Array, *, max_iter: int, block: int, axis_name: str | None
) -> LloydState:
    """Returns the state before the first assignment of the rows ``[n, d]`` to centroids ``[k,
    d]``."""
    del axis_name  # every row is on its own
    nothing = jnp.zeros_like(x[:, 0])
    shares = jnp.zeros(max_iter + 1)
    best = Top2(nothing.astype(jnp.int32) - 1, nothing, nothing)
    bounds = no_bounds(len(x), x.shape[1], len(centroids), block)
    touched = jnp.zeros(len(centroids), bool)
    return LloydState(centroids, best, touched, bounds, jnp.int32(-1), shares, shares)


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

    A cluster that no row joined or left keeps its centroid to the last bit, and so does an empty
    one.

    Args:
        x: float32 ``[n, d]``, this device's rows, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; 0 marks padding.
        state: where the iterations stand.
        stop: go on until so many iterations are done, or no label changes. However often it
            stops on the way, the state is the same.
        block: rows at a time in the distances.
        axis_name: the mapped axis over which rows are split.
        precision: of the distances that are tried first; the labels are the same.
        skip: whether to leave out distances that cannot change a label; by default where there
            are clusters enough. The result is the same.
        plain: take the float32 scores at their word. For many small problems side by side, whose
            rows are centered closely.
        unit: bring the means to length 1, as the rows are: spherical k-means.

    References:
        Lloyd, Least squares quantization in PCM, 1982.
        Dhillon and Modha, Concept decompositions for large sparse text data, 2001.
    """
    k = len(state.centroids)
    if skip is None:
        skip = k >= _SKIP_FROM and x.size * k >= _SKIP_PRODUCTS
    skip = skip and not plain
    rounding = rounding_of(x, precision)
    n_rows = n_flagged(weights > 0, axis_name)

    def assign(
        state: LloydState, centroids: jax.Array
    ) -> tuple[Top2, jax.Array, jax.Array, PruningBounds]:
        """Returns the best, where it is in doubt, the share of scores worked out, and what is
        known."""
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
    """Returns how many of all devices' flags, bool ``[n]``, are set: float32, counted in whole
    numbers."""
    return collectives.psum(jnp.sum(flags, dtype=jnp.int32).astype(jnp.float32), axis_name)


def touched_by(
    weights: jax.Array, before: jax.Array, after: jax.Array, k: int, axis_name: str | None
) -> jax.Array:
    """Returns the clusters that a row joined or left, bool ``[k]``.

    Args:
        weights: float32 ``[n]``; rows of weight 0 do not count.
        before: int32 ``[n]``, the labels before; -1 where there was none.
        after: int32 ``[n]``.
        k: clusters.
        axis_name: the mapped axis over which rows are split.
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
    """Returns the means of the touched clusters, ``[k, d]``; the other centroids as they were.

    Args:
        x: float32 ``[n, d]``.
        weights: float32 ``[n]``; 0 marks padding.
        labels: int32 ``[n]``.
        centroids: float32 ``[k, d]``.
        touched: bool ``[k]``: the clusters to look at.
        everywhere: go through all rows, not through those of the touched clusters alone.
        unit: bring the means to length 1.
        axis_name: the mapped axis over which rows are split.
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
    """Returns rows ``[n, d]`` at length 1, and where they have a direction, bool ``[n]``."""
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
    """Returns labels int32 ``[n]`` and squared distances float32 ``[n]`` to the nearest
    centroids."""
    del axis_name  # every row is on its own
    labels = nearest(x, centroids, block=block, precision=precision)
    return labels, squared_distances(x, centroids, labels, block=block)


def measured(
    x: jax.Array, centroids: jax.Array, labels: jax.Array, *, block: int, axis_name: str | None
) -> jax.Array:
    """Returns squared distances float32 ``[n]`` of rows to the centroids of their labels."""
    del axis_name  # every row is on its own
    return squared_distances(x, centroids, labels, block=block)
