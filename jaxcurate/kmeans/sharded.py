"""k-means whose centroids are split over the devices too, for more than one device can hold.

Each device has some of the rows and some of the centroids. The centroids go round the ring of
devices, so that after a full turn each row has been compared with all centroids. No device holds
an array of the size of all centroids.
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
    """State of the iterations; ``labels`` always belong to ``centroids``."""

    centroids: jax.Array
    """Centroids, float32 ``[k, d]``, split over the devices."""
    labels: jax.Array
    """Nearest centroid of each row, int32 ``[n]``."""
    distances: jax.Array
    """Squared distance of each row to its centroid, float32 ``[n]``."""
    changed: jax.Array
    """True if the last assignment changed a label."""
    n_iter: jax.Array
    """Number of iterations, int32."""


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
        x: Rows of this device, float32 ``[n, d]``, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; 0 marks padding.
        centroids: Centroids of this device, float32 ``[k, d]``, as many on each device. Padding
            lies far from all rows.
        max_iter: Largest number of iterations; 0 only assigns rows.
        block: Number of rows in a block.
        axis_name: Mapped axis over which rows and centroids are split.
        precision: Precision of the first scores; the labels do not depend on it.
        unit: If True, scales the means to length 1.
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
    """Returns the nearest of all centroids, int32 ``[n]``, and its squared distance.

    The exact nearest centroid among those of each device is found first. These are compared by
    squared distances without cancellation. Of centroids at equal distance the first is returned.
    """
    k, n_devices = len(centroids), collectives.axis_size(axis_name)
    device = collectives.axis_index(axis_name)
    rounding = rounding_of(x, precision)  # before the loop, for it needs an array as large as x
    weights = jnp.ones_like(rounding.norms)

    def meet(turn: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        guests, labels, distances = carry
        best, ambiguous = search(x, weights, guests, rounding, block=block, precision=precision)
        index = recheck(x, guests, best, ambiguous).labels
        squared = squared_distances(x, guests, index, block=block)
        index = index + k * ((device + turn) % n_devices)
        better = (squared < distances) | ((squared == distances) & (index < labels))
        guests = collectives.from_next(guests, axis_name)
        return guests, jnp.where(better, index, labels), jnp.where(better, squared, distances)

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
    """Returns the means of this device's clusters, ``[k, d]``; empty clusters keep their centroid.

    The sums of each cluster go round with its centroid, and each device adds its rows.
    """
    k, n_devices = len(centroids), collectives.axis_size(axis_name)
    device, every = collectives.axis_index(axis_name), jnp.ones(k, bool)

    def add(turn: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        guests, sums, counts = jax.tree.map(lambda a: collectives.from_next(a, axis_name), carry)
        local = labels - k * ((device + 1 + turn) % n_devices)
        local = jnp.where((local >= 0) & (local < k), local, -1)
        more, many = sums_of_differences(x, weights, local, guests, every)
        return guests, sums + more, counts + halves(many)

    begin = centroids, jnp.zeros_like(centroids), jnp.zeros((2, k), jnp.int32)
    # After the last turn, the centroids and sums are back on their own devices.
    home, sums, counts = jax.lax.fori_loop(0, n_devices, add, begin)
    counts = whole(counts)
    means = home + sums / jnp.maximum(counts, 1)[:, None]
    filled = counts > 0
    if unit:
        means, has_direction = unit_rows(means)
        filled &= has_direction
    return jnp.where(filled[:, None], means, home)
