r"""Scores of centroids and the best two of them, in blocks: ``n x k`` numbers are never held.

What is compared is the score :math:`\|c\|^2 / 2 - x \cdot c`, which has the order of
:math:`\|x - c\|^2` and costs one matrix product.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.kmeans.kernels.compact import flagged

HIGHEST = jax.lax.Precision.HIGHEST
Precision = Literal["float32", "bfloat16"]


class Tiles(NamedTuple):
    """Centroids cut in tiles of equal width ``w``, the last one filled up."""

    centroids: jax.Array
    """``[t, w, d]``."""
    half_norms: jax.Array
    """float32 ``[t, w]``; infinite where the tile is filled up."""
    positions: jax.Array
    """int32 ``[t, w]``: the numbers of the centroids, ascending."""
    n_used: jax.Array | int
    """Tiles that hold any centroid; they come first."""


class Top2(NamedTuple):
    """The nearest centroid of each row, and how clearly it is the nearest."""

    labels: Any
    """int32 ``[n]``, on devices, or on the host in a pass over chunks."""
    scores: Any
    """float32 ``[n]``, of the nearest."""
    second_scores: Any
    """float32 ``[n]``, the least score of any other; infinite where there is none."""


def half_norms(centroids: jax.Array) -> jax.Array:
    """Returns half the squared norms, float32 ``[k]``."""
    return 0.5 * jnp.sum(centroids**2, axis=1)


def rounded(x: jax.Array) -> jax.Array:
    """Returns float32 ``x`` with the digits of bfloat16."""
    # There and back by astype is nothing to XLA, which may keep more digits than it is asked for.
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def tiles_of(centroids: jax.Array, width: int, chosen: jax.Array | None = None) -> Tiles:
    """Cuts centroids in tiles.

    Args:
        centroids: float32 ``[k, d]``.
        width: centroids to a tile at most.
        chosen: bool ``[k]``, those that take part; all by default.
    """
    k, d = centroids.shape
    width = -(-k // -(-k // width))  # as many tiles as it takes, nearly full
    fill = -k % width
    norms = half_norms(centroids)
    if chosen is None:
        positions = jnp.arange(k, dtype=jnp.int32)
        n_used = (k + fill) // width
    else:
        positions = flagged(chosen)
        centroids = centroids.at[positions].get(mode="clip")
        norms = norms.at[positions].get(mode="fill", fill_value=jnp.inf)
        n_used = -(-jnp.sum(chosen, dtype=jnp.int32) // width)
    return Tiles(
        jnp.pad(centroids, ((0, fill), (0, 0))).reshape(-1, width, d),
        jnp.pad(norms, (0, fill), constant_values=jnp.inf).reshape(-1, width),
        jnp.pad(positions, (0, fill), constant_values=k).reshape(-1, width),
        n_used,
    )


def best_two(rows: jax.Array, tiles: Tiles, precision: Precision = "float32") -> Top2:
    """Returns the best centroid of each row and the score of the second best.

    Of equal scores the first centroid wins.

    Args:
        rows: float32 ``[b, d]``; ``[w, b]`` is the largest array that is held.
        tiles: of centroids.
        precision: what the products are made of; they are added up in float32.
    """
    rows = rows.astype(precision)

    def one_tile(i: jax.Array | int, best: Top2) -> Top2:
        tile = tiles.centroids[i], tiles.half_norms[i], tiles.positions[i]
        return top2_of_tile(rows, *tile, best, precision)[0]

    begin = nothing_yet(rows)
    if isinstance(tiles.n_used, int) and tiles.n_used == 1:
        return one_tile(0, begin)
    return jax.lax.fori_loop(0, tiles.n_used, one_tile, begin)


def nothing_yet(rows: jax.Array) -> Top2:
    """Returns the best of rows ``[b, d]`` before any centroid was seen."""
    nothing = rows[:, 0].astype(jnp.float32) * 0  # varies over the devices as the rows do
    return Top2(nothing.astype(jnp.int32), nothing + jnp.inf, nothing + jnp.inf)


def top2_of_tile(
    rows: jax.Array,
    centroids: jax.Array,
    half_norms: jax.Array,
    positions: jax.Array,
    best: Top2,
    precision: Precision,
) -> tuple[Top2, jax.Array]:
    """Returns the best of rows ``[b, d]`` after one more tile of centroids, and its scores ``[w,
    b]``.

    Args:
        rows: ``[b, d]`` in this precision.
        centroids: float32 ``[w, d]``.
        half_norms: float32 ``[w]``; infinite where the tile is filled up.
        positions: int32 ``[w]``, ascending, and above those of earlier tiles.
        best: among the earlier tiles.
        precision: what the products are made of.
    """
    width = len(half_norms)
    numbers = jnp.arange(width, dtype=jnp.int32)[:, None]
    products = jnp.dot(
        centroids.astype(precision),
        rows.T,
        precision=HIGHEST if precision == "float32" else None,
        preferred_element_type=jnp.float32,
    )
    scores = half_norms[:, None] - products
    # The minimum first, its position in a second pass, along the first axis: all of this
    # vectorises, argmin does not (four times slower on XLA's CPU backend).
    least = jnp.min(scores, axis=0)
    first = jnp.min(jnp.where(scores <= least[None, :], numbers, width - 1), axis=0)
    others = jnp.min(jnp.where(numbers == first[None, :], jnp.inf, scores), axis=0)
    better = least < best.scores
    best = Top2(
        jnp.where(better, positions[first], best.labels),
        jnp.where(better, least, best.scores),
        jnp.where(better, jnp.minimum(best.scores, others), jnp.minimum(best.second_scores, least)),
    )
    return best, scores


def top2_in_blocks(
    x: jax.Array, tiles: Tiles, *, block: int, precision: Precision = "float32"
) -> Top2:
    """Returns :func:`best_two` for rows ``[n, d]``, so many at a time."""
    parts = jax.lax.map(
        lambda rows: best_two(rows, tiles, precision), x.reshape(-1, block, x.shape[1])
    )
    return jax.tree.map(lambda part: part.reshape(-1), parts)
