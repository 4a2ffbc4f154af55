r"""The best two centroids of each row in one kernel for Hopper GPUs, in bfloat16.

As in :mod:`jaxcurate.kmeans.kernels.tpu`, scores never leave the chip. A block of CUDA threads has
128 rows and walks all centroids, 256 at a time. One warpgroup fetches: parts of the rows and of the
centroids, 64 columns wide, in a ring of stages, for not even 128 rows of 1024 numbers fit in the
shared memory. Two warpgroups multiply, each its 64 rows with all 256 centroids, and compare the
scores while these still lie in the registers of the accumulator.

To compare costs as much care as to multiply, since minima run at a 32nd of the tensor cores'
multiply-adds. So nothing is reduced along a row until the end. Of the centroids that share their
number modulo 16 the best two are kept, by five operations a score, and the 16 best twos of a row
become one when all centroids have passed.

What it can reach, by hand and not measured, on an H100 with :math:`d` columns: a tile takes
:math:`16 d` cycles of products (4096 FLOP a cycle and multiprocessor) and
:math:`128 \cdot 256 \cdot 5 / 64 = 2560` of comparisons (64 results a cycle; the subtractions run
beside them). One warpgroup may compare while the other multiplies, but nothing makes it so. With
:math:`d = 1024` that is 86 % of the peak without any overlap; but then 49 KiB for every 1024
cycles of products, 12 TB/s over all multiprocessors, would have to come from the second-level
cache, which is the closer bound. With :math:`d = 128` comparisons take longer than products: 44 %
without overlap, 80 % with all of it, before the rows are rounded.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxcurate.kmeans.kernels.scores import Tiles, Top2

_GROUPS = 2
"""Warpgroups that multiply; one more fetches."""
_ROWS = 64
"""Rows of a warpgroup, those of one instruction."""
_WIDTH = 256
"""Centroids to a tile, the most that one instruction takes; 128 registers a thread of scores."""
_DEPTH = 64
"""Columns to a stage: 128 bytes, what the shared memory swizzles."""
_STAGES = 4
"""Stages of the ring, of 49 KiB each."""
_CLASSES = 16
"""Classes of centroids whose best two are kept: 24 registers a thread."""
_FETCHING, _MULTIPLYING = 40, 232
"""Registers to a thread; 65,536 are there for all."""
_PIECE = 2**30
"""Numbers of rows that are rounded at a time, which takes memory for so many in bfloat16."""

_BLOCK = _GROUPS * _ROWS


def top2_on_hopper(x: jax.Array, tiles: Tiles) -> Top2:
    """Works as :func:`jaxcurate.kmeans.kernels.scores.best_two` in bfloat16, for rows ``[n, d]`` in
    any number.

    Args:
        x: float32 ``[n, d]``.
        tiles: of centroids; they are cut anew.
    """
    (n, d), k = x.shape, tiles.half_norms.size
    pad = lambda a, *fill, **options: jnp.pad(a, [(0, f) for f in fill], **options)
    centroids = tiles.centroids.reshape(k, d).astype(jnp.bfloat16).T
    centroids = pad(centroids, -d % _DEPTH, -k % _WIDTH)
    half_norms = pad(tiles.half_norms.reshape(k), -k % _WIDTH, constant_values=jnp.inf)
    n_used = -(-jnp.int32(tiles.n_used * tiles.half_norms.shape[1]) // _WIDTH).reshape(1)

    def best_of(rows: jax.Array) -> tuple[jax.Array, ...]:
        rows = pad(rows.astype(jnp.bfloat16), -len(rows) % _BLOCK, -d % _DEPTH)
        return tuple(_launched(n_used, rows, centroids, half_norms))

    size = max(_BLOCK, _PIECE // d // _BLOCK * _BLOCK)
    if n <= size:
        found = [part[:n] for part in best_of(x)]
    else:
        # The last piece begins where it has as many rows as the others; some come twice.
        begins = jnp.minimum(jnp.arange(-(-n // size)) * size, n - size)
        parts = jax.lax.map(
            lambda begin: best_of(jax.lax.dynamic_slice_in_dim(x, begin, size)), begins
        )
        rest = n - (len(begins) - 1) * size
        found = [jnp.concatenate([p[:-1].reshape(-1), p[-1, size - rest :]]) for p in parts]
    places, scores, others = found
    return Top2(tiles.positions.reshape(-1)[places], scores, others)


def _launched(
    n_used: jax.Array, rows: jax.Array, centroids: jax.Array, half_norms: jax.Array
) -> list[jax.Array]:
    """Returns the kernel over all blocks of rows ``[m, d]``, with centroids ``[d, k]``."""
    m, d = rows.shape
    swizzled = plgpu.TilingTransform((8, _DEPTH)), plgpu.SwizzleTransform(128)
    return plgpu.kernel(
        functools.partial(_kernel, steps=d // _DEPTH),
        out_type=[jax.ShapeDtypeStruct((m,), t) for t in ("int32", "float32", "float32")],
        grid=(m // _BLOCK,),
        grid_names=("block",),
        num_threads=_GROUPS + 1,
        thread_name="group",
        scratch_types=[
            plgpu.SMEM((_STAGES, _BLOCK, _DEPTH), jnp.bfloat16, transforms=swizzled),
            plgpu.SMEM((_STAGES, _DEPTH, _WIDTH), jnp.bfloat16, transforms=swizzled),
            plgpu.SMEM((_STAGES, _WIDTH), jnp.float32),
            plgpu.Barrier(num_arrivals=3, num_barriers=_STAGES),  # one for each copy
            plgpu.Barrier(num_arrivals=_GROUPS, num_barriers=_STAGES),
        ],
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
    )(n_used, rows, centroids, half_norms)


def _kernel(
    n_used: Any,
    rows: Any,
    centroids: Any,
    half_norms: Any,
    places: Any,
    scores: Any,
    others: Any,
    row_parts: Any,
    centroid_parts: Any,
    norm_parts: Any,
    filled: Any,
    free: Any,
    *,
    steps: int,
) -> None:
    """Does the work of a warpgroup; ``steps`` stages make a tile. All arguments are references."""
    group = jax.lax.axis_index("group")
    begin = jax.lax.axis_index("block") * _BLOCK
    n_tiles = n_used[0]
    n_steps = n_tiles * steps
    stage_of = lambda i: jax.lax.rem(i, _STAGES)

    @pl.when(group == _GROUPS)
    def _() -> None:
        plgpu.set_max_registers(_FETCHING, action="decrease")

        @pl.loop(0, n_steps)
        def _(i: jax.Array) -> None:
            stage = stage_of(i)

            @pl.when(i >= _STAGES)
            def _() -> None:
                plgpu.barrier_wait(free.at[stage])

            depth = pl.ds(jax.lax.rem(i, steps) * _DEPTH, _DEPTH)
            width = pl.ds(jax.lax.div(i, steps) * _WIDTH, _WIDTH)
            # Half the norms come with every stage, though only the last of a tile needs them:
            # a 49th of what is read, and no further barrier.
            for source, target in (
                (rows.at[pl.ds(begin, _BLOCK), depth], row_parts),
                (centroids.at[depth, width], centroid_parts),
                (half_norms.at[width], norm_parts),
            ):
                plgpu.copy_gmem_to_smem(source, target.at[stage], filled.at[stage])

        # Every phase of a barrier is waited for, those of the last stages too.
        @pl.loop(jnp.maximum(n_steps - _STAGES, 0), n_steps)
        def _(i: jax.Array) -> None:
            plgpu.barrier_wait(free.at[stage_of(i)])

    @pl.when(group < _GROUPS)
    def _() -> None:
        plgpu.set_max_registers(_MULTIPLYING, action="increase")
        own = pl.ds(group * _ROWS, _ROWS)

        def products_of(tile: jax.Array) -> jax.Array:
            def added_up(accumulator: Any) -> jax.Array:
                @pl.loop(0, steps)
                def _(step: jax.Array) -> None:
                    i = tile * steps + step
                    stage = stage_of(i)
                    plgpu.barrier_wait(filled.at[stage])
                    plgpu.wgmma(accumulator, row_parts.at[stage, own], centroid_parts.at[stage])
                    plgpu.wgmma_wait(1)  # so the stage before is done with

                    @pl.when(step > 0)
                    def _() -> None:
                        plgpu.barrier_arrive(free.at[stage_of(i - 1)])

                return accumulator[...]

            return pl.run_scoped(added_up, plgpu.ACC((_ROWS, _WIDTH), jnp.float32))  # pyright: ignore[reportPrivateImportUsage]

        def one_tile(tile: jax.Array, best: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            products = products_of(tile)
            stage = stage_of(tile * steps + steps - 1)
            norms = norm_parts[stage]
            rounds, least, second = best
            for j in range(_WIDTH // _CLASSES):
                part = slice(j * _CLASSES, (j + 1) * _CLASSES)
                new = _along(norms[part], 1) - products[:, part]
                # Only a lower score is better: of equal ones the first has come before.
                rounds = jnp.where(new < least, tile * (_WIDTH // _CLASSES) + j, rounds)
                second = jnp.minimum(second, jnp.maximum(least, new))
                least = jnp.minimum(least, new)
            plgpu.commit_smem()  # or the next copy might overtake the reading of the norms
            plgpu.barrier_arrive(free.at[stage])
            return rounds, least, second

        nothing = jnp.full((_ROWS, _CLASSES), jnp.inf, jnp.float32)
        start = jnp.zeros((_ROWS, _CLASSES), jnp.int32), nothing, nothing
        rounds, least, second = jax.lax.fori_loop(0, n_tiles, one_tile, start)
        numbers = rounds * _CLASSES + jax.lax.broadcasted_iota(jnp.int32, rounds.shape, 1)
        lowest = jnp.min(least, axis=1)
        candidates = jnp.where(least <= _along(lowest, 0), numbers, jnp.iinfo(jnp.int32).max)
        first = jnp.min(candidates, axis=1)
        mine = pl.ds(begin + group * _ROWS, _ROWS)
        places[mine] = first
        scores[mine] = lowest
        others[mine] = jnp.min(jnp.where(numbers == _along(first, 0), second, least), axis=1)


def _along(line: jax.Array, axis: int) -> jax.Array:
    """Returns a value for each row (axis 0) or each class (axis 1), for all of the other."""
    return jax.lax.broadcast_in_dim(line, (_ROWS, _CLASSES), (axis,))
