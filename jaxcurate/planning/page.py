"""Page of a plan: a table of the stages, their steps, and what to change; and the same as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jaxcurate.planning.machines import Machine
from jaxcurate.planning.steps import Ask, StagePlan

_NAMES = "time", "chip", "host", "read", "written", "links", "cost"
_COLUMNS = f"{'':34} {' '.join(f'{name:>9}' for name in _NAMES)}  limit, source"
_SHOWN = 0.01
"""Fraction of the time of its stage from which on a step has a line of its own."""


def page(ask: Ask, plans: Sequence[StagePlan], skipped: Sequence[str] = ()) -> str:
    """Returns the page that ``jaxcurate plan`` prints.

    Args:
        ask: the question.
        plans: plans of the stages, in order.
        skipped: names of stages that take little and are not counted.

    Examples:
        >>> from jaxcurate.config import ClusterConfig, Config, Level, SampleConfig
        >>> from jaxcurate.planning import plan_stage, steps_of_clustering
        >>> from jaxcurate.planning.machines import tpu_slice
        >>> settings = Config("npy:x.npy", ClusterConfig((Level(1000),)), SampleConfig(100))
        >>> ask = Ask(settings, tpu_slice("v5e-8"), n_items=10**6, n_columns=64)
        >>> text = page(ask, [plan_stage("cluster", ask, steps_of_clustering)])
        >>> text.splitlines()[0]
        '1,000,000 vectors, 64 columns, on v5e x 8: 1 host(s) of 224 cores and 384 GB'
    """
    machine = ask.machine
    lines = [
        f"{ask.n_items:,} {ask.kind}s, {ask.n_columns:,} columns, on {machine.name}: "
        f"{machine.n_hosts} host(s) of {machine.host.cores} cores and "
        f"{machine.host.memory / 1e9:.0f} GB",
        _rates(ask),
        "",
        _COLUMNS,
    ]
    for plan in plans:
        lines.append(_row(plan.name, plan))
        shown = [step for step in plan.steps if step.seconds >= _SHOWN * plan.seconds]
        for step in shown:
            one = StagePlan(step.name, (step,), machine)
            lines.append(_row(f"  {step.name}", one, f"{step.limit}, {step.source}"))
        if rest := tuple(step for step in plan.steps if step not in shown):
            name = f"  {len(rest)} shorter step{'s' if len(rest) > 1 else ''}"
            lines.append(_row(name, StagePlan("", rest, machine)))
    lines.append(_total(machine, plans))
    lines.append("")
    for plan in plans:
        lines += [f"{plan.name}: {line}" for line in (*plan.advice, *plan.notes)]
        lines += [
            f"{plan.name}, {step.name}: the compiler counts {step.collectives}"
            for step in plan.steps
            if step.collectives
        ]
    if skipped:
        lines.append(f"not counted, since they take little: {', '.join(skipped)}")
    return "\n".join(lines)


def as_json(ask: Ask, plans: Sequence[StagePlan], skipped: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the plan in a form that JSON can store, bytes and seconds as numbers."""
    return {
        "items": ask.n_items,
        "columns": ask.n_columns,
        "kind": ask.kind,
        "machine": {
            **{name: value for name, value in ask.machine._asdict().items() if name != "chip"},
            "host": ask.machine.host._asdict(),
            "n_hosts": ask.machine.n_hosts,
            "chip": {
                name: value if value != float("inf") else None
                for name, value in ask.machine.chip._asdict().items()
            },
        },
        "stages": {plan.name: _stage(plan) for plan in plans},
        "seconds": sum(plan.seconds for plan in plans),
        "cost": sum(plan.cost for plan in plans),
        "not_counted": list(skipped),
    }


def _stage(plan: StagePlan) -> dict[str, Any]:
    figures = ("seconds", "chip_bytes", "host_bytes", "read", "written", "exchanged", "cost")
    described = asdict(plan)
    return {
        **{name: getattr(plan, name) for name in figures},
        "fits": not plan.advice,
        "steps": [step._asdict() for step in plan.steps],
        "advice": list(described["advice"]),
        "notes": list(described["notes"]),
    }


def _rates(ask: Ask) -> str:
    chip = ask.machine.chip
    if chip.kind == "cpu":
        return (
            f"a core: {chip.float32 * ask.efficiency / 1e9:.0f} GFLOP/s of products, "
            f"{chip.float32 * ask.assign_efficiency / 1e9:.0f} of nearest centroids, "
            f"{chip.bandwidth * ask.memory_efficiency / 1e9:.1f} GB/s of memory"
        )
    return (
        f"a chip: {chip.bfloat16 / 1e12:.0f} TFLOP/s in bfloat16, {chip.float32 / 1e12:.0f} in "
        f"float32, of which {ask.efficiency:.0%} are reached; {chip.memory / 1e9:.0f} GB at "
        f"{chip.bandwidth / 1e12:.2f} TB/s, of which {ask.memory_efficiency:.0%}; "
        f"{chip.price:g} an hour"
    )


def _row(name: str, plan: StagePlan, why: str = "") -> str:
    if not why:
        why = "does not fit" if plan.advice else ""
    memory = ", ".join(
        dict.fromkeys(step.memory_source for step in plan.steps if step.memory_source != "counted")
    )
    why += f" (memory {memory})" * bool(memory and why)
    return (
        f"{name:34.34} {duration(plan.seconds):>9} {size(plan.chip_bytes):>9} "
        f"{size(plan.host_bytes):>9} {size(plan.read):>9} {size(plan.written):>9} "
        f"{size(plan.exchanged):>9} "
        f"{plan.cost:9.2f}  {why}"
    ).rstrip()


def _total(machine: Machine, plans: Sequence[StagePlan]) -> str:
    steps = tuple(step for plan in plans for step in plan.steps)
    return _row("all", StagePlan("all", steps, machine))


def duration(seconds: float) -> str:
    """Returns a time in words.

    Examples:
        >>> duration(0.25), duration(90), duration(7200), duration(400_000)
        ('0.2 s', '90.0 s', '2.00 h', '4.63 d')
    """
    if seconds < 600:
        return f"{seconds:.1f} s"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.2f} h"
    return f"{seconds / 86400:.2f} d"


def size(n_bytes: float) -> str:
    """Returns a number of bytes in words.

    Examples:
        >>> size(0), size(5e7), size(3.2e9), size(7e13)
        ('', '50 MB', '3.20 GB', '70.0 TB')
    """
    if not n_bytes:
        return ""
    if n_bytes < 1e9:
        return f"{n_bytes / 1e6:.0f} MB"
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes < 1e12 else f"{n_bytes / 1e12:.1f} TB"
