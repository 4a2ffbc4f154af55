"""Plan of a run: what each stage takes, by its own account, before anything is run."""

import dataclasses
import json
from typing import Any

from etils import epath

from jaxcurate import sources
from jaxcurate.artifacts import folders
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.encoders.base import DEFAULTS
from jaxcurate.pipeline import STAGES
from jaxcurate.planning import Ask, StagePlan
from jaxcurate.planning.ahead_of_time import has_tpu_compiler
from jaxcurate.planning.calibrate import Rates, calibrate
from jaxcurate.planning.embedding import ITEM_BYTES, encoder_kind, encoding_of
from jaxcurate.planning.machines import CORE, Machine, gpu_box, this_machine, tpu_slice
from jaxcurate.planning.page import as_json, page
from jaxcurate.runtime.devices import Devices
from jaxcurate.runtime.progress import Progress

_COMPILATION = 3.0
"""Seconds in which the kernel of an assignment is compiled for an accelerator, as assumed."""
COMPILED = ("embed", "cluster", "evaluate")
"""Stages whose kernels can be compiled ahead of time."""


def planned(settings: Config, given: Any, path: str | None, say: Progress) -> str:
    """Returns the page of a plan. Nothing is written, and the pool is not read.

    Args:
        settings: settings of the run.
        given: values of the flags of the command, as attributes.
        path: the work directory, whose pool is counted if it exists.
        say: progress that is told what takes long.

    Raises:
        InputError: the machine is unknown, or the pool is and its size is not given.
    """
    ask = ask_of(settings, given, path, say)
    plans, skipped = plan_of(ask)
    if given.json:
        return json.dumps(as_json(ask, plans, skipped), indent=2)
    return page(ask, plans, skipped)


def plan_of(ask: Ask) -> tuple[list[StagePlan], list[str]]:
    """Returns the plans of the stages that a run does, and the names of those without a plan."""
    plans, skipped = [], []
    for stage in STAGES:
        if stage.enabled(ask.settings):
            plan = stage.plan(ask)
            if plan is None:
                skipped.append(stage.name)
            else:
                plans.append(plan)
    return plans, skipped


def ask_of(settings: Config, given: Any, path: str | None, say: Progress) -> Ask:
    """Returns the question that the flags ask."""
    for name in ("items", "dimensions", "price", "embed_rate", "step_seconds", "item_bytes"):
        value = getattr(given, name)
        if value is not None and value < (0 if name == "price" else 1e-9):
            raise InputError(f"--{name}={value:g} must be above 0")
    for name in ("efficiency", "memory_efficiency"):
        if not 0 < getattr(given, name) <= 1:
            raise InputError(f"--{name}={getattr(given, name):g} must be above 0 and at most 1")
    if given.decode_rate <= 0 or given.disk_rate <= 0:
        raise InputError("--decode_rate and --disk_rate must be above 0")
    machine = _machine(settings, given)
    n_items, n_columns, kind = _size(settings, given, path)
    usual = 4.0 * n_columns if kind == "vector" else ITEM_BYTES[kind]
    is_cpu = machine.chip.kind == "cpu"
    ask = Ask(
        settings,
        machine,
        n_items,
        n_columns,
        kind,
        item_bytes=usual if given.item_bytes is None else given.item_bytes,
        efficiency=1.0 if is_cpu else given.efficiency,
        assign_efficiency=0.9 if is_cpu else given.efficiency,
        memory_efficiency=1.0 if is_cpu else given.memory_efficiency,
        embed_rate=given.embed_rate,
        step_seconds=given.step_seconds,
        decode_rate=given.decode_rate,
        disk_rate=given.disk_rate,
        compile_seconds=Ask.compile_seconds if is_cpu else _COMPILATION,
        compiles=_compiles(given, machine),
        say=say.line,
    )
    if given.calibrate:
        if not is_cpu:
            raise InputError("--calibrate times this machine, not that of --slice or --gpus")
        say.line("timing the kernels on this machine ...")
        ask = calibrated(ask, calibrate(Devices.first(machine.n_chips), d=min(n_columns, 1024)))
    return ask


def calibrated(ask: Ask, rates: Rates) -> Ask:
    """Returns the question with the measured rates of the machine at hand."""
    n = ask.machine.n_chips
    chip = ask.machine.chip._replace(
        float32=rates.products / n, bfloat16=rates.products / n, bandwidth=rates.memory / n
    )
    return dataclasses.replace(
        ask,
        machine=ask.machine._replace(chip=chip),
        efficiency=1.0,
        assign_efficiency=rates.assignments / rates.products,
        memory_efficiency=1.0,
        host_rate=rates.host,
        compile_seconds=rates.compilation,
        compile_source="measured",
    )


def _machine(settings: Config, given: Any) -> Machine:
    if given.slice and given.gpus:
        raise InputError("--slice and --gpus are two machines: give one of them")
    if given.slice:
        machine = tpu_slice(given.slice)
    elif given.gpus:
        machine = gpu_box(given.gpus, given.gpu)
    else:
        machine = this_machine(CORE, settings.n_devices)
    if given.price is not None:
        machine = machine._replace(chip=machine.chip._replace(price=given.price))
    return machine


def _compiles(given: Any, machine: Machine) -> tuple[str, ...]:
    """Returns the stages to compile: all for TPUs whose compiler is installed, by default."""
    if given.compile is None:
        return COMPILED if machine.topology and has_tpu_compiler() else ()
    if given.compile in ([], ["none"]):
        return ()
    unknown = set(given.compile) - set(COMPILED)
    if unknown:
        raise InputError(f"--compile={','.join(given.compile)}: known are {', '.join(COMPILED)}")
    if machine.topology is None:
        raise InputError("--compile needs --slice: only TPUs are compiled for ahead of time")
    if not has_tpu_compiler():
        raise InputError("--compile needs the compiler of TPUs: pip install libtpu")
    return tuple(given.compile)


def _size(settings: Config, given: Any, path: str | None) -> tuple[int, int, sources.Kind]:
    """Returns the numbers of items and of columns, and the kind of the items."""
    kind = encoder_kind(settings.embed, settings.source)
    items, columns = given.items, given.dimensions
    stored = _stored(path)
    if stored is not None:
        items, columns = items or stored[0], columns or stored[1]
    if items is None or (kind == "vector" and columns is None):
        try:
            source = sources.open_source(
                settings.source,
                split=settings.split,
                data_dir=settings.data_dir,
                content_key=settings.content_key,
                id_key=settings.id_key,
            )
        except InputError as error:
            missing = "--items=N" if items is None else "--dimensions=D"
            raise InputError(f"{missing} is needed: {error}") from error
        items, kind = items or len(source), source.kind
        if isinstance(source, sources.InBlocks):
            columns = columns or source.width
    if columns is None:
        known = {"pca": settings.embed.n_components, "efficientnet_lite0": 1280}
        name = settings.embed.encoder or DEFAULTS[kind]
        if name not in known:
            try:
                known[name] = encoding_of(settings.embed, kind).n_columns
            except InputError as error:
                raise InputError(f"--dimensions=D is needed: {error}") from error
        columns = known[name]
    return int(items), int(columns), kind


def _stored(path: str | None) -> tuple[int, int] | None:
    """Returns the numbers of rows and columns of the pool of a work directory, if it has one."""
    if path is None:
        return None
    folder = epath.Path(path).expanduser() / "pool"
    card = folders.read_card(folder)
    if not card or "n" not in card:
        return None
    from jaxcurate.artifacts.pool import Pool

    return card["n"], Pool.load(folder).embeddings.shape[1]
