"""Changes that make a stage fit, found by planning it again with each of them."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from jaxcurate.checks import InputError
from jaxcurate.kmeans.rows import fits
from jaxcurate.planning.machines import Machine, gpu_box, tpu_slice
from jaxcurate.planning.steps import Ask, Step

_USABLE = 0.92
"""Fraction of a memory that a run can use."""
Steps = Callable[[Ask], tuple[list[Step], list[str]]]
"""Function that returns the steps of a stage and notes."""


def over(ask: Ask, steps: list[Step]) -> tuple[float, float]:
    """Returns how many times the memory of a chip and of a host is needed.

    Examples:
        >>> from jaxcurate.config import ClusterConfig, Config, Level, SampleConfig
        >>> settings = Config("npy:x.npy", ClusterConfig((Level(10),)), SampleConfig(5))
        >>> ask = Ask(settings, tpu_slice("v5e-8"), n_items=1000, n_columns=8)
        >>> over(ask, [Step("all", 1.0, chip_bytes=16e9)])
        (1.0869565217391304, 0.0)
    """
    machine = ask.machine
    chip = max((step.chip_bytes for step in steps), default=0.0)
    if machine.chip.kind == "cpu":
        a_host = min(machine.n_chips, machine.host.n_chips)
        host = max((s.host_bytes + a_host * s.chip_bytes for s in steps), default=0.0)
        return 0.0, host / (_USABLE * machine.host.memory)
    host = max((step.host_bytes for step in steps), default=0.0)
    return chip / (_USABLE * machine.chip.memory), host / (_USABLE * machine.host.memory)


def advice(name: str, ask: Ask, steps: list[Step], again: Steps) -> tuple[str, ...]:
    """Returns what to change where a stage does not fit, one change a line.

    Args:
        name: name of the stage.
        ask: the question.
        steps: the steps of the stage.
        again: function that plans the stage again.
    """
    chip, host = over(ask, steps)
    if max(chip, host) <= 1:
        return ()
    where = []
    if chip > 1:
        where.append(f"{chip * _USABLE:.2f} of the memory of a chip")
    if host > 1:
        where.append(f"{host * _USABLE:.2f} of the memory of a host")
    lines = [f"does not fit: it needs {' and '.join(where)}"]
    without = replace(ask, compiles=())  # alternatives are counted alone
    for text, changed in _changes(name, without):
        try:
            planned, _ = again(changed)
        except InputError:
            continue
        if planned and max(over(changed, planned)) <= 1:
            seconds = sum(step.seconds for step in planned)
            lines.append(f"{text} fits, and takes {seconds / 3600:.2f} h")
    if len(lines) == 1:
        lines.append("no single change makes it fit: fewer items, columns or clusters do")
    return tuple(lines)


def _changes(name: str, ask: Ask) -> Iterator[tuple[str, Ask]]:
    """Yields questions with a change, each with the change in words."""
    settings = ask.settings
    if name in ("cluster", "dedup"):
        for limit in _limits(ask):
            yield (
                f"config.memory_limit={limit:,}",
                replace(ask, settings=replace(settings, memory_limit=limit)),
            )
    if name == "cluster" and not settings.shard_centroids and ask.machine.n_chips > 1:
        yield (
            "config.shard_centroids=True",
            replace(ask, settings=replace(settings, shard_centroids=True)),
        )
    if name == "embed" and settings.embed.batch_size > 1:
        smaller = max(1, settings.embed.batch_size // 4)
        changed = replace(settings.embed, batch_size=smaller)
        yield (
            f"config.embed.batch_size={smaller}",
            replace(ask, settings=replace(settings, embed=changed)),
        )
    if name == "evaluate":
        training = settings.evaluate.pretraining
        options = []
        if not training.model.remat:
            model = replace(training.model, remat=True)
            options.append(("model.remat=True", replace(training, model=model)))
        if training.batch_size % (4 * training.n_accumulate * ask.machine.n_chips) == 0:
            parts = 4 * training.n_accumulate
            options.append((f"n_accumulate={parts}", replace(training, n_accumulate=parts)))
        options.append(("shard_bytes=0", replace(training, shard_bytes=0)))
        for text, changed in options:
            evaluate = replace(settings.evaluate, pretraining=changed)
            yield (
                f"config.evaluate.pretraining.{text}",
                replace(ask, settings=replace(settings, evaluate=evaluate)),
            )
    for machine in larger(ask.machine):
        changed = replace(ask, machine=machine)
        yield machine.name, changed


def _limits(ask: Ask) -> tuple[int, ...]:
    """Returns memory limits that the rows exceed, so that they are streamed."""
    machine = ask.machine
    room = 0.5 * machine.host.memory * machine.n_hosts
    if machine.chip.kind != "cpu":
        room = min(room, 0.5 * machine.chip.memory * machine.n_chips)
    limit = int(float(f"{room:.1g}"))
    given = ask.settings.memory_limit
    streams = not fits(ask.n_items, ask.n_columns, limit)
    return (limit,) if streams and (given is None or limit < given) else ()


def larger(machine: Machine) -> tuple[Machine, ...]:
    """Returns machines of the same kind with more chips.

    Examples:
        >>> [machine.n_chips for machine in larger(tpu_slice("v5e-64"))]
        [128, 256]
    """
    counts = [machine.n_chips * 2**power for power in range(1, 7)]
    made = []
    for count in counts:
        try:
            if machine.chip.kind == "tpu":
                cores = 2 if machine.chip.name == "v5p" else 1
                made.append(tpu_slice(f"{machine.chip.name}-{count * cores}"))
            elif machine.chip.kind == "gpu":
                made.append(gpu_box(count, machine.chip.name))
        except InputError:
            break
    return tuple(made)
