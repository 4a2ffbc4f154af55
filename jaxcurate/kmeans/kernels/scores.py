r"""Scores of centroids, and the best two centroids of each row, without an ``n x k`` array.

Centroids are compared by the score :math:`\|c\|^2 / 2 - x \cdot c`, which orders the centroids of a
row as :math:`\|x - c\|^2` does and takes one matrix product.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.kmeans.kernels.compact import flagged

HIGHEST = jax.lax.Precision.HIGHEST
Precision = Literal["float32", "bfloat16"]


class Tiles(NamedTuple):
    """Centroids in ``t`` tiles of ``w`` centroids each, of which the last one is padded."""

    centroids: jax.Array
    """Centroids, float32 ``[t, w, d]``."""
    half_norms: jax.Array
    """Half the squared norms, float32 ``[t, w]``; infinite for padding."""
    positions: jax.Array
    """Indices of the centroids, ascending, int32 ``[t, w]``."""
    n_used: jax.Array | int
    """Number of tiles that have a centroid; they come first."""


class Top2(NamedTuple):
    """Nearest centroid of each row, its score, and the score of the second nearest."""

    labels: Any
    """Index of the nearest centroid, int32 ``[n]``, on devices or on the host."""
    scores: Any
    """Score of the nearest centroid, float32 ``[n]``."""
    second_scores: Any
    """Least score of any other centroid, float32 ``[n]``; infinite if there is none."""


def half_norms(centroids: jax.Array) -> jax.Array:
    """Returns half the squared norms of centroids ``[k, d]``, float32 ``[k]``."""
    return 0.5 * jnp.sum(centroids**2, axis=1)


def rounded(x: jax.Array) -> jax.Array:
    """Returns float32 ``x``, rounded to the precision of bfloat16."""
    # XLA may drop a cast to bfloat16 and back, and then nothing is rounded.
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def tiles_of(centroids: jax.Array, width: int, chosen: jax.Array | None = None) -> Tiles:
    """Returns centroids in the fewest tiles, all nearly full.

    Args:
        centroids: float32 ``[k, d]``.
        width: Largest number of centroids in a tile.
        chosen: Flags of the centroids that take part, bool ``[k]``; all by default.
    """
    k, d = centroids.shape
    width = -(-k // -(-k // width))
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

    The first of several centroids with equal scores is the best.

    Args:
        rows: float32 ``[b, d]``. The largest temporary array is ``[w, b]``.
        tiles: Centroids in tiles.
        precision: Precision of the factors of products, which are added up in float32.
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
    """Returns the best two of rows ``[b, d]`` before any centroid is compared."""
    # Made from the rows, so that it varies over devices as they do.
    nothing = rows[:, 0].astype(jnp.float32) * 0
    return Top2(nothing.astype(jnp.int32), nothing + jnp.inf, nothing + jnp.inf)


def top2_of_tile(
    rows: jax.Array,
    centroids: jax.Array,
    half_norms: jax.Array,
    positions: jax.Array,
    best: Top2,
    precision: Precision,
) -> tuple[Top2, jax.Array]:
    """Returns the best two centroids of each row after one more tile, and the scores of the tile.

    Args:
        rows: Rows ``[b, d]`` of type ``precision``.
        centroids: Centroids of the tile, float32 ``[w, d]``.
        half_norms: Half their squared norms, float32 ``[w]``; infinite for padding.
        positions: Their indices, int32 ``[w]``, above those of earlier tiles.
        best: Best two centroids of the earlier tiles.
        precision: Precision of the factors of products.

    Returns:
        The best two centroids, and the scores, float32 ``[w, b]``.
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
    # The minimum along the first axis, and its position in a second pass: XLA's CPU backend
    # vectorizes both, but not argmin, which takes four times as long.
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
    """Returns :func:`best_two` for rows ``[n, d]``, block by block."""
    blocks = jax.lax.map(
        lambda rows: best_two(rows, tiles, precision), x.reshape(-1, block, x.shape[1])
    )
    return jax.tree.map(lambda a: a.reshape(-1), blocks)
