"""Run of the stages in order, without those whose output is up to date.

A stage is skipped if its output is complete and was made from the same inputs, which the card of
each folder lists.
"""

import functools
import itertools
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any, NamedTuple

import jax
from etils import epath

from jaxcurate.artifacts import folders
from jaxcurate.artifacts.bucket_errors import any_errors
from jaxcurate.artifacts.local import exists, is_folder
from jaxcurate.artifacts.lock import Lock, followed, locked
from jaxcurate.checks import InputError, check_choice
from jaxcurate.config import Config
from jaxcurate.pipeline import STAGES
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Folder, as_json
from jaxcurate.pipeline.run_config import RunConfig
from jaxcurate.pipeline.stage import Stage
from jaxcurate.runtime import messages, processes
from jaxcurate.runtime.progress import Progress

PACKAGES = ("jaxcurate", "jax", "jaxlib", "flax", "optax", "numpy")
"""Packages whose versions are in a card."""


class Status(NamedTuple):
    """State of a stage."""

    stage: str
    """Name of the stage."""
    state: str
    """``done``, ``missing``, ``out of date`` or ``damaged``."""
    where: str
    """Path that the stage writes."""


class Pipeline:
    """Pipeline of stages over a work directory, which skips stages that are done.

    Args:
        settings: settings of the run.
        path: the work directory. ``~`` is the home directory.
        progress: progress that stages report to.
        wait: wait for another run over the work directory instead of refusing.
        stages: all known stages, in order.

    Examples:
        >>> import tempfile
        >>> from jaxcurate.config import ClusterConfig, Level, SampleConfig
        >>> settings = Config(
        ...     source="npy:x.npy",
        ...     cluster=ClusterConfig(levels=(Level(10),)),
        ...     sample=SampleConfig(size=5),
        ... )
        >>> with tempfile.TemporaryDirectory() as work:
        ...     pipeline = Pipeline(settings, work, Progress(quiet=True))
        ...     [(status.stage, status.state) for status in pipeline.status()][:2]
        [('embed', 'missing'), ('dedup', 'missing')]
    """

    def __init__(
        self,
        settings: Config,
        path: epath.PathLike,
        progress: Progress,
        *,
        wait: bool = False,
        stages: Sequence[Stage] = STAGES,
    ) -> None:
        self.settings = settings
        self.path = _work_directory(path)
        self.progress = progress
        self._known = {stage.name: stage for stage in stages}
        self.chosen = tuple(stage.name for stage in stages if stage.enabled(settings))
        """Names of the stages that the settings ask for."""
        every = {stage.name: stage.output(settings, self.path) for stage in stages}
        outputs = {name: every[name] for name in self.chosen}
        places = {output.path.relative_to(self.path).parts[0] for output in every.values()}
        self.context = Context(settings, self.path, progress, outputs, places)
        self.config = RunConfig(self.path, [output.path for output in outputs.values()])
        self._wait = wait
        self._lock: Lock | None = None
        self._begun = time.perf_counter()

    def run(self, stages: Iterable[str] | None = None) -> None:
        """Runs stages in order, without those that are done.

        Args:
            stages: names of stages. All that the settings ask for by default.

        Raises:
            InputError: a stage cannot run. If possible, it is raised before anything is written.
        """
        with any_errors(self.path):
            self._run(self.chosen if stages is None else tuple(stages))

    def _run(self, names: Sequence[str]) -> None:
        self._check_processes(names)
        self._check(names)
        with self._locked(names) as self._lock:
            for name in names:
                with self.progress.timed(name):
                    self._run_stage(self._known[name])
            if self.context.writes and not self.config.exists():
                # The file was lost, and every stage was done before.
                with self.config.named(self.context.plain()):
                    pass

    def _check_processes(self, names: Sequence[str]) -> None:
        """Refuses processes that were started with other settings, or without a device."""
        if messages.count() == 1:
            return
        devices = self.context.devices
        if not devices.span_processes:
            raise InputError(
                f"config.n_devices={self.settings.n_devices} is too few for {messages.count()} "
                "processes, of which each needs one"
            )
        settings = _flat(as_json(self.context.plain()), "config")
        processes.agree("run", devices, stages=names, workdir=str(self.path), **settings)

    @contextmanager
    def _locked(self, names: Sequence[str]) -> Iterator[Lock | None]:
        """Locks the work directory and clears it of what killed runs have left, in process 0.

        The other processes wait for that, and then write under the same lock.
        """
        if not self.context.writes:
            with followed(self.path, messages.from_first("lock", str)) as lock:
                yield lock
            return
        with locked(self.path, wait=self._wait, say=self.progress.line) as lock:
            self._clean()
            self._check_replaceable(names)
            messages.from_first("lock", lambda: lock.token)
            yield lock

    def status(self) -> list[Status]:
        """Returns the state of every stage, without changing anything."""
        states = {name: self._known[name].state for name in self.chosen}
        with any_errors(self.path):
            return [
                Status(name, state(self.context), str(self.context.folder(name)))
                for name, state in states.items()
            ]

    def _run_stage(self, stage: Stage) -> None:
        """Runs a stage, unless its output exists and was made from the same inputs.

        Of several processes, the first decides, keeps the settings and has the run's id. All wait
        until they see the output.
        """
        context = self.context
        state = messages.from_first(stage.name, lambda: stage.state(context))
        if state == "done":
            context.run = messages.from_first("run", self.config.run)
            if context.writes:
                stage.tidy(context)
            self._publish(stage)
            self.progress.line(f"{stage.name}: done before")
            return
        why = "" if state == "missing" else f" ({state})"
        self.progress.line(f"{stage.name} ...{why}")
        self._begun = time.perf_counter()
        settings = context.plain()
        with self._named(settings) as context.run:
            numbers = stage.run(context, functools.partial(self._card, stage))
        if context.writes:
            self.config.write(context.run, settings)
        self._publish(stage)
        summary = "".join(f"{key} {value}, " for key, value in numbers.items())
        spent = time.perf_counter() - self._begun
        self.progress.line(f"{stage.name}: {summary}{spent:.1f} s")

    @contextmanager
    def _named(self, settings: dict[str, Any]) -> Iterator[str]:
        """Yields the id of the run, which process 0 keeps in the file of the settings."""
        if not self.context.writes:
            yield messages.from_first("run", str)
            return
        with self.config.named(settings) as run:
            yield messages.from_first("run", lambda: run)

    def _publish(self, stage: Stage) -> None:
        """Waits until all processes see the output of a stage."""
        output = self.context.outputs[stage.name]
        if isinstance(output, Folder):
            self.context.publish(stage.name, output.path)

    def _check(self, names: Sequence[str]) -> None:
        """Refuses stages that cannot run, before anything is written."""
        for name in names:
            check_choice("stage", name, tuple(self._known))
        self.context.check_apart()
        stages = [self._known[name] for name in names]
        for stage in stages:
            if not stage.enabled(self.settings):
                raise InputError(stage.disabled)
        for stage in stages:
            for needed in stage.requires(self.settings):
                output = self.context.outputs[needed]
                if needed not in names and output.card() is None:
                    raise InputError(
                        f"{output.path} is missing: `{stage.name}` needs `{needed}` first"
                    )
        for stage in stages:
            stage.check(self.context, names)
        for name in self.chosen:
            self._known[name].foresee(self.context, names)
        self._check_replaceable(names)

    def _check_replaceable(self, names: Sequence[str]) -> None:
        """Refuses stages that would replace something that this run did not write."""
        if exists(self.path) and not is_folder(self.path):
            raise InputError(f"{self.path} is a file, not a work directory")
        run = self.config.run() or folders.NO_RUN
        is_done = lambda name: self._known[name].state(self.context) == "done"
        for name in itertools.dropwhile(is_done, names):
            self._known[name].check_replaceable(self.context, run)

    def _clean(self) -> None:
        """Removes what killed runs have left, also beside stages that are done."""
        context = self.context
        parents = {self.path, *(output.path.parent for output in context.outputs.values())}
        for name in self.chosen:
            parents.update(self._known[name].parts(context))
        for parent in parents:
            if is_folder(parent):
                folders.clean(parent)

    def _card(self, stage: Stage, **more: Any) -> dict[str, Any]:
        """Returns the card of the folder of a stage."""
        if self._lock is not None:
            self._lock.check()  # a folder is complete once it has a card
        device, devices = jax.devices()[0], self.context.devices
        return {
            "stage": stage.name,
            "run": self.context.run,
            "made_from": as_json(stage.inputs(self.context)),
            "seconds": round(time.perf_counter() - self._begun, 3),
            "devices": f"{devices.count} x {device.device_kind}",
            "mapper": devices.mapper,
            "versions": {"python": platform.python_version()}
            | {package: metadata.version(package) for package in PACKAGES},
            **more,
        }


def _flat(value: Any, name: str) -> dict[str, str]:
    """Returns all values of nested settings as texts, by the names of their fields."""
    if not isinstance(value, dict):
        return {name: json.dumps(value)}
    fields = (_flat(inner, f"{name}.{field}") for field, inner in value.items())
    return {field: text for flat in fields for field, text in flat.items()}


def _work_directory(path: epath.PathLike) -> epath.Path:
    try:
        return epath.Path(path).expanduser()
    except (KeyError, RuntimeError, ValueError) as error:  # no such scheme, no such user's home
        raise InputError(f"{os.fspath(path)!r} cannot be a work directory: {error}") from error
