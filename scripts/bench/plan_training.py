"""Compiles the training step of a configuration for TPU slices, without a TPU, and prints its cost.

    pip install libtpu
    python scripts/bench/plan_training.py --topologies=v5e:4x4,v6e:2x4 \\
        --configs=configs/published/imagenet_dino_vits16.py

For each slice: bytes on a chip (state and batch; temporaries) as the TPU compiler reports them, the
time for which a step occupies the matrix units, the time to move the data that the compiler counts,
and the fraction of the roofline that the matrix units reach, which is 1 if they and not the memory
are the limit. `days` is that of all steps if each takes the larger of the two times: no run is
faster, and waiting for data and for other chips is not counted.
"""

import os

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import importlib.util
import math
import re
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcurate.config import Config
from jaxcurate.dataclass_fields import to_dataclass
from jaxcurate.runtime.devices import AXIS
from jaxcurate.training import PretrainConfig, loop, sharding
from jaxcurate.training.grain_input import CropInput

CHIPS = {
    "v5e": (197e12, 16e9, 0.82e12),
    "v5p": (459e12, 95e9, 2.77e12),
    "v6e": (918e12, 32e9, 1.64e12),
}
"""Peak rate in bfloat16 FLOP/s, memory in bytes and its bandwidth in bytes a second of a chip, from
the pages of the vendor."""
COLLECTIVES = r"= \(?(.*?)\)? (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
SIZES = {"bf16": 2, "f32": 4, "s32": 4, "u32": 4, "u8": 1, "pred": 1}


class PlannedCrops:
    """Input whose crops exist in shape only, with the views of :class:`CropInput`."""

    constants = ()
    views = CropInput.views

    def __init__(self, settings: PretrainConfig) -> None:
        self._crops = settings.objective.chosen.crops(settings.model)

    def shapes(self, batch_size: int) -> tuple[tuple[int, ...], ...]:
        """Returns the shape of each group of crops, uint8."""
        return tuple((batch_size, c.n, c.size, c.size, 3) for c in self._crops)


class Plan(NamedTuple):
    """Report of the compiler on a training step, for one chip."""

    arguments: int
    """Size of state and batch in bytes."""
    temporaries: int
    """Size of the temporaries in bytes."""
    flops: float
    """Number of operations that the compiler counts."""
    moved: float
    """Number of bytes that the compiler counts as read and written."""
    collectives: Counter
    """Number of collectives of each kind."""
    exchanged: Counter
    """Bytes of the results of collectives of each kind."""


def settings_of(path: str | Path) -> PretrainConfig:
    """Returns the settings of pretraining in a configuration file."""
    spec = importlib.util.spec_from_file_location("planned", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return to_dataclass(Config, module.get_config(), "config").evaluate.pretraining


def mesh_of(slice_: str) -> Mesh:
    """Returns the mesh of a slice such as ``v5e:4x4``, which need not be present."""
    from jax.experimental import topologies

    chips = topologies.get_topology_desc(platform="tpu", topology_name=slice_).devices
    axis_types = (jax.sharding.AxisType.Auto,)
    return Mesh(np.asarray(chips), (AXIS,), axis_types=axis_types)


def compiled(settings: PretrainConfig, mesh: Mesh) -> Plan:
    """Compiles the step of one large run for all chips of a mesh."""
    data = PlannedCrops(settings)
    state = jax.eval_shape(partial(loop.start, settings=settings), np.uint32(0))
    shardings = sharding.state_shardings(state, mesh, settings.shard_bytes)
    rows, same = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())
    like = lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
    arrays = tuple(
        jax.ShapeDtypeStruct(shape, np.uint8, sharding=rows)
        for shape in data.shapes(settings.batch_size)
    )
    step = jax.jit(loop.make_step(settings, data, mesh, shardings), donate_argnums=0)
    made = step.lower(
        jax.tree.map(like, state, shardings),
        (),
        arrays,
        jax.ShapeDtypeStruct((settings.batch_size,), np.int32, sharding=rows),
        jax.ShapeDtypeStruct((), np.uint32, sharding=same),
        jax.ShapeDtypeStruct((), np.int32, sharding=same),
    ).compile()
    memory, cost, text = made.memory_analysis(), made.cost_analysis(), made.as_text()
    assert cost is not None and memory is not None and text is not None
    number: Counter[str] = Counter()
    exchanged: Counter[str] = Counter()
    for results, kind in re.findall(COLLECTIVES + r"(?:-start)?\(", text):
        number[kind] += 1
        exchanged[kind] += sum(
            SIZES.get(name, 4) * math.prod(int(side) for side in shape.split(",") if side)
            for name, shape in re.findall(r"(\w+)\[([\d,]*)\]", results)
        )
    return Plan(
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        cost["flops"],
        cost["bytes accessed"],
        number,
        exchanged,
    )


SLICES = flags.DEFINE_list("topologies", ["v5e:4x4", "v6e:2x4"], "Slices to plan for.")
CONFIGS = flags.DEFINE_list("configs", [], "Configuration files.")


def main(argv: list[str]) -> None:
    del argv
    print(
        f"{'slice':8} {'chips':>5} {'configuration':24} {'state GB':>8} {'temp GB':>8} "
        f"{'of memory':>9} {'ms matrix':>9} {'ms memory':>9} {'roofline':>8} {'days':>6}  "
        "collectives"
    )
    for path in CONFIGS.value:
        settings = settings_of(path)
        for slice_ in SLICES.value:
            begin, mesh = time.perf_counter(), mesh_of(slice_)
            plan = compiled(settings, mesh)
            peak, size, bandwidth = CHIPS[slice_.split(":")[0]]
            matrix, memory = plan.flops / peak, plan.moved / bandwidth
            days = max(matrix, memory) * settings.n_steps / 86400
            exchanged = ", ".join(
                f"{n} {kind} {plan.exchanged[kind] / 1e6:.0f} MB"
                for kind, n in plan.collectives.items()
            )
            print(
                f"{slice_:8} {mesh.size:5} {Path(path).stem:24} {plan.arguments / 1e9:8.2f} "
                f"{plan.temporaries / 1e9:8.2f} {(plan.arguments + plan.temporaries) / size:9.2f} "
                f"{matrix * 1e3:9.1f} {memory * 1e3:9.1f} {matrix / max(matrix, memory):8.2f} "
                f"{days:6.2f}  {exchanged} (compiled in {time.perf_counter() - begin:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
