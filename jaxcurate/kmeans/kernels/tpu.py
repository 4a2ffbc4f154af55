"""TPU kernel for the best two centroids of each row, whose scores never leave fast memory.

XLA writes the scores of a block to the main memory and reads them again for each reduction, which
takes longer than the products in bfloat16. This kernel multiplies a block of rows with one tile of
centroids after another, and keeps only the best two centroids of each row so far.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxcurate.kmeans.kernels.scores import HIGHEST, Precision, Tiles, Top2

_LARGEST = 512, 2**21
"""Largest number of rows in a block or of centroids in a tile, and of their bytes."""
_LIMIT = 2**25
"""Bytes of fast memory to request, a quarter of the fast memory of a chip."""


def block_side(d: int) -> int:
    """Returns the number of rows in a block and of centroids in a tile, for ``d`` columns."""
    side, most = _LARGEST
    while side > 128 and 4 * side * d > most:
        side //= 2  # a power of two, which divides the number of rows in a block of XLA: no padding
    return side


def top2_fused(
    x: jax.Array, tiles: Tiles, *, precision: Precision = "float32", interpret: bool = False
) -> Top2:
    """Returns :func:`jaxcurate.kmeans.kernels.scores.best_two` for any number of rows.

    Args:
        x: float32 ``[n, d]``.
        tiles: Centroids in tiles; the kernel cuts its own.
        precision: Precision of the factors of products.
        interpret: If True, runs on any backend, slowly.
    """
    (n, d), k = x.shape, tiles.half_norms.size
    side = block_side(d)
    x = jnp.pad(x, ((0, -n % side), (0, 0)))
    centroids = jnp.pad(tiles.centroids.reshape(k, d), ((0, -k % side), (0, 0)))
    half_norms = jnp.pad(tiles.half_norms.reshape(k), (0, -k % side), constant_values=jnp.inf)
    n_used = -(-jnp.int32(tiles.n_used * tiles.half_norms.shape[1]) // side)
    # Steps beyond the tiles in use name the last of these again, which moves no data.
    tile = lambda i, j, n_used: jnp.maximum(jnp.minimum(j, n_used[0] - 1), 0)
    out = pl.BlockSpec((1, side), lambda i, j, n_used: (0, i))
    places, scores, others = pl.pallas_call(
        functools.partial(_kernel, side=side, precision=precision),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(len(x) // side, len(centroids) // side),
            in_specs=[
                pl.BlockSpec((side, d), lambda i, j, n_used: (i, 0)),
                pl.BlockSpec((side, d), lambda *indices: (tile(*indices), 0)),
                pl.BlockSpec((1, side), lambda *indices: (0, tile(*indices))),
            ],
            out_specs=[out, out, out],
            scratch_shapes=[pltpu.VMEM((side, d), jnp.dtype(precision))],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((1, len(x)), dtype) for dtype in ("int32", "float32", "float32")
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=_LIMIT
        ),
        interpret=interpret,
    )(n_used.reshape(1), x, centroids.astype(precision), half_norms[None, :])
    places, scores, others = places[0, :n], scores[0, :n], others[0, :n]
    return Top2(tiles.positions.reshape(-1)[places], scores, others)


def _kernel(
    n_used: jax.Array,
    rows: jax.Array,
    centroids: jax.Array,
    half_norms: jax.Array,
    places: jax.Array,
    scores: jax.Array,
    others: jax.Array,
    rounded: jax.Array,
    *,
    side: int,
    precision: Precision,
) -> None:
    j = pl.program_id(1)

    @pl.when(j == 0)
    def _() -> None:
        rounded[...] = rows[...].astype(precision)
        places[...] = jnp.zeros_like(places)
        scores[...] = jnp.full_like(scores, jnp.inf)
        others[...] = jnp.full_like(others, jnp.inf)

    @pl.when(j < n_used[0])
    def _() -> None:
        products = jax.lax.dot_general(
            centroids[...],
            rounded[...],
            (((1,), (1,)), ((), ())),
            precision=HIGHEST if precision == "float32" else None,
            preferred_element_type=jnp.float32,
        )
        new = half_norms[...].reshape(side, 1) - products
        numbers = jax.lax.broadcasted_iota(jnp.int32, new.shape, 0)
        least = jnp.min(new, axis=0, keepdims=True)
        first = jnp.min(jnp.where(new <= least, numbers, side - 1), axis=0, keepdims=True)
        second = jnp.min(jnp.where(numbers == first, jnp.inf, new), axis=0, keepdims=True)
        better = least < scores[...]
        others[...] = jnp.where(
            better, jnp.minimum(scores[...], second), jnp.minimum(others[...], least)
        )
        places[...] = jnp.where(better, j * side + first, places[...])
        scores[...] = jnp.where(better, least, scores[...])
