"""Runs of a comparison: which are pretrained together and in what order, and their records."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxcurate import training
from jaxcurate.checks import InputError
from jaxcurate.evaluation.arms import UNTRAINED, Parallel
from jaxcurate.runtime.devices import Devices
from jaxcurate.sources import Source
from jaxcurate.training.input import Input
from jaxcurate.training.online import OnEval
from jaxcurate.training.pretrain import (
    Params,
    Pretrained,
    check_items,
    place_items,
    pretrain_group,
)
from jaxcurate.training.runs import check_runs


class Job(NamedTuple):
    """Run of an arm that is to be pretrained."""

    arm: str
    """Name of the arm."""
    run: training.Run
    """Rows, seed and batches."""
    n_steps: int
    """Number of steps; 0 keeps the random weights."""

    @property
    def key(self) -> tuple[str, int]:
        """Arm and seed, which no other run of the comparison has."""
        return self.arm, self.run.seed

    @property
    def name(self) -> str:
        """Name of the folder of the run."""
        return run_name(self.key)

    @property
    def in_words(self) -> str:
        """Name of the run in errors."""
        return f"arm {self.arm!r}, seed {self.run.seed}"


def run_name(key: tuple[str, int]) -> str:
    """Returns the name of the folder of a run.

    Examples:
        >>> run_name(("curated", 3))
        'curated-3'
    """
    return f"{key[0]}-{key[1]}"


class Record(NamedTuple):
    """Figures of a finished run.

    Examples:
        >>> losses = np.zeros(0, np.float32)
        >>> Record("curated", 0, {"knn": 0.5}, losses, {"steps": 0}).line
        '{"arm": "curated", "seed": 0, "steps": 0, "measures": {"knn": 0.5}}'
    """

    arm: str
    """Name of the arm."""
    seed: int
    """Seed of the run."""
    measures: dict[str, float]
    """Value by measure."""
    losses: np.ndarray
    """Training losses, float32 ``[n_steps]``."""
    about: dict[str, Any]
    """Facts about the run: steps, batch, objective, seconds, device, versions."""

    @property
    def key(self) -> tuple[str, int]:
        """Arm and seed."""
        return self.arm, self.seed

    @property
    def line(self) -> str:
        """Record without its losses as a line of JSON."""
        plain = {"arm": self.arm, "seed": self.seed, **self.about, "measures": self.measures}
        return json.dumps(plain)

    @classmethod
    def from_line(cls, line: str, losses: np.ndarray) -> "Record":
        """Returns the record that gave a line, with the same bits."""
        plain = json.loads(line)
        arm, seed, measures = (plain.pop(name) for name in ("arm", "seed", "measures"))
        return cls(arm, seed, measures, losses, plain)


class Group(NamedTuple):
    """Runs that were pretrained together."""

    jobs: list[Job]
    """The runs."""
    params: Params
    """Weights of their encoders; every leaf is ``[n_runs, ...]``."""
    losses: np.ndarray
    """Losses, float32 ``[n_runs, n_steps]``."""
    seconds: float
    """Seconds of the pretraining of all of them."""


def jobs_of(arms: Mapping[str, Sequence[training.Run]], n_steps: Mapping[str, int]) -> list[Job]:
    """Returns all runs of a comparison, with those without pretraining first.

    Seeds follow each other, and within a seed the arms, so that a comparison which is interrupted
    has whole seeds.

    Args:
        arms: the runs of each arm, with the same seeds in the same order.
        n_steps: the number of steps of each arm.

    Raises:
        InputError: the arms differ in their seeds.

    Examples:
        >>> runs = [training.Run(np.arange(9), seed) for seed in (0, 1)]
        >>> jobs = jobs_of({"curated": runs, "random": runs}, {"curated": 5, "random": 5})
        >>> [job.key for job in jobs][2:]
        [('curated', 0), ('random', 0), ('curated', 1), ('random', 1)]
    """
    seeds = [run.seed for run in next(iter(arms.values()))]
    for name, runs in arms.items():
        if [run.seed for run in runs] != seeds:
            raise InputError(f"arm {name!r} must have the seeds of the others: {seeds}")
    untrained = [Job(UNTRAINED, training.Run(np.arange(2), seed), 0) for seed in seeds]
    return untrained + [
        Job(name, runs[i], n_steps[name]) for i in range(len(seeds)) for name, runs in arms.items()
    ]


def groups_of(jobs: Sequence[Job], n_together: int) -> list[list[Job]]:
    """Returns the runs in groups of equally many steps, in the order of their first runs.

    Args:
        jobs: the runs, in order.
        n_together: largest number of runs of a group.

    Examples:
        >>> run = training.Run(np.arange(9), 0)
        >>> jobs = [Job(name, run, steps) for name, steps in (("a", 5), ("b", 9), ("c", 5))]
        >>> [[job.arm for job in group] for group in groups_of(jobs, 2)]
        [['a', 'c'], ['b']]
    """
    by_steps: dict[int, list[int]] = {}
    for number, job in enumerate(jobs):
        by_steps.setdefault(job.n_steps, []).append(number)
    groups = [
        alike[first : first + n_together]
        for alike in by_steps.values()
        for first in range(0, len(alike), n_together)
    ]
    return [[jobs[number] for number in group] for group in sorted(groups)]


def n_together(settings: training.PretrainConfig, devices: Devices, parallel: Parallel) -> int:
    """Returns the largest number of runs of a group: those that are trained at the same time."""
    return devices.count * settings.runs_per_device if parallel == "runs" else 1


def pretrain_runs(
    items: np.ndarray | Source,
    jobs: Sequence[Job],
    settings: training.PretrainConfig,
    *,
    parallel: Parallel = "runs",
    folder: epath.Path | None = None,
    on_eval: OnEval | None = None,
    finished: frozenset[tuple[str, int]] = frozenset(),
    devices: Devices,
    progress: Callable[[int, int], None],
) -> Iterator[Group]:
    """Yields the encoders of all runs that are not finished, group by group.

    Groups, and with them the bits of their runs, do not depend on which of them are finished.

    Args:
        items: items of the pool: pictures, uint8 ``[n, s, s, 3]``, token ids, int32
            ``[n, n_tokens]``, or, if batches are split, a source of pictures of any size.
        jobs: all runs, from :func:`jobs_of`.
        settings: the settings of every run but for the number of steps.
        parallel: work that is split over the devices, runs or batches.
        folder: folder with a subfolder for each run, named by :attr:`Job.name`, if batches are
            split: checkpoints, metrics and the encoder. None writes nothing.
        on_eval: function that measures encoders while they are trained, if batches are split.
        finished: arm and seed of the runs that are finished. A group is left out if all of its
            runs are.
        devices: the devices.
        progress: called with the numbers of steps done and of all steps, over all runs.
    """
    if isinstance(items, np.ndarray):
        check_items(items, settings)
    with_steps = lambda n_steps: dataclasses.replace(settings, n_steps=n_steps)
    trained = [job for job in jobs if job.arm != UNTRAINED]
    for n_steps in dict.fromkeys(job.n_steps for job in trained):
        runs = [job.run for job in trained if job.n_steps == n_steps]
        check_runs(runs, len(items), n_steps, settings.batch_size)
    placed = None
    if parallel == "runs":
        if not isinstance(items, np.ndarray):
            raise InputError(
                "evaluate.read_files=True needs evaluate.parallel='batch': many runs at once have "
                "their pictures on the device"
            )
        placed = place_items(items, [job.run for job in trained], devices=devices)
    done, total = 0, sum(job.n_steps for job in jobs)
    for group in groups_of(jobs, n_together(settings, devices, parallel)):
        if any(job.key not in finished for job in group):
            begun, its_settings = time.perf_counter(), with_steps(group[0].n_steps)
            report = lambda steps, done=done: progress(done + steps, total)
            if placed is None:
                made = _pretrain_alone(
                    items, group[0], its_settings, folder, devices, report, on_eval
                )
            else:
                made = pretrain_group(
                    placed,
                    [job.run for job in group],
                    its_settings,
                    devices=devices,
                    progress=report,
                    names=[job.in_words for job in group],
                )
            yield Group(group, made.params, made.losses, time.perf_counter() - begun)
        done += sum(job.n_steps for job in group)


def _pretrain_alone(
    items: np.ndarray | Source,
    job: Job,
    settings: training.PretrainConfig,
    folder: epath.Path | None,
    devices: Devices,
    report: Callable[[int], None],
    on_eval: OnEval | None,
) -> Pretrained:
    """Returns the encoder of a run whose batches are split over the devices.

    Raises:
        InputError: the run cannot be trained; the message names arm and seed.
    """
    data = _input_of(items, job.run, settings)
    try:
        trained = training.train(
            settings,
            data,
            seed=job.run.seed,
            devices=devices,
            folder=folder / job.name if folder is not None and job.n_steps else None,
            progress=lambda n_done, _: report(n_done),
            on_eval=on_eval,
        )
    except InputError as error:
        raise InputError(f"{job.in_words}: {error}") from error
    finally:
        data.close()
    return Pretrained(jax.tree.map(lambda p: p[None], trained.params), trained.losses[None])


def _input_of(
    items: np.ndarray | Source, run: training.Run, settings: training.PretrainConfig
) -> Input:
    """Returns the input of a run, of which each process gives a part."""
    common: dict[str, Any] = dict(n_parts=jax.process_count(), part=jax.process_index())
    common |= dict(n_steps=settings.n_steps, batch_size=settings.batch_size)
    if not isinstance(items, np.ndarray):
        from jaxcurate.training.grain_input import CropInput

        crops = settings.objective.chosen.crops(settings.model)
        return CropInput(items, run, crops, settings.augmentation, **common)
    input_of = training.ResidentInput if items.ndim == 4 else training.TokenInput
    return input_of(items, run, **common)


def facts_of(group: Group, settings: training.PretrainConfig, devices: Devices) -> dict[str, Any]:
    """Returns facts that the records of a group share."""
    return {
        "steps": group.jobs[0].n_steps,
        "batch": settings.batch_size,
        "objective": settings.objective.name,
        "seconds": round(group.seconds, 3),
        "runs_together": len(group.jobs),
        "device": f"{devices.count} x {jax.devices()[0].device_kind}",
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
    }
