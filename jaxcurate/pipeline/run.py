"""The stages in order, each only when it has to be done.

A stage is skipped when what it would write is there, whole, and made from the same inputs; the
card of each folder tells what it was made from.
"""

import dataclasses
import functools
import itertools
import json
import os
import platform
import time
from collections.abc import Iterable
from importlib import metadata
from typing import Any, NamedTuple

import jax
from etils import epath

from jaxcurate import export, sources
from jaxcurate.artifacts import files, folders, temporary
from jaxcurate.artifacts.lock import Lock, locked
from jaxcurate.checks import InputError
from jaxcurate.config import Settings
from jaxcurate.pipeline.run_config import RunConfig
from jaxcurate.pipeline.stages import KINDS, Stages
from jaxcurate.report import is_report, is_whole
from jaxcurate.runtime.progress import Progress

STAGES = ("embed", "dedup", "cluster", "sample", "export", "evaluate", "report", "grow")
NEEDS = {
    "dedup": "embed",
    "cluster": "embed",
    "sample": "cluster",
    "export": "sample",
    "evaluate": "sample",
    "report": "sample",
    "grow": "cluster",
}
"""The stage whose files each stage reads, of those that only one stage can have written."""
FOLDERS = ("pool", "dedup", "tree", "subsets", "exports", "evaluation", "grown")
"""Names in a work directory below which stages write."""
PACKAGES = ("jaxcurate", "jax", "jaxlib", "flax", "optax", "numpy")


class Status(NamedTuple):
    """How a stage stands."""

    stage: str
    state: str
    """``done``, ``missing``, ``out of date`` or ``damaged``."""
    where: str


