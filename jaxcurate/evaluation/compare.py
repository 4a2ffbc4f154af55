"""Comparison of arms: the same pretraining on the rows of each, paired by seed, and probes."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from jaxcurate import training
from jaxcurate.checks import InputError
from jaxcurate.curation.hierarchy import Progress
from jaxcurate.evaluation.probing import probe_all
from jaxcurate.runtime.devices import Devices

UNTRAINED = "untrained"
"""Name of the arm whose encoders keep their random weights."""


class HeldOut(NamedTuple):
    """Labeled items outside the pool."""

    images: np.ndarray
    """Images, uint8 ``[n, s, s, 3]``."""
    labels: np.ndarray
    """Label of each image, Unicode ``[n]``."""
    domains: np.ndarray
    """Domain of each image, Unicode ``[n]``."""


@dataclass(frozen=True)
class Interval:
    """Mean of a paired difference over seeds, with its confidence interval."""

    mean: float
    """Mean over seeds."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    values: tuple[float, ...]
    """Difference at each seed."""


class Comparison(NamedTuple):
    """Results of a comparison by pretraining."""

    accuracies: dict[str, dict[str, list[float]]]
    """Accuracies by arm and measure (``knn``, ``ridge``, ``knn/head``, ``knn/DOMAIN``...), one for
    each seed."""
    differences: dict[str, dict[str, Interval]]
    """Differences by pair of arms (such as ``curated - random``) and measure."""
    losses: dict[str, np.ndarray]
    """Training losses by arm, float32 ``[n_seeds, n_steps]``."""


def compare(
    images: np.ndarray,
    arms: Mapping[str, Sequence[training.Run]],
    probe_set: HeldOut,
    test_set: HeldOut,
    frequency: Mapping[str, int],
    settings: training.PretrainConfig,
    *,
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
        devices: the devices over which runs are split; all by default.
        progress: called with the steps done.

    Returns:
        Accuracies of all arms and of untrained encoders, and their paired differences.

    Raises:
        ValueError: the arms differ in their seeds.
    """
    seeds = [run.seed for run in next(iter(arms.values()))]
    for name, runs_of_arm in arms.items():
        if [run.seed for run in runs_of_arm] != seeds:
            raise InputError(f"arm {name!r} must have the seeds of the others: {seeds}")
    runs = [run for runs_of_arm in arms.values() for run in runs_of_arm]
    n_seeds = len(seeds)

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("pretraining steps", done, total)

    trained = training.pretrain(images, runs, settings, devices=devices, progress=report)
    untrained = training.pretrain(
        images[:2],
        [training.Run(np.arange(2), seed) for seed in seeds],
        dataclasses.replace(settings, n_steps=0),
        devices=devices,
    )
    encoders = {
        name: jax.tree.map(lambda p, i=i: p[i * n_seeds : (i + 1) * n_seeds], trained.params)
        for i, name in enumerate(arms)
    }
    accuracies = {}
    for name, params in {**encoders, UNTRAINED: untrained.params}.items():
        features = [
            training.encode(params, held.images, settings, devices=devices)
            for held in (probe_set, test_set)
        ]
        measured = [
            probe_all(train, test, probe_set.labels, test_set.labels, test_set.domains, frequency)
            for train, test in zip(*features, strict=True)
        ]
        accuracies[name] = {key: [values[key] for values in measured] for key in measured[0]}
    names = list(accuracies)
    differences = {
        f"{a} - {b}": {
            measure: paired_interval(accuracies[a][measure], accuracies[b][measure])
            for measure in accuracies[a]
        }
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    }
    losses = {name: trained.losses[i * n_seeds : (i + 1) * n_seeds] for i, name in enumerate(arms)}
    return Comparison(accuracies, differences, losses)


def paired_interval(a: list[float], b: list[float], level: float = 0.95) -> Interval:
    """Returns the mean of ``a - b`` over seeds with its Student t confidence interval.

    Args:
        a: values of one arm, one for each seed.
        b: values of another arm with the same seeds.
        level: confidence level of the interval, above 0 and below 1.

    Returns:
        The mean and its interval; with a single seed the spread is unknown and the interval
        infinite.

    References:
        Student: The probable error of a mean (1908).

    Examples:
        >>> curated, random = [0.52, 0.55, 0.53], [0.48, 0.50, 0.50]
        >>> difference = paired_interval(curated, random)
        >>> f"{difference.mean:.3f} ({difference.low:.3f} to {difference.high:.3f})"
        '0.040 (0.015 to 0.065)'
    """
    values = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, -np.inf, np.inf, tuple(values.tolist()))
    error = values.std(ddof=1) / np.sqrt(len(values))
    import scipy.special  # lazily, so that `--help` need not wait for it

    half = float(scipy.special.stdtrit(len(values) - 1, 0.5 + level / 2) * error)
    return Interval(mean, mean - half, mean + half, tuple(values.tolist()))
