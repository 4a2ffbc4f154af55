"""Compiles the k-means kernels for TPU slices, without a TPU, and prints their cost.

    pip install libtpu && python scripts/bench/plan_tpu.py           # 10 M x 1024 to 100 k clusters
    python scripts/bench/plan_tpu.py --slices=v5e:16x16,v5p:4x4x4 --rows=743000000
    python scripts/bench/plan_tpu.py --kernels=ring --slices=v5p:4x4x4 --rows=743000000 \\
        --clusters=10000000

For each slice: bytes on a chip (rows and centroids; temporaries) as the TPU compiler reports
them, the time for which an assignment of all rows to all centroids occupies the matrix units, the
time to move the data that the fused kernel reads, and the fraction of the roofline that the matrix
units reach, which is 1 if they and not the memory are the limit.
"""

import os

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import functools
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding

from jaxcurate.kmeans import predict, splitting, streaming
from jaxcurate.kmeans.assignment.pruned import PRUNING_SPECS
from jaxcurate.kmeans.kernels.scores import Top2
from jaxcurate.kmeans.kernels.tpu import block_side
from jaxcurate.kmeans.lloyd import (
    LLOYD_SPECS,
    assigned,
    lloyd_like,
    more_iterations,
    unassigned,
)
from jaxcurate.kmeans.seeding.plus_plus import SEEDS_SPECS, first_seed, more_seeds, seeds_like
from jaxcurate.kmeans.sharded import RING_SPECS, ring_lloyd
from jaxcurate.neighbors.close_pairs import _reaching
from jaxcurate.neighbors.nearest_rows import _best
from jaxcurate.runtime.devices import AXIS, ROWS, SAME, Devices, padded_size

PEAK = {"v5e": 197e12, "v5p": 459e12, "v6e": 918e12}
"""Peak rate of a chip in bfloat16 FLOP/s, from the pages of the vendor."""
MEMORY = {"v5e": 16e9, "v5p": 95e9, "v6e": 32e9}
"""Memory of a chip in bytes."""
BANDWIDTH = {"v5e": 0.82e12, "v5p": 2.77e12, "v6e": 1.64e12}
"""Memory bandwidth of a chip in bytes per second."""
PASSES = {"float32": 6, "bfloat16": 1}
"""Number of bfloat16 products in one product at this precision."""
BLOCK = 4096
BEST = Top2(ROWS, ROWS, ROWS)


class Kernel(NamedTuple):
    """Kernel, with a spec and a shape for each argument."""

    function: Callable[..., Any]
    arguments: tuple[tuple[Any, Any], ...]
    out: Any
    static: dict[str, Any]


class Compiled(NamedTuple):
    """Report of the compiler on a kernel, for one chip."""

    arguments: int
    """Size of the arguments in bytes."""
    temporaries: int
    """Size of the temporaries in bytes."""
    collectives: Counter
    """Number of instructions of each kind."""


def kernels(n: int, d: int, k: int, shards: int = 1) -> dict[str, Kernel]:
    """Returns kernels by name, for rows ``[n, d]`` and ``k`` clusters on `shards` chips."""
    shape = lambda *sizes, dtype="float32": jax.ShapeDtypeStruct(sizes, dtype)
    x, weights, numbers = shape(n, d), shape(n), shape(n, dtype="int32")
    centroids, some = shape(k, d), shape(16, d)
    key = jax.eval_shape(lambda: jax.random.key(0))
    rows, stop = ((ROWS, x), (ROWS, weights)), (SAME, shape(dtype="int32"))
    best = (BEST, Top2(numbers, weights, weights))
    near = (PRUNING_SPECS, lloyd_like(n, d, k, 50, BLOCK, shards).bounds)
    clusters, counts = (SAME, centroids), (SAME, shape(k, dtype="int32"))
    tiles = shape(64 * 8, 256, d)
    block = dict(block=BLOCK)
    return {
        "iterations": Kernel(
            more_iterations,
            (*rows, (LLOYD_SPECS, lloyd_like(n, d, k, 50, BLOCK, shards)), stop),
            LLOYD_SPECS,
            block,
        ),
        "begin": Kernel(unassigned, ((ROWS, x), clusters), LLOYD_SPECS, block | dict(max_iter=50)),
        "assigned": Kernel(assigned, ((ROWS, x), clusters), (ROWS, ROWS), block),
        "ring": Kernel(
            ring_lloyd, (*rows, (ROWS, centroids)), RING_SPECS, block | dict(max_iter=50)
        ),
        "first seed": Kernel(
            first_seed, (*rows, (SAME, key)), SEEDS_SPECS, block | dict(n_clusters=k)
        ),
        "seeds": Kernel(
            more_seeds,
            (*rows, (SAME, key), (SEEDS_SPECS, seeds_like(n, d, k)), stop),
            SEEDS_SPECS,
            block,
        ),
        "streamed": Kernel(
            streaming._assign_and_sum,
            (*rows, clusters, clusters, best, near, (SAME, shape(dtype="int32"))),
            (ROWS, PRUNING_SPECS, SAME, SAME, SAME, SAME),
            block | dict(precision="float32"),
        ),
        "streamed seeds": Kernel(
            streaming._improve, (*rows, (ROWS, weights), (SAME, some)), (ROWS, ROWS), block
        ),
        "parts": Kernel(
            predict._nearest_part,
            ((ROWS, x), clusters, counts, counts, (SAME, shape(4 * k, d))),
            (ROWS, ROWS),
            block | dict(most=4),
        ),
        "nearest rows": Kernel(
            _best,
            (*rows, (SAME, shape(64, d))),
            (ROWS, ROWS),
            block | dict(n_best=8, with_norms=True),
        ),
        "pairs": Kernel(
            _reaching, ((ROWS, tiles), (ROWS, tiles), (SAME, shape())), (ROWS, ROWS), {}
        ),
        "splits": Kernel(
            _splits, ((SAME, shape(64, 1024, d)), (SAME, shape(64, 1024)), (SAME, key)), SAME, {}
        ),
    }


