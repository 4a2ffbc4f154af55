"""Compilation for devices that need not be present, and what the compiler reports."""

import importlib.util
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from jaxcurate.checks import InputError
from jaxcurate.planning.kernels import Kernel
from jaxcurate.runtime.devices import AXIS, Devices

_STABLEHLO = r"stablehlo\.(all_reduce|all_gather|all_to_all|collective_permute|reduce_scatter)\b"
_HLO = r"= \(?(.*?)\)? (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
_SIZES = {"bf16": 2, "f32": 4, "s32": 4, "u32": 4, "u8": 1, "pred": 1}


class Compiled(NamedTuple):
    """Report of the compiler on a program, for one chip."""

    arguments: int
    """Size of the arguments in bytes."""
    temporaries: int
    """Size of the temporaries in bytes."""
    outputs: int
    """Size of the results in bytes, without those that take the place of arguments."""
    flops: float
    """Number of operations that the compiler counts, each loop once and no custom kernel."""
    moved: float
    """Number of bytes that the compiler counts as read and written, in the same way."""
    collectives: Counter[str]
    """Number of collectives of each kind."""
    exchanged: Counter[str]
    """Bytes of the results of collectives of each kind; empty if they are not told."""

    @property
    def peak(self) -> int:
        """Bytes on a chip while the program runs."""
        return self.arguments + self.temporaries + self.outputs

    @property
    def named(self) -> str:
        """Collectives in words."""
        return ", ".join(
            f"{count} {kind}" + f" {self.exchanged[kind] / 1e6:.0f} MB" * (kind in self.exchanged)
            for kind, count in sorted(self.collectives.items())
        )


def has_tpu_compiler() -> bool:
    """Returns whether the compiler of TPUs is installed, which is the package libtpu."""
    return importlib.util.find_spec("libtpu") is not None


def devices_of(topology: str) -> Devices:
    """Returns the devices of a slice such as ``v5e:2x4``, which need not be present.

    Raises:
        InputError: the package libtpu is missing or cannot be used.
    """
    if not has_tpu_compiler():
        raise InputError("the compiler of TPUs is needed and not installed: pip install libtpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or it asks for a TPU for minutes
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no chip is used
    from jax.experimental import topologies

    try:
        chips = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the compiler of TPUs cannot be used: {reason}") from error
    return Devices(Mesh(np.asarray(chips), (AXIS,), axis_types=(AxisType.Auto,)))


def compiled(devices: Devices, kernel: Kernel, **static: Any) -> Compiled:
    """Compiles a kernel for devices.

    Args:
        devices: devices, those of a slice or of this machine.
        kernel: the kernel.
        **static: further keyword arguments of the kernel.
    """

    def placed(spec: Any, shapes: Any) -> Any:
        is_spec = lambda leaf: isinstance(leaf, jax.sharding.PartitionSpec)

        def one(s: Any, part: Any) -> Any:
            if devices.mesh is None:
                return part
            where = NamedSharding(devices.mesh, s)
            shaped = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where)
            return jax.tree.map(shaped, part)

        return jax.tree.map(one, spec, shapes, is_leaf=is_spec)

    specs = tuple(spec for spec, _ in kernel.arguments)
    mapped = devices.spmd(kernel.function, specs, kernel.out, **(kernel.static | static))
    lowered = mapped.lower(*(placed(*argument) for argument in kernel.arguments))
    # Under shard_map the compiler adds no collectives to those of the kernel.
    kinds = [kind.replace("_", "-") for kind in re.findall(_STABLEHLO, lowered.as_text())]
    return _report(lowered.compile(), Counter(kinds), Counter())


def compiled_step(lower: Callable[[], Any]) -> Compiled:
    """Compiles a program whose collectives the compiler chooses.

    Args:
        lower: function that returns the lowered program.
    """
    made = lower().compile()
    text = made.as_text()
    assert text is not None
    number: Counter[str] = Counter()
    exchanged: Counter[str] = Counter()
    for results, kind in re.findall(_HLO + r"(?:-start)?\(", text):
        number[kind] += 1
        exchanged[kind] += sum(
            _SIZES.get(name, 4) * math.prod(int(side) for side in shape.split(",") if side)
            for name, shape in re.findall(r"(\w+)\[([\d,]*)\]", results)
        )
    return _report(made, number, exchanged)


def _report(made: Any, number: Counter[str], exchanged: Counter[str]) -> Compiled:
    memory, cost = made.memory_analysis(), made.cost_analysis()
    assert memory is not None
    cost = {} if cost is None else cost
    return Compiled(
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        max(0, memory.output_size_in_bytes - memory.alias_size_in_bytes),
        cost.get("flops", 0.0),
        cost.get("bytes accessed", 0.0),
        number,
        exchanged,
    )
