"""D^2 draws of rows, made several steps ahead and thinned as the potential falls."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.runtime import collectives

_FINE = 2**20
"""Largest number of rows from which a uniform float32, a multiple of 2**-23, can select."""
_GROUP = 512
"""Number of block sums that are added up one after another."""


class Draws(NamedTuple):
    """Rows drawn independently, in proportion to their weight times their squared distance.

    The distance is to the nearest centroid at the time of the draw, and can only fall. If a row is
    drawn in proportion to a distance ``c`` and kept with probability ``c' / c``, the kept rows are
    drawn in proportion to ``c'`` (rejection sampling). The same draws thus serve for the next
    centroids too.
    """

    rows: jax.Array
    """Drawn rows, float32 ``[b, d]``."""
    row_numbers: jax.Array
    """Row numbers on this device, int32 ``[b]``; ``n`` for rows of other devices."""
    then: jax.Array
    """Squared distances to the nearest centroid at the time of the draw, float32 ``[b]``."""
    now: jax.Array
    """Squared distances to the nearest centroid at present, float32 ``[b]``."""
    chances: jax.Array
    """Random numbers, float32 ``[b]`` in [0, 1). A draw is kept as long as ``now`` is above this
    fraction of ``then``."""
    n_used: jax.Array
    """Number of draws at the beginning that are used up, int32."""


def draw(
    x: jax.Array,
    weights: jax.Array,
    closest: jax.Array,
    key: jax.Array,
    n_draws: int,
    *,
    block: int,
    axis_name: str | None,
) -> Draws:
    """Draws rows in proportion to weight times squared distance, or to weight if all of it is 0.

    Sums over rows are made of sums of blocks in a fixed order, so that the draws do not depend on
    the number of devices.

    Args:
        x: Rows of this device, float32 ``[n, d]``, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``.
        closest: Squared distances to the nearest centroid, float32 ``[n]``.
        key: Random key of jax.
        n_draws: Number of draws.
        block: Number of rows in a partial sum.
        axis_name: Mapped axis over which rows are split.
    """
    potential = closest * weights
    any_left = collectives.psum(jnp.any(potential > 0).astype(jnp.int32), axis_name) > 0
    # If every row equals a centroid (k exceeds the number of distinct rows), any row may be drawn.
    blocks = jnp.where(any_left, potential, weights).reshape(-1, block)
    sums = collectives.all_gather(jnp.sum(blocks, axis=1), axis_name)
    chosen, rest, chances = draw_blocks(key, n_draws, sums, block)
    local = chosen - collectives.axis_index(axis_name) * len(blocks)
    is_local = (local >= 0) & (local < len(blocks))
    local = jnp.clip(local, 0, len(blocks) - 1)
    mass = blocks[local]
    inner = jnp.sum(jnp.cumsum(mass, axis=1) <= rest[:, None], axis=1)
    inner = jnp.minimum(inner, block - 1)
    has_mass = jnp.take_along_axis(mass, inner[:, None], axis=1)[:, 0] > 0
    numbers = local * block + jnp.where(has_mass, inner, jnp.argmax(mass, axis=1))
    rows = collectives.psum(jnp.where(is_local[:, None], x[numbers], 0), axis_name)
    then = collectives.psum(jnp.where(is_local, closest[numbers], 0), axis_name)
    return Draws(rows, jnp.where(is_local, numbers, len(x)), then, then, chances, jnp.int32(0))


def points_and_chances(key: jax.Array, n_draws: int) -> tuple[jax.Array, jax.Array]:
    """Returns points and chances for draws, random float32 ``[n_draws]`` each in [0, 1)."""
    uniform = lambda key: jax.random.uniform(key, (n_draws,))
    return uniform(key), uniform(jax.random.fold_in(key, 1))


def draw_blocks(
    key: jax.Array, n_draws: int, sums: jax.Array, block: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws blocks in proportion to their sums, and points within them.

    Args:
        key: Random key of jax.
        n_draws: Number of draws.
        sums: Sums of the blocks of all devices, float32 ``[b]``.
        block: Number of rows in a block.

    Returns:
        The block of each draw, int32 ``[n_draws]``; its point within the block, from 0 to the sum
        of the block; and its number for :attr:`Draws.chances`, both float32 ``[n_draws]``.
    """
    points, chances = points_and_chances(key, n_draws)
    chosen, rest = choose_blocks(points, sums)
    if len(sums) * block > _FINE:
        # A float32 has too few digits to select one of so many rows: another selects in the block.
        rest = sums[chosen] * jax.random.uniform(jax.random.fold_in(key, 2), (n_draws,))
    return chosen, rest, chances


def sum_of_blocks(sums: jax.Array) -> jax.Array:
    """Returns the sum of ``[b, ...]`` over the blocks, in groups that XLA cannot merge."""
    if len(sums) <= _GROUP:
        return jnp.sum(sums, axis=0)
    fill = ((0, -len(sums) % _GROUP), *((0, 0),) * (sums.ndim - 1))
    groups = jnp.pad(sums, fill).reshape(-1, _GROUP, *sums.shape[1:])
    return sum_of_blocks(jax.lax.optimization_barrier(jnp.sum(groups, axis=1)))


def choose_blocks(points: jax.Array, sums: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the positions of points on a line that is made of blocks.

    Args:
        points: Positions as fractions of the line, float32 ``[c]`` in [0, 1).
        sums: Lengths of the blocks, float32 ``[b]``.

    Returns:
        The block of each point, int32 ``[c]``, and the position within it. If rounding puts a point
        beyond the end of the line, its block is the longest one, whose length is above 0.
    """
    ends = jnp.cumsum(sums)
    points = points * ends[-1]
    chosen = jnp.searchsorted(ends, points, side="right")
    chosen = jnp.where(chosen < len(sums), chosen, jnp.argmax(sums))
    return chosen, points - (ends[chosen] - sums[chosen])


def kept(draws: Draws) -> jax.Array:
    """Returns flags of the draws that are neither used up nor thinned out, bool ``[b]``."""
    # A draw whose distance did not change is kept, even if the distance is 0.
    left = (draws.chances * draws.then < draws.now) | (draws.now == draws.then)
    return left & (jnp.arange(len(draws.rows)) >= draws.n_used)


def take(draws: Draws, n: int) -> tuple[jax.Array, Draws]:
    """Returns the indices of the first ``n`` kept draws, int32 ``[n]``, and draws without them.

    At least ``n`` draws have to be kept: ``jnp.sum(kept(draws)) >= n``.
    """
    indices = jnp.flatnonzero(kept(draws), size=n)
    return indices, draws._replace(n_used=indices[-1] + 1)


def nearer(draws: Draws, centroid: jax.Array) -> Draws:
    """Returns the draws with the distances after one more centroid ``[d]``."""
    squared = jnp.sum((draws.rows - centroid[None, :]) ** 2, axis=1)
    return draws._replace(now=jnp.minimum(draws.now, squared))
