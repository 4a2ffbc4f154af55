r"""Kernel for Hopper GPUs for the best two centroids of each row, in bfloat16.

As in :mod:`jaxcurate.kmeans.kernels.tpu`, scores never leave the chip. A block of CUDA threads has
128 rows and walks over all centroids in tiles of 256. One warpgroup copies rows and centroids to
the shared memory, 64 columns at a time, in a ring of stages, since not even 128 rows of 1024
columns fit in the shared memory. Two warpgroups multiply, each its 64 rows with the 256 centroids
of a tile, and compare the scores while these are still in the registers of the accumulator.

Comparisons need as much care as products, since a GPU takes minima at 1/32 of the rate at which its
tensor cores multiply and add. Therefore no reduction along a row happens before the end. Centroids
with the same number modulo 16 form a class; the kernel keeps the best two of each of the 16
classes, with five operations for each score, and reduces them to the best two of the row when all
centroids have passed.

An estimate of the speed, by hand and not measured, on an H100 with :math:`d` columns: a tile takes
:math:`16 d` cycles for products (4096 FLOP in a cycle of a multiprocessor) and
:math:`128 \cdot 256 \cdot 5 / 64 = 2560` cycles for comparisons (64 results in a cycle; the
subtractions run beside them). One warpgroup may compare while the other multiplies, but nothing
enforces it. With :math:`d = 1024` that gives 86 % of the peak without any overlap; but then 49 KiB
for every 1024 cycles of products, 12 TB/s over all multiprocessors, would have to come from the
second-level cache, which is the tighter bound. With :math:`d = 128` comparisons take longer than
products: 44 % of the peak without overlap and 80 % with complete overlap, apart from the time for
rounding the rows.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxcurate.kmeans.kernels.scores import Tiles, Top2

_GROUPS = 2
"""Number of warpgroups that multiply; one more copies."""
_ROWS = 64
"""Number of rows of a warpgroup, which one instruction multiplies."""
_WIDTH = 256
"""Number of centroids in a tile, the most of an instruction: 128 registers a thread for scores."""
_DEPTH = 64
"""Number of columns in a stage: 128 bytes, the width by which the shared memory is swizzled."""
_STAGES = 4
"""Number of stages in the ring, of 49 KiB each."""
_CLASSES = 16
"""Number of classes of centroids; their best two take 24 registers a thread."""
_FETCHING, _MULTIPLYING = 40, 232
"""Registers of a thread that copies or multiplies; a multiprocessor has 65,536."""
_ROUNDED_AT_ONCE = 2**30
"""Largest number of elements of rows that are rounded at a time, which takes 2 bytes for each."""

_BLOCK = _GROUPS * _ROWS


def top2_on_hopper(x: jax.Array, tiles: Tiles) -> Top2:
    """Returns :func:`jaxcurate.kmeans.kernels.scores.best_two` in bfloat16, for any number of rows.

    Args:
        x: float32 ``[n, d]``.
        tiles: Centroids in tiles; the kernel cuts its own.
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

    size = max(_BLOCK, _ROUNDED_AT_ONCE // d // _BLOCK * _BLOCK)
    if n <= size:
        results = [part[:n] for part in best_of(x)]
    else:
        # All parts have the same size, so that the last one may repeat rows of the one before.
        begins = jnp.minimum(jnp.arange(-(-n // size)) * size, n - size)
        parts = jax.lax.map(
            lambda begin: best_of(jax.lax.dynamic_slice_in_dim(x, begin, size)), begins
        )
        rest = n - (len(begins) - 1) * size
        results = [jnp.concatenate([p[:-1].reshape(-1), p[-1, size - rest :]]) for p in parts]
    places, scores, others = results
    return Top2(tiles.positions.reshape(-1)[places], scores, others)


def _launched(
    n_used: jax.Array, rows: jax.Array, centroids: jax.Array, half_norms: jax.Array
) -> list[jax.Array]:
    """Returns the results of the kernel for rows ``[m, d]`` and centroids ``[d, k]``.

    They are the number of the best centroid, its score, and the second lowest score of each row.
    """
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
            plgpu.Barrier(num_arrivals=3, num_barriers=_STAGES),  # 3 copies in a stage
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
    """Runs the work of a warpgroup, given references; a tile consists of ``steps`` stages."""
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
            # Every stage copies half the norms, though only the last stage of a tile needs them.
            # This adds 1/49 to the bytes that are read, and saves a barrier.
            for source, target in (
                (rows.at[pl.ds(begin, _BLOCK), depth], row_parts),
                (centroids.at[depth, width], centroid_parts),
                (half_norms.at[width], norm_parts),
            ):
                plgpu.copy_gmem_to_smem(source, target.at[stage], filled.at[stage])

        # Every phase of a barrier has to be waited for, also the phases of the last stages.
        @pl.loop(jnp.maximum(n_steps - _STAGES, 0), n_steps)
        def _(i: jax.Array) -> None:
            plgpu.barrier_wait(free.at[stage_of(i)])

    @pl.when(group < _GROUPS)
    def _() -> None:
        plgpu.set_max_registers(_MULTIPLYING, action="increase")
        group_rows = pl.ds(group * _ROWS, _ROWS)

        def products_of(tile: jax.Array) -> jax.Array:
            def added_up(accumulator: Any) -> jax.Array:
                @pl.loop(0, steps)
                def _(step: jax.Array) -> None:
                    i = tile * steps + step
                    stage = stage_of(i)
                    plgpu.barrier_wait(filled.at[stage])
                    row_part = row_parts.at[stage, group_rows]
                    plgpu.wgmma(accumulator, row_part, centroid_parts.at[stage])
                    plgpu.wgmma_wait(1)  # so that the stage before can be filled again

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
                # Only a lower score replaces the best, so that the first of equal scores is kept.
                rounds = jnp.where(new < least, tile * (_WIDTH // _CLASSES) + j, rounds)
                second = jnp.minimum(second, jnp.maximum(least, new))
                least = jnp.minimum(least, new)
            plgpu.commit_smem()  # or the next copy could overwrite norms before they are read
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
    """Returns ``[rows, classes]`` from a value for each row (axis 0) or each class (axis 1)."""
    return jax.lax.broadcast_in_dim(line, (_ROWS, _CLASSES), (axis,))
