"""Greedy k-means++ seeding: one jitted loop over the centres, on sharded rows."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate import parallel
from jaxcurate.kmeans.dense import over_flagged
from jaxcurate.kmeans.scores import HIGHEST

_AT_ONCE = 4096
"""Rows at a time in the distances to candidates."""
_PRUNE_FROM = 16
"""Columns from which on a distance costs more than the question whether it is needed."""
_PRUNE_ROWS = 8192
"""Rows of a device from which on."""
_WORTHWHILE = 0.3
"""Above this share of the rows, bringing them together costs more than passing over the rest."""


class Seeds(NamedTuple):
    """Where the seeding stands."""

    centres: jax.Array
    """float32 ``[k, d]``; zeros where none is chosen yet."""
    closest: jax.Array
    """float32 ``[n]``, squared distances to the nearest centre."""
    owner: jax.Array
    """int32 ``[n]``, which centre that is."""
    n_chosen: jax.Array
    """int32: how many centres are chosen; they come first."""


SEEDS_SPECS = Seeds(parallel.SAME, parallel.ROWS, parallel.ROWS, parallel.SAME)


def seeds_like(n: int, d: int, n_clusters: int) -> Seeds:
    """The shapes of a seeding."""
    shape = jax.ShapeDtypeStruct
    rows = shape((n,), jnp.float32), shape((n,), jnp.int32)
    return Seeds(shape((n_clusters, d), jnp.float32), *rows, shape((), jnp.int32))


def n_candidates(n_clusters: int) -> int:
    """Candidates at each step of the greedy seeding: ``2 + floor(ln k)``."""
    return 2 + int(math.log(n_clusters))


def greedy_kmeans_plus_plus(
    x: jax.Array,
    weights: jax.Array,
    key: jax.Array,
    *,
    n_clusters: int,
    block: int,
    axis_name: str | None,
    prune: bool | None = None,
) -> jax.Array:
    """Chooses ``k`` centres among the rows, float32 ``[k, d]``: :func:`more_seeds` to the end."""
    options = dict(block=block, axis_name=axis_name)
    seeds = first_seed(x, weights, key, n_clusters=n_clusters, **options)
    return more_seeds(x, weights, key, seeds, n_clusters, prune=prune, **options).centres


def first_seed(
    x: jax.Array,
    weights: jax.Array,
    key: jax.Array,
    *,
    n_clusters: int,
    block: int,
    axis_name: str | None,
) -> Seeds:
    """The seeding with one centre chosen, any row. Arguments as in :func:`more_seeds`."""
    first = drawn(x, weights, jax.random.fold_in(key, 0), 1, block=block, axis_name=axis_name)
    closest = squared_distances_to(first, x, jnp.sum(x**2, axis=1))[0]
    centres = jnp.zeros((n_clusters, x.shape[1]), x.dtype).at[0].set(first[0])
    return Seeds(centres, closest, jnp.zeros_like(closest, jnp.int32), jnp.int32(1))


def more_seeds(
    x: jax.Array,
    weights: jax.Array,
    key: jax.Array,
    seeds: Seeds,
    stop: jax.Array | int,
    *,
    block: int,
    axis_name: str | None,
    prune: bool | None = None,
) -> Seeds:
    """Chooses more centres among the rows, far from each other, by greedy D^2 sampling.

    At each step candidates are drawn with probability proportional to the weighted squared
    distance to the nearest centre so far, and the one that lowers the potential most is kept.
    The sums that the draws hang on are made by blocks of rows and joined in one order, so that
    they do not depend on how many devices share the rows.

    A row whose centre is more than twice as far from every candidate as from the row cannot be
    nearer to any of them, and is passed over. Beside the rows, a few numbers for each are held.

    Args:
        x: float32 ``[n, d]``, this device's rows, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; 0 marks padding.
        key: a jax random key.
        seeds: where the seeding stands.
        stop: go on until so many centres are chosen. However often it stops on the way, the
            centres are the same.
        block: rows to a partial sum.
        axis_name: the mapped axis over which rows are split.
        prune: whether to look for rows to pass over; by default where that is cheap beside the
            distances. The centres are the same, but for the rounding of near ties.

    Returns:
        Where it stands then. Where fewer rows are distinct, the last centres repeat.

    References:
        Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, 2007.
        Raff, Exact acceleration of k-means++ and k-means||, 2021.
    """
    n, d = x.shape
    prune = d >= _PRUNE_FROM and n > _PRUNE_ROWS if prune is None else prune
    norms = jnp.sum(x**2, axis=1)
    trials = n_candidates(len(seeds.centres))

    def everywhere(seeds: Seeds, candidates: jax.Array) -> Seeds:
        """The best candidate joins, every row looked at."""
        centres, closest, owner, i = seeds
        improved = jnp.minimum(squared_distances_to(candidates, x, norms), closest[None, :])
        parts = jnp.sum((improved * weights[None, :]).reshape(trials, -1, block), axis=2)
        costs = jnp.sum(parallel.all_gather(parts.T, axis_name), axis=0)
        best = jnp.argmin(costs)
        owner = jnp.where(improved[best] < closest, i, owner)
        return Seeds(centres.at[i].set(candidates[best]), improved[best], owner, i + 1)

    def where_near(
        seeds: Seeds, candidates: jax.Array, between: jax.Array, near: jax.Array
    ) -> Seeds:
        """The same, the rows looked at that may be nearer to a candidate: bool ``[n]``."""
        centres, closest, owner, i = seeds
        at = lambda a, rows: a.at[rows].get(mode="clip")

        def gained(rows: jax.Array, gains: jax.Array) -> jax.Array:
            squared = squared_distances_to(candidates, at(x, rows), at(norms, rows))
            less = jnp.maximum(at(closest, rows)[None, :] - squared, 0)
            w = weights.at[rows].get(mode="fill", fill_value=0)
            return gains + jnp.sum(less * w[None, :], axis=1)

        gains = over_flagged(near, _AT_ONCE, gained, jnp.zeros(trials))
        best = jnp.argmax(parallel.psum(gains, axis_name))
        chosen = jax.lax.dynamic_slice(candidates, (best, 0), (1, d))

        def joined(rows: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple:
            squared = squared_distances_to(chosen, at(x, rows), at(norms, rows))[0]
            rows = jnp.where(squared < at(closest, rows), rows, n)  # n is dropped
            closest_, owner_ = pair
            closest_ = closest_.at[rows].set(squared, mode="drop")
            return closest_, owner_.at[rows].set(i, mode="drop")

        near &= may_be_nearer(seeds, between[:, best])
        closest, owner = over_flagged(near, _AT_ONCE, joined, (closest, owner))
        return Seeds(centres.at[i].set(chosen[0]), closest, owner, i + 1)

    def may_be_nearer(seeds: Seeds, between: jax.Array) -> jax.Array:
        """Where a row may be nearer to something than to its centre, bool ``[n]``; given how far
        from it each centre ``[k]`` is, squared."""
        # Squared distances are within one part in a hundred of the true ones.
        return (4 * 1.03 * seeds.closest >= between[seeds.owner]) & (weights > 0)

    def step(seeds: Seeds) -> Seeds:
        potential = seeds.closest * weights
        # Every row lies on a centre (k exceeds the distinct rows): any row will do.
        total = parallel.psum(jnp.sum(potential), axis_name)
        potential = jnp.where(total > 0, potential, weights)
        candidates = drawn(
            x,
            potential,
            jax.random.fold_in(key, seeds.n_chosen),
            trials,
            block=block,
            axis_name=axis_name,
        )
        if not prune:
            return everywhere(seeds, candidates)
        between = least_between(seeds.centres, candidates)
        near = may_be_nearer(seeds, jnp.min(between, axis=1))
        share = parallel.psum(jnp.mean(near, dtype=jnp.float32), axis_name)
        return jax.lax.cond(
            share < _WORTHWHILE * parallel.psum(1.0, axis_name),
            lambda: where_near(seeds, candidates, between, near),
            lambda: everywhere(seeds, candidates),
        )

    return jax.lax.while_loop(lambda seeds: seeds.n_chosen < stop, step, seeds)


def drawn(
    x: jax.Array,
    potential: jax.Array,
    key: jax.Array,
    n_draws: int,
    *,
    block: int,
    axis_name: str | None,
) -> jax.Array:
    """Rows ``[n_draws, d]``, each with a probability proportional to its potential ``[n]``."""
    blocks = potential.reshape(-1, block)
    sums = parallel.all_gather(jnp.sum(blocks, axis=1), axis_name)
    chosen, rest = choose_blocks(key, sums, n_draws)
    local = chosen - parallel.axis_index(axis_name) * len(blocks)
    here = (local >= 0) & (local < len(blocks))
    mass = blocks[jnp.clip(local, 0, len(blocks) - 1)]
    inner = jnp.sum(jnp.cumsum(mass, axis=1) <= rest[:, None], axis=1)
    inner = jnp.minimum(inner, block - 1)
    has_mass = jnp.take_along_axis(mass, inner[:, None], axis=1)[:, 0] > 0
    inner = jnp.where(has_mass, inner, jnp.argmax(mass, axis=1))
    rows = x[jnp.clip(local, 0, len(blocks) - 1) * block + inner]
    return parallel.psum(jnp.where(here[:, None], rows, 0), axis_name)


def least_between(centres: jax.Array, few: jax.Array) -> jax.Array:
    """Bounds ``[k, c]`` below the squared distances of centres ``[k, d]`` to a few ``[c, d]``."""
    sizes = jnp.sum(centres**2, axis=1)[:, None] + jnp.sum(few**2, axis=1)[None, :]
    squared = sizes - 2 * jnp.dot(centres, few.T, precision=HIGHEST)
    rounding = (centres.shape[1] + 16) * 2.0**-22 * sizes
    return squared - rounding


def choose_blocks(key: jax.Array, sums: jax.Array, n_draws: int) -> tuple[jax.Array, jax.Array]:
    """Draws points on a line that is made of blocks, uniformly.

    Args:
        key: a jax random key.
        sums: float32 ``[b]``, the length of each block.
        n_draws: how many points.

    Returns:
        The block of each point, int32 ``[n_draws]``, and how far into it the point lies. Where
        rounding points past the end, the longest block, which is sure to have some length.
    """
    ends = jnp.cumsum(sums)
    points = jax.random.uniform(key, (n_draws,)) * ends[-1]
    chosen = jnp.searchsorted(ends, points, side="right")
    chosen = jnp.where(chosen < len(sums), chosen, jnp.argmax(sums))
    return chosen, points - (ends[chosen] - sums[chosen])


def squared_distances_to(rows: jax.Array, x: jax.Array, norms: jax.Array) -> jax.Array:
    """Squared distances ``[c, n]``, each to within one part in a hundred.

    Where the expanded square loses more than that to rounding, the difference is squared.

    Args:
        rows: float32 ``[c, d]``, few.
        x: float32 ``[n, d]``, ``n`` a multiple of 16.
        norms: float32 ``[n]``, squared, of ``x``.
    """
    (c, d), piece = rows.shape, 16
    sizes = jnp.sum(rows**2, axis=1)[:, None] + norms[None, :]
    squared = sizes - 2 * jnp.dot(rows, x.T, precision=HIGHEST)
    # The expanded square is off by at most (d + 16) 2^-23 of the sizes.
    rough = jnp.any(squared <= 100 * (d + 16) * 2.0**-23 * sizes, axis=0)
    pieces = x.reshape(-1, piece, d)

    def exact(which: jax.Array, squared: jax.Array) -> jax.Array:
        near = pieces.at[which].get(mode="clip")
        differences = near[None] - rows[:, None, None, :]
        return squared.at[:, which].set(jnp.sum(differences**2, axis=3), mode="drop")

    flags = jnp.any(rough.reshape(-1, piece), axis=1)
    return over_flagged(flags, 8, exact, squared.reshape(c, -1, piece)).reshape(c, -1)
