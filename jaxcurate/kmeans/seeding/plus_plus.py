"""Greedy k-means++ seeding of sharded rows, in one jitted loop over the centroids."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.kmeans.kernels.compact import over_flagged
from jaxcurate.kmeans.kernels.scores import HIGHEST
from jaxcurate.kmeans.seeding.d2_draws import Draws, draw, kept, nearer, sum_of_blocks, take
from jaxcurate.runtime import collectives
from jaxcurate.runtime.devices import ROWS, SAME, specs

_AT_ONCE = 4096
"""Number of rows that are compared with candidates at a time."""
_STEPS = 8
"""Largest number of steps for which candidates are drawn at once."""
_COLUMNS_A_STEP = 16
"""Smallest number of columns for each such step, so that distances to the draws take about the
memory of the rows."""
_PRUNE_FROM = 16
"""Smallest number of columns for which pruning pays."""
_PRUNE_ROWS = 8192
"""Number of rows of a device above which pruning pays."""
_WORTHWHILE = 0.1
"""Fraction of the rows at or above which gathering them costs more than pruning saves."""


class Seeds(NamedTuple):
    """State of the seeding."""

    centroids: jax.Array
    """Chosen centroids, float32 ``[k, d]``, followed by zeros."""
    closest: jax.Array
    """Squared distance of each row to the nearest centroid, float32 ``[n]``."""
    owner: jax.Array
    """Index of the nearest centroid, int32 ``[n]``."""
    n_chosen: jax.Array
    """Number of chosen centroids, int32."""


SEEDS_SPECS = specs(Seeds, SAME, ROWS, ROWS, SAME)


def seeds_like(n: int, d: int, n_clusters: int) -> Seeds:
    """Returns the shapes and types of the state of a seeding."""
    shape = jax.ShapeDtypeStruct
    rows = shape((n,), jnp.float32), shape((n,), jnp.int32)
    return specs(Seeds, shape((n_clusters, d), jnp.float32), *rows, shape((), jnp.int32))


def n_candidates(n_clusters: int) -> int:
    """Returns the number of candidates at each step of the greedy seeding, ``2 + floor(ln k)``.

    Examples:
        >>> from jaxcurate.kmeans.seeding.plus_plus import n_candidates
        >>> n_candidates(2), n_candidates(1000)
        (2, 8)
    """
    return 2 + int(math.log(n_clusters))


def n_ahead(n_clusters: int, d: int) -> int:
    """Returns the number of draws to make at once, for one or more steps, with ``d`` columns."""
    trials, steps = n_candidates(n_clusters), min(_STEPS, d // _COLUMNS_A_STEP)
    # Half a step's draws are added, since some draws are thinned out as distances fall.
    return steps * trials + trials // 2 if steps > 1 else trials


def greedy_kmeans_plus_plus(
    x: jax.Array,
    weights: jax.Array,
    key: jax.Array,
    *,
    n_clusters: int,
    block: int,
    axis_name: str | None,
    plain: bool = False,
) -> jax.Array:
    """Returns ``k`` centroids chosen from the rows, float32 ``[k, d]``.

    The arguments are those of :func:`more_seeds`.
    """
    options: dict[str, Any] = dict(block=block, axis_name=axis_name)
    seeds = first_seed(x, weights, key, n_clusters=n_clusters, **options)
    return more_seeds(x, weights, key, seeds, n_clusters, plain=plain, **options).centroids


def first_seed(
    x: jax.Array,
    weights: jax.Array,
    key: jax.Array,
    *,
    n_clusters: int,
    block: int,
    axis_name: str | None,
) -> Seeds:
    """Returns the state after the first centroid, a random row.

    The arguments are those of :func:`more_seeds`.
    """
    nothing = jnp.zeros_like(weights)
    first = draw(
        x, weights, nothing, jax.random.fold_in(key, 0), 1, block=block, axis_name=axis_name
    ).rows
    closest = squared_distances_to(first, x, jnp.sum(x**2, axis=1))[0]
    centroids = jnp.zeros((n_clusters, x.shape[1]), x.dtype).at[0].set(first[0])
    return Seeds(centroids, closest, jnp.zeros_like(closest, jnp.int32), jnp.int32(1))


def more_seeds(
    x: jax.Array,
    weights: jax.Array,
    key: jax.Array,
    seeds: Seeds,
    stop: jax.Array | int,
    *,
    block: int,
    axis_name: str | None,
    plain: bool = False,
) -> Seeds:
    """Chooses more centroids among the rows, by greedy D^2 sampling.

    At each step candidates are drawn with probability proportional to the weighted squared
    distance to the nearest centroid so far, and the candidate that lowers the potential most
    becomes a centroid. The candidates of several steps are drawn at once, so that one matrix
    product gives the distances for all of these steps; draws are thinned so that each step has the
    right probabilities (:mod:`jaxcurate.kmeans.seeding.d2_draws`).

    A row whose centroid is more than twice as far from every candidate as from the row cannot be
    nearer to any of them. If few other rows are left, only these are compared.

    Args:
        x: Rows of this device, float32 ``[n, d]``, ``n`` a multiple of ``block``.
        weights: float32 ``[n]``; 0 marks padding.
        key: Random key of jax.
        seeds: State from :func:`first_seed` or from this function.
        stop: Number of centroids at which to stop. Steps that there are draws for are still taken,
            so that a stop does not change later centroids.
        block: Number of rows in a partial sum.
        axis_name: Mapped axis over which rows are split.
        plain: If True, draws for one step at a time and compares all rows, which is best for few
            rows under vmap.

    Returns:
        The state after these steps. Centroids repeat once all distinct rows are chosen.

    References:
        Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, 2007.
        Raff, Exact acceleration of k-means++ and k-means||, 2021.
    """
    n, d = x.shape
    k = len(seeds.centroids)
    trials = n_candidates(k)
    n_draws = trials if plain else n_ahead(k, d)
    norms = jnp.sum(x**2, axis=1)

    def joined(
        seeds: Seeds, centroid: jax.Array, closest: jax.Array, owner: jax.Array
    ) -> tuple[Seeds, jax.Array]:
        """Returns the state with one more centroid, and this centroid."""
        i = seeds.n_chosen
        return Seeds(seeds.centroids.at[i].set(centroid), closest, owner, i + 1), centroid

    def everywhere(
        seeds: Seeds, candidates: jax.Array, squared: jax.Array
    ) -> tuple[Seeds, jax.Array]:
        """Returns the state after the best candidate is added, and this candidate.

        Args:
            seeds: State before this step.
            candidates: float32 ``[c, d]``.
            squared: Squared distances of all rows to the candidates, float32 ``[c, n]``.
        """
        potentials = jnp.minimum(squared, seeds.closest[None, :]) * weights[None, :]
        sums = jnp.sum(potentials.reshape(len(candidates), -1, block), axis=2)
        # Sums of blocks, added up in a fixed order, do not depend on the number of devices.
        sums = collectives.all_gather(jax.lax.optimization_barrier(sums).T, axis_name)
        best = jnp.argmin(sum_of_blocks(sums))
        squared = squared[best]
        owner = jnp.where(squared < seeds.closest, seeds.n_chosen, seeds.owner)
        return joined(seeds, candidates[best], jnp.minimum(squared, seeds.closest), owner)

    def where_near(seeds: Seeds, candidates: jax.Array) -> tuple[Seeds, jax.Array]:
        """Returns the same as ``everywhere``, from rows only that may be nearer to a candidate."""
        gathered = lambda a, rows: a.at[rows].get(mode="clip")
        between = least_between(seeds.centroids, candidates)
        near = may_be_nearer(seeds, jnp.min(between, axis=1))

        def gained(rows: jax.Array, gains: jax.Array) -> jax.Array:
            squared = squared_distances_to(candidates, gathered(x, rows), gathered(norms, rows))
            less = jnp.maximum(gathered(seeds.closest, rows)[None, :] - squared, 0)
            w = weights.at[rows].get(mode="fill", fill_value=0)
            return gains + jnp.sum(less * w[None, :], axis=1)

        gains = over_flagged(near, _AT_ONCE, gained, jnp.zeros(trials))
        best = jnp.argmax(collectives.psum(gains, axis_name))
        chosen = jax.lax.dynamic_slice(candidates, (best, 0), (1, d))

        def moved(rows: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple:
            squared = squared_distances_to(chosen, gathered(x, rows), gathered(norms, rows))[0]
            rows = jnp.where(squared < gathered(seeds.closest, rows), rows, n)  # n is dropped
            closest, owner = pair
            closest = closest.at[rows].set(squared, mode="drop")
            return closest, owner.at[rows].set(seeds.n_chosen, mode="drop")

        near &= may_be_nearer(seeds, between[:, best])
        pair = seeds.closest, seeds.owner
        return joined(seeds, chosen[0], *over_flagged(near, _AT_ONCE, moved, pair))

    def may_be_nearer(seeds: Seeds, between: jax.Array) -> jax.Array:
        """Returns flags of the rows that may be nearer to a candidate than to their centroid.

        Args:
            seeds: State before this step.
            between: Lower bounds of the squared distances of centroids to their nearest candidate,
                float32 ``[k]``.
        """
        # Squared distances are within 1 % of the true ones.
        return (4 * 1.03 * seeds.closest >= between[seeds.owner]) & (weights > 0)

    def some_steps(seeds: Seeds) -> Seeds:
        """Returns the state after as many steps as one set of draws is enough for."""
        draws = draw(
            x,
            weights,
            seeds.closest,
            jax.random.fold_in(key, seeds.n_chosen),
            n_draws,
            block=block,
            axis_name=axis_name,
        )

        def all_with(step: Callable[[Seeds, jax.Array], tuple[Seeds, jax.Array]]) -> Seeds:
            """Returns the state after steps as long as enough draws are kept.

            Args:
                step: Function of the state and of the indices of the candidates among the draws.
            """

            def one_step(state: tuple[Seeds, Draws]) -> tuple[Seeds, Draws]:
                indices, draws = take(state[1], trials)
                seeds, centroid = step(state[0], indices)
                return seeds, nearer(draws, centroid)

            def unfinished(state: tuple[Seeds, Draws]) -> jax.Array:
                return (state[0].n_chosen < k) & (jnp.sum(kept(state[1])) >= trials)

            start = seeds, draws
            if n_draws > trials:
                return jax.lax.while_loop(unfinished, one_step, start)[0]
            return one_step(start)[0]

        def over_all_rows() -> Seeds:
            squared = squared_distances_to(draws.rows, x, norms, draws.row_numbers)
            return all_with(lambda seeds, i: everywhere(seeds, draws.rows[i], squared[i]))

        def over_rows_near() -> Seeds:
            return all_with(lambda seeds, i: where_near(seeds, draws.rows[i]))

        if plain or d < _PRUNE_FROM or n <= _PRUNE_ROWS:
            return over_all_rows()
        between = least_between(seeds.centroids, draws.rows[:trials])
        near = may_be_nearer(seeds, jnp.min(between, axis=1))
        fraction = collectives.psum(jnp.sum(near, dtype=jnp.int32) / n, axis_name)
        few = fraction < _WORTHWHILE * collectives.psum(1.0, axis_name)
        return jax.lax.cond(few, over_rows_near, over_all_rows)

    return jax.lax.while_loop(lambda seeds: seeds.n_chosen < stop, some_steps, seeds)


def least_between(centroids: jax.Array, candidates: jax.Array) -> jax.Array:
    """Returns lower bounds of the squared distances of centroids to candidates.

    Args:
        centroids: float32 ``[k, d]``.
        candidates: float32 ``[c, d]``.

    Returns:
        Bounds that hold in spite of rounding, float32 ``[k, c]``.
    """
    sizes = jnp.sum(centroids**2, axis=1)[:, None] + jnp.sum(candidates**2, axis=1)[None, :]
    squared = sizes - 2 * jnp.dot(centroids, candidates.T, precision=HIGHEST)
    rounding = (centroids.shape[1] + 16) * 2.0**-22 * sizes
    return squared - rounding


def squared_distances_to(
    rows: jax.Array, x: jax.Array, norms: jax.Array, row_numbers: jax.Array | None = None
) -> jax.Array:
    """Returns squared distances ``[c, n]`` of a few rows to all rows, each to within 1 %.

    They are expanded squares, or, if these lose too many digits to rounding, squared differences.

    Args:
        rows: A few rows, float32 ``[c, d]``.
        x: All rows, float32 ``[n, d]``, ``n`` a multiple of 16.
        norms: Squared norms of ``x``, float32 ``[n]``.
        row_numbers: Number of each of the few rows in ``x``, int32 ``[c]``, and ``n`` for rows
            that are not in it. Without numbers the result is the same, but takes longer.
    """
    (c, d), block = rows.shape, 16
    sizes = jnp.sum(rows**2, axis=1)[:, None] + norms[None, :]
    squared = sizes - 2 * jnp.dot(rows, x.T, precision=HIGHEST)
    itself = jnp.arange(c), jnp.full(c, len(x)) if row_numbers is None else row_numbers
    squared = squared.at[itself].set(jnp.inf, mode="drop")
    # The error of the expanded square is at most (d + 16) 2^-23 times the sizes.
    rough = jnp.any(squared <= 100 * (d + 16) * 2.0**-23 * sizes, axis=0)
    blocks = x.reshape(-1, block, d)

    def exact(numbers: jax.Array, squared: jax.Array) -> jax.Array:
        near = blocks.at[numbers].get(mode="clip")
        differences = near[None] - rows[:, None, None, :]
        return squared.at[:, numbers].set(jnp.sum(differences**2, axis=3), mode="drop")

    flags = jnp.any(rough.reshape(-1, block), axis=1)
    squared = over_flagged(flags, 8, exact, squared.reshape(c, -1, block)).reshape(c, -1)
    return squared.at[itself].set(0, mode="drop")
