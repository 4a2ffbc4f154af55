"""Machines that a run can be planned for: TPU slices, GPU boxes, and the machine at hand."""

import math
import os
from typing import Literal, NamedTuple

from jaxcurate.checks import InputError

Kind = Literal["tpu", "gpu", "cpu"]


class Chip(NamedTuple):
    """Chip as its data sheet describes it, or a core of a CPU as it was measured."""

    name: str
    """Name, such as ``v5e``."""
    kind: Kind
    """Kind of device."""
    bfloat16: float
    """Peak rate of products of bfloat16 numbers, in FLOP/s."""
    float32: float
    """Peak rate of products of float32 numbers at full precision, in FLOP/s."""
    memory: float
    """Memory in bytes; for a core of a CPU its part of the host's."""
    bandwidth: float
    """Bandwidth of the memory, in bytes a second."""
    link: float
    """Bytes a second that a chip sends to the other chips; infinite where memory is shared."""
    price: float
    """Price of a chip for an hour."""


class Host(NamedTuple):
    """Host of some chips."""

    n_chips: int
    """Number of chips of a host."""
    cores: int
    """Number of processor cores, hyperthreads included."""
    memory: float
    """Memory in bytes."""


class Machine(NamedTuple):
    """Chips and hosts that a run has."""

    name: str
    """Name, such as ``v5e-64``."""
    chip: Chip
    """Kind of the chips."""
    n_chips: int
    """Number of chips."""
    host: Host
    """Kind of the hosts."""
    topology: str | None = None
    """Name for the compiler of TPUs, such as ``v5e:8x8``."""

    @property
    def n_hosts(self) -> int:
        """Number of hosts."""
        return -(-self.n_chips // self.host.n_chips)

    @property
    def cores(self) -> int:
        """Number of processor cores of all hosts."""
        return self.n_hosts * self.host.cores

    def seconds(self, flops: float, n_bytes: float, precision: str = "float32") -> float:
        """Returns the least time of work that is spread evenly over the chips.

        Args:
            flops: number of floating-point operations of matrix products.
            n_bytes: number of bytes that are moved to and from the memories of the chips.
            precision: ``"float32"`` or ``"bfloat16"``.

        Examples:
            >>> round(tpu_slice("v5e-8").seconds(flops=1.6e15, n_bytes=0, precision="bfloat16"), 2)
            1.02
        """
        peak = self.chip.bfloat16 if precision == "bfloat16" else self.chip.float32
        return max(flops / peak, n_bytes / self.chip.bandwidth) / self.n_chips

    def exchange(self, n_bytes: float) -> float:
        """Returns the least time in which an array of this size is summed over all chips."""
        return 2 * n_bytes * (1 - 1 / self.n_chips) / self.chip.link


_PASSES = 6
"""Number of bfloat16 products that make a float32 product on a TPU."""


def _tpu(name: str, peak: float, memory: float, bandwidth: float, link: float, usd: float) -> Chip:
    return Chip(name, "tpu", peak, peak / _PASSES, memory, bandwidth, link, usd)


CHIPS = {
    chip.name: chip
    for chip in (
        _tpu("v5e", 197e12, 16e9, 0.819e12, 200e9, 1.20),
        _tpu("v5p", 459e12, 95e9, 2.765e12, 600e9, 4.20),
        _tpu("v6e", 918e12, 32e9, 1.64e12, 448e9, 2.70),
        Chip("h100", "gpu", 989e12, 67e12, 80e9, 3.35e12, 450e9, 11.0),
        Chip("h200", "gpu", 989e12, 67e12, 141e9, 4.8e12, 450e9, 11.0),
        Chip("a100", "gpu", 312e12, 19.5e12, 80e9, 2.04e12, 300e9, 5.0),
        Chip("l4", "gpu", 121e12, 30e12, 24e9, 0.3e12, 16e9, 0.7),
    )
}
"""Chips by name: peak rates, memories and bandwidths as their vendors publish them. Prices are
about those of an hour on demand in US dollars in 2025, to be replaced by those that are paid."""

_HOSTS = {
    "v5e": Host(4, 112, 192e9),
    "v5p": Host(4, 208, 448e9),
    "v6e": Host(4, 180, 720e9),
    "h100": Host(8, 208, 1872e9),
    "h200": Host(8, 224, 2952e9),
    "a100": Host(8, 96, 1360e9),
    "l4": Host(8, 96, 384e9),
}
"""Hosts of a slice of several hosts, or of a box of eight GPUs, of Google Cloud."""
_SINGLE_HOSTS = {"v5e": Host(8, 224, 384e9), "v6e": Host(8, 180, 1440e9)}
"""Hosts of slices of at most eight chips."""
_SIDES = {
    "v5e": {
        1: "1x1",
        4: "2x2",
        8: "2x4",
        16: "4x4",
        32: "4x8",
        64: "8x8",
        128: "8x16",
        256: "16x16",
    },
    "v5p": {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8"}
    | {256: "4x8x8", 512: "8x8x8"},
}
_SIDES["v6e"] = _SIDES["v5e"]
"""Sides of slices by their number of chips."""


def tpu_slice(name: str) -> Machine:
    """Returns a slice such as ``v5e-64``, ``v5e:8x8`` or ``v5p:4x4x4``.

    The number is that of the chips, except in ``v5p-128``, where Google Cloud counts cores, two a
    chip. Prefixes as in ``v5litepod-64`` are known.

    Raises:
        InputError: there is no such slice.

    Examples:
        >>> tpu_slice("v5e-64").topology, tpu_slice("v5p-128").n_chips
        ('v5e:8x8', 64)
    """
    kind, colon, sides = name.partition(":")
    kind, _, number = (kind if colon else name).partition("-")
    kind = {"v5litepod": "v5e", "tpu": "v5e"}.get(kind, kind)
    if kind not in _SIDES:
        raise InputError(f"slice={name!r} must be one such as {', '.join(_known_slices())}")
    if colon and all(side.isdigit() for side in sides.split("x")):
        n_chips = math.prod(int(side) for side in sides.split("x"))
    elif number.isdigit():
        n_chips = int(number) // (2 if kind == "v5p" else 1)
    else:
        raise InputError(f"slice={name!r} must be one such as {', '.join(_known_slices())}")
    known = _SIDES[kind]
    if n_chips not in known:
        counts = ", ".join(map(str, known))
        raise InputError(f"slice={name!r} has {n_chips} chip(s); slices of {kind} have {counts}")
    single = _SINGLE_HOSTS.get(kind)
    host = single if single and n_chips <= single.n_chips else _HOSTS[kind]
    chip, topology = CHIPS[kind], f"{kind}:{sides or known[n_chips]}"
    return Machine(f"{kind} x {n_chips}", chip, n_chips, host, topology)


def _known_slices() -> tuple[str, ...]:
    return "v5e-8", "v5e-64", "v6e-8", "v5p-128", "v5p:4x4x4"


def gpu_box(n_gpus: int, name: str = "h100") -> Machine:
    """Returns boxes of eight GPUs, or a part of a box.

    Raises:
        InputError: the GPU is unknown, or there is none.

    Examples:
        >>> gpu_box(16, "h100").n_hosts, gpu_box(2, "h100").host.cores
        (2, 52)
    """
    gpus = {chip.name: chip for chip in CHIPS.values() if chip.kind == "gpu"}
    if name not in gpus:
        raise InputError(f"gpu={name!r} is not one of {', '.join(gpus)}")
    if n_gpus < 1:
        raise InputError(f"gpus={n_gpus} must be at least 1")
    whole = _HOSTS[name]
    part = min(n_gpus, whole.n_chips)
    host = Host(part, whole.cores * part // whole.n_chips, whole.memory * part / whole.n_chips)
    return Machine(f"{name} x {n_gpus}", gpus[name], n_gpus, host)


CORE = Chip("core", "cpu", 60e9, 60e9, 0, 8e9, math.inf, 0.0)
"""Core of a CPU, as it is assumed to be without calibration."""


def this_machine(core: Chip = CORE, n_devices: int | None = None) -> Machine:
    """Returns the machine at hand, whose cores are the devices.

    Args:
        core: rates of a core.
        n_devices: number of cores to use. All by default, and at most eight, as in a run.

    Examples:
        >>> this_machine(n_devices=2).n_chips
        2
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    n = min(cores, 8) if n_devices is None else n_devices
    chip = core._replace(memory=memory / n)
    return Machine(f"this machine, {n} CPU device(s)", chip, n, Host(n, cores, memory))
