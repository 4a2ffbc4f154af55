"""Comparison of arms: the same pretraining on the rows of each, paired by seed, and probes."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxcurate import training
from jaxcurate.checks import InputError
from jaxcurate.curation.hierarchy import Progress
from jaxcurate.evaluation.arms import UNTRAINED
from jaxcurate.evaluation.intervals import Interval, paired_differences
from jaxcurate.evaluation.probing import probe_all
from jaxcurate.evaluation.runs import Group, Record, facts_of, jobs_of, pretrain_runs
from jaxcurate.runtime.devices import Devices


class HeldOut(NamedTuple):
    """Labeled items outside the pool."""

    images: np.ndarray
    """Images, uint8 ``[n, s, s, 3]``."""
    labels: np.ndarray
    """Label of each image, Unicode ``[n]``."""
    domains: np.ndarray
    """Domain of each image, Unicode ``[n]``."""


class Comparison(NamedTuple):
    """Results of a comparison by pretraining."""

    accuracies: dict[str, dict[str, list[float]]]
    """Accuracies by arm and measure (``knn``, ``ridge``, ``knn/head``, ``knn/DOMAIN``...), one for
    each seed."""
    differences: dict[str, dict[str, Interval]]
    """Differences by pair of arms (such as ``curated - random``) and measure."""
    losses: dict[str, np.ndarray]
    """Training losses by arm, float32 ``[n_seeds, n_steps]``."""
    records: list[Record]
    """Figures of every run, arm by arm."""


def compare(
    images: np.ndarray,
    arms: Mapping[str, Sequence[training.Run]],
    probe_set: HeldOut,
    test_set: HeldOut,
    frequency: Mapping[str, int],
    settings: training.PretrainConfig,
    *,
    n_steps: Mapping[str, int] | None = None,
    finished: Sequence[Record] = (),
    on_group: Callable[[list[Record]], None] = lambda records: None,
    devices: Devices | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Pretrains on every arm with every seed, and probes the encoders on held-out items.

    A seed fixes the initial weights and the random views for all arms alike, so that arms differ
    only in their data.

    Args:
        images: images of the pool, uint8 ``[n, s, s, 3]``.
        arms: the runs of each arm, with the same seeds in the same order.
        probe_set: the items that the probes are fitted to.
        test_set: the items that the probes are tested on.
        frequency: number of rows of the pool with each label, from
            :func:`jaxcurate.evaluation.probing.label_frequency`; empty to measure head and tail
            together.
        settings: the settings of every run.
        n_steps: the number of steps of each arm. By default that of the settings.
        finished: records of an interrupted call with the same other arguments, whose runs are not
            repeated. The results are those of an uninterrupted call, bit for bit.
        on_group: called with the records of runs that were pretrained together.
        devices: the devices over which runs are split; all by default.
        progress: called with the steps done.

    Returns:
        Accuracies of all arms and of untrained encoders, and their paired differences.

    Raises:
        InputError: the arms differ in their seeds, or the held-out items have no labels or a
            single one.
    """
    check_held_out(probe_set, test_set)
    devices = Devices.all() if devices is None else devices
    jobs = jobs_of(arms, n_steps or dict.fromkeys(arms, settings.n_steps))
    records = {record.key: record for record in finished}

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("pretraining steps", done, total)

    groups = pretrain_runs(
        images,
        jobs,
        settings,
        finished=frozenset(records),
        devices=devices,
        progress=report,
    )
    for group in groups:
        measured = _measure(group, probe_set, test_set, frequency, settings, devices)
        records |= {record.key: record for record in measured}
        on_group(measured)
    seeds = [run.seed for run in next(iter(arms.values()))]
    by_arm = {arm: [records[arm, seed] for seed in seeds] for arm in (*arms, UNTRAINED)}
    accuracies = {
        arm: {measure: [record.measures[measure] for record in of_arm] for measure in measures}
        for arm, of_arm in by_arm.items()
        for measures in [of_arm[0].measures]
    }
    return Comparison(
        accuracies,
        paired_differences(accuracies),
        {arm: np.stack([record.losses for record in by_arm[arm]]) for arm in arms},
        [record for of_arm in by_arm.values() for record in of_arm],
    )


def check_held_out(probe_set: HeldOut, test_set: HeldOut) -> None:
    """Refuses held-out items that no probe can tell apart.

    Raises:
        InputError: the items have no labels, or all of them have the same.

    Examples:
        >>> nothing = np.zeros((2, 8, 8, 3), np.uint8), np.array(["", ""]), np.array(["", ""])
        >>> check_held_out(HeldOut(*nothing), HeldOut(*nothing))
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: the items that probes are fitted to have no labels; \
config.label_key names the feature or column with them, and config.evaluate.arms=() evaluates \
without them
    """
    for held, purpose in ((probe_set, "fitted to"), (test_set, "tested on")):
        n_missing = int((held.labels == "").sum())
        if n_missing:
            share = "no labels" if n_missing == len(held.labels) else f"{n_missing} without a label"
            raise InputError(
                f"the items that probes are {purpose} have {share}; config.label_key names the "
                "feature or column with them, and config.evaluate.arms=() evaluates without them"
            )
    if len(np.unique(probe_set.labels)) < 2:
        raise InputError(
            f"all items that probes are fitted to have the label {str(probe_set.labels[0])!r}: "
            "at least two labels are needed, and config.evaluate.arms=() evaluates without them"
        )


def _measure(
    group: Group,
    probe_set: HeldOut,
    test_set: HeldOut,
    frequency: Mapping[str, int],
    settings: training.PretrainConfig,
    devices: Devices,
) -> list[Record]:
    """Returns the records of runs that were pretrained together."""
    # Filled up, so that groups of all sizes share one compiled function.
    n_together = devices.count * settings.runs_per_device
    n_more = max(0, n_together - len(group.jobs))
    filled = jax.tree.map(lambda p: np.concatenate([p, *[p[-1:]] * n_more]), group.params)
    train, test = (
        training.encode(filled, held.images, settings, devices=devices)
        for held in (probe_set, test_set)
    )
    facts = facts_of(group, settings, devices)
    return [
        Record(
            job.arm,
            job.run.seed,
            probe_all(
                train[i],
                test[i],
                probe_set.labels,
                test_set.labels,
                test_set.domains,
                frequency,
            ),
            group.losses[i],
            facts,
        )
        for i, job in enumerate(group.jobs)
    ]
