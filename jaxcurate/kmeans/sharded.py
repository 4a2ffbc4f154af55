"""k-means with the centroids split over the devices as well, for more than one of them can hold.

Each device has some of the rows and some of the centroids. Centroids go round the ring of
devices; when all have passed by, every row has met all of them. No array of the size of all
centroids is ever on one device.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.kmeans.assignment.exact import recheck, rounding_of, search, squared_distances
from jaxcurate.kmeans.kernels.cluster_sums import halves, sums_of_differences, whole
from jaxcurate.kmeans.kernels.scores import Precision
from jaxcurate.kmeans.lloyd import unit_rows
from jaxcurate.runtime import collectives
from jaxcurate.runtime.devices import ROWS, SAME, specs


class RingState(NamedTuple):
    """Where the iterations stand; ``labels`` always belong to ``centroids``."""

    centroids: jax.Array
    """float32 ``[k, d]``, a part on each device."""
    labels: jax.Array
    """int32 ``[n]``."""
    distances: jax.Array
    """float32 ``[n]``, squared, to the own centroid."""
    changed: jax.Array
    """bool: whether the last assignment changed any label."""
    n_iter: jax.Array
    """int32: iterations done."""


RING_SPECS = specs(RingState, ROWS, ROWS, ROWS, SAME, SAME)


def ring_lloyd(
    x: jax.Array,
    weights: jax.Array,
    centroids: jax.Array,
    *,
    max_iter: int,
    block: int,
    axis_name: str | None,
    precision: Precision = "float32",
    unit: bool = False,
) -> RingState:
    """Moves each centroid to the mean of its rows until no label changes.

    The labels are those of :mod:`jaxcurate.kmeans.lloyd`; no distance is left out.

    Args:
        x: float32 ``[n, d]``, this device's rows, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; 0 marks padding.
        centroids: float32 ``[k, d]``, this device's part, of the same size on each; what fills
            it up is far from all rows.
        max_iter: iterations at most; 0 only assigns.
        block: rows at a time in the distances.
        axis_name: the mapped axis over which rows and centroids are split.
        precision: of the distances that are tried first; the labels are the same.
        unit: bring the means to length 1.
    """
    options: dict[str, Any] = dict(block=block, axis_name=axis_name)

    def step(state: RingState) -> RingState:
        moved = updated_round(x, weights, state.labels, state.centroids, unit, axis_name)
        labels, distances = assigned_round(x, moved, precision=precision, **options)
        changed = jnp.any((labels != state.labels) & (weights > 0))
        changed = collectives.psum(changed.astype(jnp.int32), axis_name) > 0
        return RingState(moved, labels, distances, changed, state.n_iter + 1)

    def unfinished(state: RingState) -> jax.Array:
        return state.changed & (state.n_iter < max_iter)

    labels, distances = assigned_round(x, centroids, precision=precision, **options)
    begin = RingState(centroids, labels, distances, jnp.bool(True), jnp.int32(0))
    return jax.lax.while_loop(unfinished, step, begin)


def assigned_round(
    x: jax.Array,
    centroids: jax.Array,
    *,
    block: int,
    axis_name: str | None,
    precision: Precision = "float32",
) -> tuple[jax.Array, jax.Array]:
    """Returns labels int32 ``[n]`` and squared distances float32 ``[n]`` to the nearest of all
    centroids.

    Each device finds the nearest of those that are with it for certain, and these are told apart
    by their distances, measured without cancellation. Of equal ones the first wins.
    """
    k, n_devices = len(centroids), collectives.axis_size(axis_name)
    here = collectives.axis_index(axis_name)
    rounding = rounding_of(x, precision)  # outside of the loop, where it would hold all of x
    everyone = jnp.ones_like(rounding.norms)

    def meet(turn: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        guests, labels, distances = carry
        best, ambiguous = search(x, everyone, guests, rounding, block=block, precision=precision)
        own = recheck(x, guests, best, ambiguous).labels
        squared = squared_distances(x, guests, own, block=block)
        own = own + k * ((here + turn) % n_devices)
        better = (squared < distances) | ((squared == distances) & (own < labels))
        guests = collectives.from_next(guests, axis_name)
        return guests, jnp.where(better, own, labels), jnp.where(better, squared, distances)

    nothing = x[:, 0] * 0
    begin = centroids, nothing.astype(jnp.int32), nothing + jnp.inf
    return jax.lax.fori_loop(0, n_devices, meet, begin)[1:]


def updated_round(
    x: jax.Array,
    weights: jax.Array,
    labels: jax.Array,
    centroids: jax.Array,
    unit: bool,
    axis_name: str | None,
) -> jax.Array:
    """Returns the means of this device's clusters, ``[k, d]``; an empty one keeps its centroid.

    The sums of each cluster go round with its centroid, and every device adds its rows.
    """
    k, n_devices = len(centroids), collectives.axis_size(axis_name)
    here, every = collectives.axis_index(axis_name), jnp.ones(k, bool)

    def add(turn: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        guests, sums, counts = jax.tree.map(lambda a: collectives.from_next(a, axis_name), carry)
        local = labels - k * ((here + 1 + turn) % n_devices)
        local = jnp.where((local >= 0) & (local < k), local, -1)
        more, many = sums_of_differences(x, weights, local, guests, every)
        return guests, sums + more, counts + halves(many)

    begin = centroids, jnp.zeros_like(centroids), jnp.zeros((2, k), jnp.int32)
    # After the last turn everything is back where it belongs.
    home, sums, counts = jax.lax.fori_loop(0, n_devices, add, begin)
    counts = whole(counts)
    means = home + sums / jnp.maximum(counts, 1)[:, None]
    filled = counts > 0
    if unit:
        means, has_direction = unit_rows(means)
        filled &= has_direction
    return jnp.where(filled[:, None], means, home)
