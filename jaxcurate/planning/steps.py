"""Steps of a stage with their time, memory and traffic, and the source of each number."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from jaxcurate.config import Config
from jaxcurate.planning.machines import Machine
from jaxcurate.sources.base import Kind

Source = Literal["compiled", "counted", "measured", "assumed"]
"""Origin of a number: the compiler of the chips, a count over rates with an efficiency, a
throughput that the user gave, or an assumption."""


class Step(NamedTuple):
    """Step of a stage.

    Examples:
        >>> Step("seeding", 12.0, limit="matrix products", chip_bytes=2e9).source
        'counted'
    """

    name: str
    """Name of the step."""
    seconds: float
    """Time in seconds."""
    limit: str = "host"
    """Part of the machine that limits the step."""
    source: Source = "counted"
    """Source of the time."""
    chip_bytes: float = 0
    """Bytes on a chip at the peak of the step."""
    host_bytes: float = 0
    """Bytes on a host at the peak of the step, besides those on devices that share its memory."""
    read: float = 0
    """Bytes read from the source or the work directory."""
    written: float = 0
    """Bytes written to the work directory."""
    exchanged: float = 0
    """Bytes that a chip exchanges with others."""
    memory_source: Source = "counted"
    """Source of the bytes on a chip."""
    collectives: str = ""
    """Collectives of the step by kind, as the compiler reports them."""


@dataclass(frozen=True)
class StagePlan:
    """Plan of a stage."""

    name: str
    """Name of the stage."""
    steps: tuple[Step, ...]
    """Steps, one after another."""
    machine: Machine
    """Machine that it is planned for."""
    advice: tuple[str, ...] = ()
    """Changes that make the stage fit, one a line; empty if it fits."""
    notes: tuple[str, ...] = ()
    """Assumptions that the numbers depend on."""

    @property
    def seconds(self) -> float:
        """Time of all steps in seconds."""
        return sum(step.seconds for step in self.steps)

    @property
    def chip_bytes(self) -> float:
        """Bytes on a chip at the peak."""
        return max((step.chip_bytes for step in self.steps), default=0)

    @property
    def host_bytes(self) -> float:
        """Bytes on a host at the peak; on a CPU with those of its devices."""
        shared = self.machine.chip.kind == "cpu"
        a_host = min(self.machine.n_chips, self.machine.host.n_chips) if shared else 0
        return max((s.host_bytes + a_host * s.chip_bytes for s in self.steps), default=0)

    @property
    def read(self) -> float:
        """Bytes read from the source or the work directory."""
        return sum(step.read for step in self.steps)

    @property
    def written(self) -> float:
        """Bytes written to the work directory."""
        return sum(step.written for step in self.steps)

    @property
    def exchanged(self) -> float:
        """Bytes that a chip exchanges with others."""
        return sum(step.exchanged for step in self.steps)

    @property
    def cost(self) -> float:
        """Price of the machine for this time."""
        return self.seconds / 3600 * self.machine.n_chips * self.machine.chip.price

    @property
    def sources(self) -> tuple[Source, ...]:
        """Sources of its numbers, each once."""
        every: dict[Source, None] = {}
        for step in self.steps:
            every |= {step.source: None, step.memory_source: None}
        return tuple(every)


@dataclass(frozen=True)
class Ask:
    """Question that a plan answers: a configuration, a pool and a machine.

    Examples:
        >>> from jaxcurate.config import ClusterConfig, Level, SampleConfig
        >>> from jaxcurate.planning.machines import tpu_slice
        >>> settings = Config("npy:x.npy", ClusterConfig((Level(1000),)), SampleConfig(100))
        >>> ask = Ask(settings, tpu_slice("v5e-8"), n_items=10**6, n_columns=64)
        >>> round(ask.products(flops=1e15, n_bytes=0, precision="bfloat16"), 2)
        1.59
    """

    settings: Config
    """Settings of the run."""
    machine: Machine
    """Machine to plan for."""
    n_items: int
    """Number of items of the pool."""
    n_columns: int
    """Number of columns of the embeddings."""
    kind: Kind = "vector"
    """Kind of the items: ``picture``, ``text`` or ``vector``."""
    item_bytes: float = 0
    """Bytes of an item as it is stored, on average."""
    efficiency: float = 0.4
    """Fraction of a chip's peak rate of products that kernels reach, where it is not measured."""
    assign_efficiency: float = 0.4
    """Fraction of that rate that the search of nearest centroids reaches."""
    memory_efficiency: float = 0.7
    """Fraction of a chip's bandwidth that kernels reach, where it is not measured."""
    embed_rate: float | None = None
    """Measured number of items that the whole machine embeds in a second."""
    step_seconds: float | None = None
    """Measured time of a training step on the machine."""
    decode_rate: float = 180.0
    """Number of pictures of 500 x 400 pixels that a core decodes in a second."""
    disk_rate: float = 1e9
    """Bytes a second that a host reads from and writes to the source and the work directory."""
    host_rate: float = 1e9
    """Bytes of float32 rows that a process normalizes in a second."""
    compile_seconds: float = 1.2
    """Time in which the kernel of an assignment is compiled, of which others are multiples."""
    compile_source: Source = "assumed"
    """Source of that time."""
    base_bytes: float = 0.5e9
    """Bytes that a process takes for Python, jax and compiled code."""
    compiles: tuple[str, ...] = ()
    """Names of the stages whose kernels are compiled ahead of time."""
    say: Callable[[str], None] = field(default=lambda line: None, compare=False)
    """Function that is called with a line before a long compilation."""

    def moved(self, n_bytes: float) -> float:
        """Returns the time in which all hosts read or write so many bytes."""
        return n_bytes / (self.disk_rate * self.machine.n_hosts)

    def products(self, flops: float, n_bytes: float, precision: str = "float32") -> float:
        """Returns the time of evenly spread products, with the efficiencies."""
        seconds = self.machine.seconds(flops, 0, precision) / self.efficiency
        return max(seconds, self.passing(n_bytes))

    def assigning(self, flops: float, n_bytes: float, precision: str = "float32") -> float:
        """Returns the time of evenly spread searches of centroids, with the efficiencies."""
        seconds = self.machine.seconds(flops, 0, precision) / self.assign_efficiency
        return max(seconds, self.passing(n_bytes))

    def passing(self, n_bytes: float) -> float:
        """Returns the time in which the chips read and write so many bytes of their memories."""
        return self.machine.seconds(0, n_bytes) / self.memory_efficiency