def _splits(xs: jax.Array, weights: jax.Array, key: jax.Array, *, axis_name: str | None) -> Any:
    """Runs the same splits on every device; in a fit each device runs its own."""
    del axis_name
    run = functools.partial(splitting._fit_stack, n_splits=100, max_iter=50, unit=False)
    return run(xs, weights, jnp.arange(len(xs)), key)


def devices_of(slice_: str) -> Devices:
    """Returns the devices of a slice such as ``v5e:2x4``, which need not be present."""
    chips = topologies.get_topology_desc(platform="tpu", topology_name=slice_).devices
    return Devices(Mesh(np.asarray(chips), (AXIS,), axis_types=(AxisType.Auto,)))


def compiled(devices: Devices, kernel: Kernel, **static: Any) -> Compiled:
    """Compiles a kernel for all of ``devices``."""

    def placed(spec: Any, shapes: Any) -> Any:
        is_spec = lambda leaf: isinstance(leaf, jax.sharding.PartitionSpec)
        one = lambda s, part: jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(
                a.shape, a.dtype, sharding=NamedSharding(devices.mesh, s)
            ),
            part,
        )
        return jax.tree.map(one, spec, shapes, is_leaf=is_spec)

    specs = tuple(spec for spec, _ in kernel.arguments)
    mapped = devices.spmd(kernel.function, specs, kernel.out, **(kernel.static | static))
    lowered = mapped.lower(*(placed(*argument) for argument in kernel.arguments))
    memory = lowered.compile().memory_analysis()
    # Under shard_map the compiler adds no collectives to those of the kernel.
    kinds = re.findall(
        r"stablehlo\.(all_reduce|all_gather|all_to_all|collective_permute|reduce_scatter)\b",
        lowered.as_text(),
    )
    return Compiled(memory.argument_size_in_bytes, memory.temp_size_in_bytes, Counter(kinds))


SLICES = flags.DEFINE_list("slices", ["v5e:2x4", "v6e:2x4"], "Slices to plan for.")
KERNELS = flags.DEFINE_list("kernels", ["iterations"], "Kernels to compile.")
ROWS_ = flags.DEFINE_integer("rows", 10_000_000, "n")
COLUMNS = flags.DEFINE_integer("columns", 1024, "d")
CLUSTERS = flags.DEFINE_integer("clusters", 100_000, "k")


def main(argv: list[str]) -> None:
    del argv
    n, d, k = ROWS_.value, COLUMNS.value, CLUSTERS.value
    print(f"n={n} d={d} k={k}")
    print(
        f"{'slice':10} {'chips':>5} {'kernel':10} {'precision':9} {'rows GB':>8} {'temp GB':>8} "
        f"{'of memory':>9} {'s matrix':>8} {'s memory':>8} {'roofline':>8}  collectives"
    )
    for slice_ in SLICES.value:
        devices, kind = devices_of(slice_), slice_.split(":")[0]
        padded = padded_size(n, devices.count * BLOCK)
        made = kernels(padded, d, padded_size(k, devices.count), devices.count)
        for name in KERNELS.value:
            for precision in ("float32", "bfloat16"):
                found = compiled(devices, made[name], precision=precision)
                share = (found.arguments + found.temporaries) / MEMORY[kind]
                matrix = 2 * n * d * k * PASSES[precision] / (PEAK[kind] * devices.count)
                a_chip, size = padded / devices.count, {"float32": 4, "bfloat16": 2}[precision]
                moved = a_chip * d * 4 + a_chip / block_side(d) * k * d * size
                memory = moved / BANDWIDTH[kind]
                print(
                    f"{slice_:10} {devices.count:5} {name:10} {precision:9} "
                    f"{found.arguments / 1e9:8.2f} {found.temporaries / 1e9:8.2f} {share:9.2f} "
                    f"{matrix:8.2f} {memory:8.2f} {matrix / max(matrix, memory):8.2f}  "
                    f"{dict(found.collectives)}",
                    flush=True,
                )


if __name__ == "__main__":
    app.run(main)
