"""Compiles the k-means kernels for TPU slices, without a TPU, and prints what they will take.

    pip install libtpu && python scripts/plan_tpu.py
    python scripts/plan_tpu.py --slices=v5e:2x4 --rows=10000000 --columns=1024 --clusters=100000

For each slice: bytes on a chip (rows, centroids, temporaries) as the TPU compiler reports them,
and how long one full pass of distances takes where the matrix units are the limit.
"""

import os

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import re
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding

from jaxcurate import parallel
from jaxcurate.kmeans.lloyd import LLOYD_SPECS, assigned, lloyd
from jaxcurate.kmeans.seeding import greedy_kmeans_plus_plus
from jaxcurate.parallel import ROWS, SAME

PEAK = {"v5e": 197e12, "v5p": 459e12, "v6e": 918e12}
"""bfloat16 FLOP/s of a chip, from the vendor's pages."""
MEMORY = {"v5e": 16e9, "v5p": 95e9, "v6e": 32e9}
"""Bytes of memory of a chip."""
PASSES = {"float32": 6, "bfloat16": 1}
"""bfloat16 products that one product at this precision is made of."""
BLOCK = 4096


class Compiled(NamedTuple):
    """What the compiler says of a kernel, for one chip."""

    arguments: int
    """Bytes."""
    temporaries: int
    """Bytes."""
    collectives: Counter
    """How many instructions of each kind."""


def mesh_of(slice_: str) -> Mesh:
    """A mesh over a slice such as ``v5e:2x4`` that need not be there."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=slice_).devices
    return Mesh(np.asarray(devices), (parallel.AXIS,), axis_types=(AxisType.Auto,))


def compiled(mesh: Mesh, kernel: str, n: int, d: int, k: int, **static: Any) -> Compiled:
    """Compiles ``"lloyd"``, ``"assigned"`` or ``"seeding"`` for ``n`` rows on all of ``mesh``."""
    n = parallel.padded_size(n, mesh.size * BLOCK)

    def shape(spec: jax.sharding.PartitionSpec, *sizes: int, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=NamedSharding(mesh, spec))

    x, weights, centroids = shape(ROWS, n, d), shape(ROWS, n), shape(SAME, k, d)
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=NamedSharding(mesh, SAME))
    function, specs, out, arguments = {
        "lloyd": (lloyd, (ROWS, ROWS, SAME), LLOYD_SPECS, (x, weights, centroids)),
        "assigned": (assigned, (ROWS, SAME), (ROWS, ROWS), (x, centroids)),
        "seeding": (greedy_kmeans_plus_plus, (ROWS, ROWS, SAME), SAME, (x, weights, key)),
    }[kernel]
    if kernel == "seeding":
        static["n_clusters"] = k
    if kernel == "lloyd":
        static.setdefault("max_iter", 50)
    mapped = parallel.spmd(function, mesh, specs, out, block=BLOCK, **static)
    lowered = mapped.lower(*arguments)
    memory = lowered.compile().memory_analysis()
    # Under shard_map the compiler adds none to those that the kernel asks for.
    kinds = re.findall(
        r"stablehlo\.(all_reduce|all_gather|all_to_all|collective_permute|reduce_scatter)\b",
        lowered.as_text(),
    )
    return Compiled(memory.argument_size_in_bytes, memory.temp_size_in_bytes, Counter(kinds))


SLICES = flags.DEFINE_list("slices", ["v5e:2x4", "v6e:2x4"], "Slices to plan for.")
ROWS_ = flags.DEFINE_integer("rows", 10_000_000, "n")
COLUMNS = flags.DEFINE_integer("columns", 1024, "d")
CLUSTERS = flags.DEFINE_integer("clusters", 100_000, "k")


def main(argv: list[str]) -> None:
    del argv
    n, d, k = ROWS_.value, COLUMNS.value, CLUSTERS.value
    print(f"n={n} d={d} k={k}")
    print(f"{'slice':10} {'chips':>5} {'precision':10} {'rows GB':>8} {'temp GB':>8} "
          f"{'of memory':>9} {'s a pass':>8}  collectives")  # fmt: skip
    for slice_ in SLICES.value:
        mesh, kind = mesh_of(slice_), slice_.split(":")[0]
        for precision in ("float32", "bfloat16"):
            made = compiled(mesh, "lloyd", n, d, k, precision=precision)
            share = (made.arguments + made.temporaries) / MEMORY[kind]
            seconds = 2 * n * d * k * PASSES[precision] / (PEAK[kind] * mesh.size)
            print(
                f"{slice_:10} {mesh.size:5} {precision:10} {made.arguments / 1e9:8.2f} "
                f"{made.temporaries / 1e9:8.2f} {share:9.2f} {seconds:8.1f}  "
                f"{dict(made.collectives)}",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
