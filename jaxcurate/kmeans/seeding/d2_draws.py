"""Draws of rows by their potential, made some steps ahead and thinned as the potential falls."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.runtime import collectives

_FINE = 2**20
"""Rows that one uniform float32, a multiple of 2**-23, can point at."""
_GROUP = 512
"""Sums of blocks that are added up one after another."""


class Draws(NamedTuple):
    """Rows drawn independently with probabilities proportional to ``w c``: weight times squared
    distance to the nearest centroid at that time.

    Distances only fall. What was drawn by ``c`` and is kept with probability ``c' / c`` is drawn
    by ``c'`` (rejection sampling), so that the draws serve as the centroids become more.
    """

    rows: jax.Array
    """float32 ``[b, d]``."""
    at: jax.Array
    """int32 ``[b]``: which of this device's rows each one is, ``n`` where it is another's."""
    then: jax.Array
    """float32 ``[b]``, each one's squared distance to the nearest centroid when it was drawn."""
    now: jax.Array
    """float32 ``[b]``, and at present."""
    chances: jax.Array
    """float32 ``[b]`` in [0, 1): a draw is kept while this share is left of its distance."""
    n_used: jax.Array
    """int32: those before are used up."""


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
    """Draws rows by their weight times squared distance, or where that is nothing by weight.

    The sums that the draws hang on are made by blocks of rows and joined in one order, so that
    they do not depend on how many devices share the rows.

    Args:
        x: float32 ``[n, d]``, this device's rows, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``.
        closest: float32 ``[n]``, squared distances to the nearest centroid.
        key: a jax random key.
        n_draws: how many.
        block: rows to a partial sum.
        axis_name: the mapped axis over which rows are split.
    """
    potential = closest * weights
    any_left = collectives.psum(jnp.any(potential > 0).astype(jnp.int32), axis_name) > 0
    # Every row lies on a centroid (k exceeds the distinct rows): any row will do.
    blocks = jnp.where(any_left, potential, weights).reshape(-1, block)
    sums = collectives.all_gather(jnp.sum(blocks, axis=1), axis_name)
    chosen, rest, chances = draw_blocks(key, n_draws, sums, block)
    local = chosen - collectives.axis_index(axis_name) * len(blocks)
    here = (local >= 0) & (local < len(blocks))
    local = jnp.clip(local, 0, len(blocks) - 1)
    mass = blocks[local]
    inner = jnp.sum(jnp.cumsum(mass, axis=1) <= rest[:, None], axis=1)
    inner = jnp.minimum(inner, block - 1)
    has_mass = jnp.take_along_axis(mass, inner[:, None], axis=1)[:, 0] > 0
    at = local * block + jnp.where(has_mass, inner, jnp.argmax(mass, axis=1))
    rows = collectives.psum(jnp.where(here[:, None], x[at], 0), axis_name)
    then = collectives.psum(jnp.where(here, closest[at], 0), axis_name)
    return Draws(rows, jnp.where(here, at, len(x)), then, then, chances, jnp.int32(0))


def points_and_chances(key: jax.Array, n_draws: int) -> tuple[jax.Array, jax.Array]:
    """Returns all that is random in draws: float32 ``[n_draws]`` in [0, 1), where and how likely
    kept."""
    uniform = lambda key: jax.random.uniform(key, (n_draws,))
    return uniform(key), uniform(jax.random.fold_in(key, 1))


def draw_blocks(
    key: jax.Array, n_draws: int, sums: jax.Array, block: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws blocks by their sums, places in them, and how likely each draw is kept.

    Args:
        key: a jax random key.
        n_draws: how many.
        sums: float32 ``[b]``, of the blocks of all devices.
        block: rows to a block.

    Returns:
        The block of each draw, int32 ``[n_draws]``, how far into its sum the draw lies, and its
        chance, float32 ``[n_draws]``.
    """
    points, chances = points_and_chances(key, n_draws)
    chosen, rest = choose_blocks(points, sums)
    if len(sums) * block > _FINE:
        # A float32 has too few digits to tell one row from so many: a second draw is made within.
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
    """Returns where points lie on a line that is made of blocks.

    Args:
        points: float32 ``[c]`` in [0, 1), from one end of the line to the other.
        sums: float32 ``[b]``, the length of each block.

    Returns:
        The block of each point, int32 ``[c]``, and how far into it the point lies. Where rounding
        points past the end, the longest block, which is sure to have some length.
    """
    ends = jnp.cumsum(sums)
    points = points * ends[-1]
    chosen = jnp.searchsorted(ends, points, side="right")
    chosen = jnp.where(chosen < len(sums), chosen, jnp.argmax(sums))
    return chosen, points - (ends[chosen] - sums[chosen])


def kept(draws: Draws) -> jax.Array:
    """Returns which draws are neither used up nor thinned out, bool ``[b]``."""
    # Of one that nothing has come nearer to all is left, even where that is zero.
    left = (draws.chances * draws.then < draws.now) | (draws.now == draws.then)
    return left & (jnp.arange(len(draws.rows)) >= draws.n_used)


def take(draws: Draws, n: int) -> tuple[jax.Array, Draws]:
    """Returns the first ``n`` that are kept, int32 ``[n]``, and the draws without these.

    There must be so many: ``jnp.sum(kept(draws)) >= n``.
    """
    which = jnp.flatnonzero(kept(draws), size=n)
    return which, draws._replace(n_used=which[-1] + 1)


def nearer(draws: Draws, centroid: jax.Array) -> Draws:
    """Returns the draws once there is one more centroid ``[d]``."""
    squared = jnp.sum((draws.rows - centroid[None, :]) ** 2, axis=1)
    return draws._replace(now=jnp.minimum(draws.now, squared))
