"""Comparison of arms: the same pretraining on the rows of each, paired by seed, and probes."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from jaxcurate import training
from jaxcurate.curation.hierarchy import Progress
from jaxcurate.evaluation.accuracy import macro_accuracy
from jaxcurate.evaluation.arms import UNTRAINED, Parallel
from jaxcurate.evaluation.intervals import Interval, paired_differences
from jaxcurate.evaluation.other_tests import probe_other
from jaxcurate.evaluation.probes.knn import knn
from jaxcurate.evaluation.probing import DEFAULT, check_labels, probe_all
from jaxcurate.evaluation.runs import Group, Record, facts_of, jobs_of, n_together, pretrain_runs
from jaxcurate.runtime.devices import Devices
from jaxcurate.sources import Source
from jaxcurate.training.online import SCORE, OnEval, Params


class HeldOut(NamedTuple):
    """Labeled items outside the pool."""

    items: np.ndarray
    """Pictures, uint8 ``[n, s, s, 3]``, or token ids, int32 ``[n, n_tokens]``."""
    labels: np.ndarray
    """Label of each item, Unicode ``[n]``."""
    domains: np.ndarray
    """Domain of each item, Unicode ``[n]``."""
    ids: np.ndarray = np.zeros(0, np.str_)
    """Id of each item, Unicode ``[n]``, by which other labeled sources are split."""


class Probing(NamedTuple):
    """Items and measures by which encoders are compared."""

    probe_set: HeldOut
    """Items that the probes are fitted to."""
    test_set: HeldOut
    """Items that the probes are tested on."""
    frequency: Mapping[str, int]
    """Number of rows of the pool with each label; empty to measure head and tail together."""
    probes: Sequence[str] = DEFAULT
    """Names of the measures."""
    per_class: bool = False
    """True to measure every label by itself as well."""
    others: Mapping[str, HeldOut] = {}
    """Items of other labeled sources, by their names."""


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
    items: np.ndarray | Source,
    arms: Mapping[str, Sequence[training.Run]],
    probing: Probing,
    settings: training.PretrainConfig,
    *,
    parallel: Parallel = "runs",
    folder: epath.Path | None = None,
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
        items: items of the pool: pictures, uint8 ``[n, s, s, 3]``, token ids, int32
            ``[n, n_tokens]``, or, if batches are split, a source of pictures of any size.
        arms: the runs of each arm, with the same seeds in the same order.
        probing: the items and the measures.
        settings: the settings of every run.
        parallel: work that is split over the devices: runs, or the batches of a run at a time.
        folder: folder of the runs whose batches are split; None keeps no checkpoints.
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
    check_labels(probing.probe_set.labels, probing.test_set.labels)
    devices = Devices.all() if devices is None else devices
    jobs = jobs_of(arms, n_steps or dict.fromkeys(arms, settings.n_steps))
    records = {record.key: record for record in finished}

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("pretraining steps", done, total)

    groups = pretrain_runs(
        items,
        jobs,
        settings,
        parallel=parallel,
        folder=folder,
        on_eval=online_knn(probing.probe_set, settings, devices),
        finished=frozenset(records),
        devices=devices,
        progress=report,
    )
    for group in groups:
        measured = _measure(
            group, probing, settings, n_together(settings, devices, parallel), devices
        )
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


def online_knn(held: HeldOut, settings: training.PretrainConfig, devices: Devices) -> OnEval:
    """Returns the function that measures an encoder while it is trained, by k-NN.

    Every other item of the probe set is classified by those between, so that no test item has a
    part in the choice of the best encoder.

    Args:
        held: the probe set.
        settings: the settings of the encoder.
        devices: the devices that encode.
    """

    def measure(n_done: int, params: Params) -> dict[str, float]:
        del n_done
        alone = jax.tree.map(lambda p: p[None], params)
        x = training.encode(alone, held.items, settings, devices=devices)[0]
        fit, rest = slice(None, None, 2), slice(1, None, 2)
        predicted = knn(x[fit], held.labels[fit], x[rest])
        accuracy = macro_accuracy(predicted, held.labels[rest], held.domains[rest])
        return {"knn": accuracy, SCORE: accuracy}

    return measure


def _measure(
    group: Group,
    probing: Probing,
    settings: training.PretrainConfig,
    n_at_once: int,
    devices: Devices,
) -> list[Record]:
    """Returns the records of runs that were pretrained together."""
    # Filled up, so that groups of all sizes share one compiled function.
    n_more = max(0, n_at_once - len(group.jobs))
    filled = jax.tree.map(lambda p: np.concatenate([p, *[p[-1:]] * n_more]), group.params)

    def features(held: HeldOut) -> np.ndarray:
        return training.encode(filled, held.items, settings, devices=devices)

    probe_set, test_set, frequency, probes, per_class, others = probing
    train, test = features(probe_set), features(test_set)
    of_others = {name: features(held) for name, held in others.items()}
    facts, records = facts_of(group, settings, devices), []
    for i, job in enumerate(group.jobs):
        measures = probe_all(
            train[i],
            test[i],
            probe_set.labels,
            test_set.labels,
            test_set.domains,
            frequency,
            probes,
            per_class=per_class,
        )
        for name, held in others.items():
            about = held.labels, held.domains, held.ids
            measures |= probe_other(name, of_others[name][i], *about, {}, probes)
        records.append(Record(job.arm, job.run.seed, measures, group.losses[i], facts))
    return records