class Pipeline:
    """The stages in order over one work directory, with the memory of what was done.

    Args:
        settings: of the run.
        path: the work directory; ``~`` is the home directory.
        progress: what is told to.
        wait: wait for another run over the work directory instead of refusing.
    """

    def __init__(
        self, settings: Settings, path: epath.PathLike, progress: Progress, *, wait: bool = False
    ) -> None:
        self.settings = settings
        self.path = _work_directory(path)
        self.progress = progress
        self.stages = Stages(settings, self.path, progress)
        self.config = RunConfig(self.path, tuple(self.stages.folders.values()))
        self._wait = wait
        self._lock: Lock | None = None
        self._begun = time.perf_counter()
        absent = {"dedup": not settings.dedup.enabled, "grow": not settings.grow.source}
        self.chosen = tuple(stage for stage in STAGES if not absent.get(stage))
        """The stages that the settings ask for."""

    def run(self, stages: Iterable[str] | None = None) -> None:
        """Does stages in order, but for those that are done.

        Args:
            stages: all that the settings ask for by default.

        Raises:
            InputError: in one line; before anything is written, wherever it can be known by then.
        """
        stages = self.chosen if stages is None else tuple(stages)
        self._check(stages)
        with locked(self.path, wait=self._wait, say=self.progress.line) as self._lock:
            self._clean()
            self._check_replaceable(stages)
            for stage in stages:
                with self.progress.timed(stage):
                    self._run_stage(stage)
            if not self.config.exists():  # it was lost, and every stage was done before
                with self.config.named(_plain(self.settings)):
                    pass

    def _clean(self) -> None:
        """Removes what a run that was killed has left, also beside stages that are done."""
        for parent in {self.path, *(folder.parent for folder in self.stages.folders.values())}:
            if parent.is_dir():
                temporary.clean(parent)

    def _run_stage(self, stage: str) -> None:
        """Does a stage, unless its output is there and made from the same inputs."""
        state = self._state(stage)
        if state == "done":
            self.progress.line(f"{stage}: done before")
            return
        why = "" if state == "missing" else f" ({state})"
        self.progress.line(f"{stage} ...{why}")
        self._begun = time.perf_counter()
        with self.config.named(_plain(self.settings)) as self.stages.run:
            found = getattr(self.stages, stage)(functools.partial(self._about, stage))
        self.config.write(self.stages.run, _plain(self.settings))
        told = ", ".join(f"{key} {value}" for key, value in found.items())
        spent = time.perf_counter() - self._begun
        self.progress.line(f"{stage}: {told + ', ' if told else ''}{spent:.1f} s")

    def status(self) -> list[Status]:
        """How every stage stands; changes nothing."""
        return [
            Status(
                stage,
                self._state(stage),
                str(self.stages.folders.get(stage, self.stages.report_path)),
            )
            for stage in self.chosen
        ]

    def _check(self, stages: tuple[str, ...]) -> None:
        """Refuses what cannot work while nothing has been written yet."""
        in_order, settings, stages = stages, self.settings, set(stages)
        self._check_apart()
        if "dedup" in stages and not settings.dedup.enabled:
            raise InputError("deduplication is off: config.dedup.enabled=True turns it on")
        if "grow" in stages and not settings.grow.source:
            raise InputError("there is nothing to grow by: config.grow.source names new items")
        needs = [(stage, NEEDS[stage]) for stage in stages & set(NEEDS)]
        if settings.dedup.enabled:
            needs += [(stage, "dedup") for stage in stages & {"cluster", "sample", "evaluate"}]
        for stage, needed in needs:
            before = self.stages.folders[needed]
            if needed not in stages and folders.read_card(before) is None:
                raise InputError(f"{before} is missing: `{stage}` needs `{needed}` first")
        if self._has_grown and stages & ({"embed"} | self._that_read_the_source):
            raise InputError(
                f"{self.stages.folders['embed']} has grown by items that {settings.source} does "
                "not have: from here go on `cluster`, `sample` and, by embeddings, `dedup`"
            )
        if "embed" in stages:
            if settings.strict:
                self._check_strict()
            if isinstance(self.stages.source, sources.Named):
                export.check_names(self.stages.source.ids, self.stages.export_path)
            n, source = len(self.stages.source), settings.source
            level = settings.cluster.levels[0]
            if n < level.n_clusters * level.n_splits:
                raise InputError(
                    f"cluster.n_clusters asks for {level.n_clusters * level.n_splits} clusters at "
                    f"level 1, but {source} has only {n} item(s)"
                )
            if settings.dedup.enabled and n < settings.dedup.n_clusters:
                raise InputError(
                    f"dedup.n_clusters asks for {settings.dedup.n_clusters} clusters, but {source} "
                    f"has only {n} item(s)"
                )
        elif stages & self._that_read_the_source:
            # A pool that was saved by hand was made from nothing that is known.
            made_from = (folders.read_card(self.stages.folders["embed"]) or {}).get("made_from", {})
            if made_from.get("source") != self.stages.source.fingerprint:
                raise InputError(
                    f"{self.stages.folders['embed']} was made from source "
                    f"{made_from.get('source')}, but {settings.source} is now "
                    f"{self.stages.source.fingerprint}: `embed` comes first"
                )
            of = _as_json(_plain(settings.embed))
            if stages & self._that_embed and made_from.get("embed") != of:
                raise InputError(
                    f"{self.stages.folders['embed']} was made with other settings of config.embed, "
                    "by which other items are embedded: `embed` comes first"
                )
        if stages & self._that_embed:
            self.stages.references  # noqa: B018  opens them
        if "grow" in stages:
            self.stages.newcomers  # noqa: B018  opens them
        if "evaluate" in stages and settings.evaluate.arms:
            try:
                self.stages.held_out_sources  # noqa: B018  opens them
            except InputError as error:
                raise InputError(
                    f"{error} (config.evaluate.arms=() evaluates without held-out items)"
                ) from error

        self._check_replaceable(in_order)

    def _check_strict(self) -> None:
        """Refuses items that were left out, or would be, before they have a row."""
        source, left_out = self.stages.source, []
        if isinstance(source, sources.Skipping):
            left_out = [list(one) for one in source.skipped if one[1] != sources.WORK_DIRECTORY]
        if not left_out and self._state("embed") == "done":
            left_out = (folders.read_card(self.stages.folders["embed"]) or {})["unreadable"]
        if left_out:
            id_, reason = left_out[0]
            raise InputError(
                f"{len(left_out)} item(s) of {self.settings.source} cannot be used, the first "
                f"{id_!r} ({reason}), and config.strict refuses to leave them out"
            )

    def _check_apart(self) -> None:
        """Refuses items that lie where the run writes."""
        work = os.path.realpath(self.path)
        settings = self.settings
        for spec in (settings.source, settings.sample.mix.references, settings.grow.source):
            scheme, _, path = spec.partition(":")
            if scheme not in ("folder", "npy") or not files.is_local(path):
                continue
            place = os.path.realpath(os.path.expanduser(path))
            ours = [work] if scheme == "folder" else [f"{work}/{name}" for name in FOLDERS]
            if any(place == one or place.startswith(f"{one}/") for one in ours):
                raise InputError(
                    f"{spec} lies in the work directory {self.path}, where the run writes: choose "
                    "a work directory outside of it"
                )

    def _check_replaceable(self, stages: Iterable[str]) -> None:
        """Refuses to begin where something that is not this run's stands in the way of a stage."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file, not a work directory")
        to_write = tuple(itertools.dropwhile(lambda stage: self._state(stage) == "done", stages))
        run = self.config.run() or folders.NO_RUN
        for stage in to_write:
            if stage == "report":
                files.check_text(self.stages.report_path, is_report)
            else:
                folders.check_replaceable(self.stages.folders[stage], KINDS[stage], run)

    @property
    def _that_embed(self) -> set[str]:
        """Stages that embed other items in the way of the pool's: references, new ones."""
        retrieving = {"sample", "evaluate"} if self.settings.sample.mix.retrieved else set()
        return {"grow"} | retrieving

    @property
    def _that_read_the_source(self) -> set[str]:
        """Stages that read items by the pool's rows, or fit an encoder to them."""
        settings = self.settings.dedup
        digesting = {"dedup"} if settings.enabled and settings.content == "items" else set()
        return {"export", "evaluate", "report"} | digesting | self._that_embed

    @property
    def _has_grown(self) -> bool:
        """Whether the pool is one that the stage ``grow`` wrote."""
        try:
            return (folders.read_card(self.stages.folders["embed"]) or {}).get("stage") == "grow"
        except files.DamagedError:
            return False

    def _state(self, stage: str) -> str:
        try:
            if stage == "report":
                if not self.stages.report_path.is_file():  # a pipe would be read forever
                    return "missing"
                page = self.stages.report_path.read_text()
                if not is_whole(page):
                    raise files.DamagedError(f"{self.stages.report_path} is cut short")
                made_from = files.fingerprint(self._made_from(stage))
                return "done" if made_from in page else "out of date"
            card = folders.read_card(self.stages.folders[stage])
            if card is None:
                return "missing"
            same = card.get("made_from") == _as_json(self._made_from(stage))
            if stage == "embed" and (zeros := card.get("zeros")):
                # Rows without a direction are left out where, and only where, one is needed.
                same &= zeros["left_out"] == self.stages.need_direction
            return "done" if same else "out of date"
        except files.DamagedError as error:
            return f"damaged: {error}"

    def _made_from(self, stage: str) -> dict[str, Any]:
        """All that the outcome of a stage depends on."""
        settings = self.settings
        digest = lambda name: files.fingerprint(
            (folders.read_card(self.stages.folders[name]) or {}).get("files")
        )
        valid = {"dedup": digest("dedup")} if settings.dedup.enabled else {}
        references = {}
        if settings.sample.mix.retrieved and stage in ("sample", "evaluate"):
            references = {"references": self.stages.references.fingerprint}
        match stage:
            case "dedup":
                return {
                    "embed": digest("embed"),
                    "dedup": _plain(settings.dedup),
                    "seed": settings.seed,
                }
            case "embed":
                return {"source": self.stages.source.fingerprint, "embed": _plain(settings.embed)}
            case "cluster":
                return {
                    "embed": digest("embed"),
                    "cluster": _plain(settings.cluster),
                    "seed": settings.seed,
                    **valid,
                }
            case "sample":
                return {
                    "cluster": digest("cluster"),
                    "sample": _plain(settings.sample),
                    "seed": settings.seed,
                    **valid,
                    **references,
                }
            case "export":
                return {"sample": digest("sample"), "export": _plain(settings.export)}
            case "evaluate":
                held_out = self.stages.held_out_sources if settings.evaluate.arms else ()
                return {
                    "cluster": digest("cluster"),
                    "sample": digest("sample"),
                    "held_out": [source.fingerprint for source in held_out],
                    "evaluate": _plain(settings.evaluate),
                    "seed": settings.seed,
                    **valid,
                    **references,
                }
            case "report":
                return {
                    "title": settings.title,
                    **{name: digest(name) for name in self.stages.folders if name != "grow"},
                }
            case "grow":
                return {
                    "cluster": digest("cluster"),
                    "new": self.stages.newcomers.fingerprint,
                    "grow": _plain(settings.grow),
                }
        raise InputError(f"stage={stage!r}; known: {', '.join(STAGES)}")

    def _about(self, stage: str, **more: Any) -> dict[str, Any]:
        """What the card of a stage's folder tells."""
        if self._lock is not None:
            self._lock.check()  # a card is what makes a folder whole
        device = jax.devices()[0]
        return {
            "stage": stage,
            "run": self.stages.run,
            "made_from": _as_json(self._made_from(stage)),
            "seconds": round(time.perf_counter() - self._begun, 3),
            "devices": f"{self.stages.devices.count} x {device.device_kind}",
            "mapper": self.stages.devices.mapper,
            "versions": {"python": platform.python_version()}
            | {package: metadata.version(package) for package in PACKAGES},
            **more,
        }


def _work_directory(path: epath.PathLike) -> epath.Path:
    try:
        return epath.Path(path).expanduser()
    except (KeyError, RuntimeError, ValueError) as error:  # no such scheme, no such user's home
        raise InputError(f"{os.fspath(path)!r} cannot be a work directory: {error}") from error


def _plain(settings: Any) -> dict[str, Any]:
    return dataclasses.asdict(settings)


def _as_json(value: Any) -> Any:
    """What JSON makes of a value: tuples turn into lists."""
    return json.loads(json.dumps(value))
