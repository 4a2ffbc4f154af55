"""Curated against random against the whole pool: the same training for each, paired by seed."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from jaxcurate import training
from jaxcurate.checks import InputError
from jaxcurate.curation.hierarchy import Progress
from jaxcurate.evaluation import probe
from jaxcurate.runtime.devices import Devices

UNTRAINED = "untrained"
"""The arm of encoders with random weights."""
PROBES = {"knn": probe.knn, "ridge": probe.ridge}


class HeldOut(NamedTuple):
    """Labelled items outside the pool."""

    images: np.ndarray
    """uint8 ``[n, s, s, 3]``."""
    labels: np.ndarray
    """Unicode ``[n]``."""
    domains: np.ndarray
    """Unicode ``[n]``."""


@dataclass(frozen=True)
class Interval:
    """A mean difference over seeds, with its 95 % t-interval."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]
    """One for each seed."""


class Comparison(NamedTuple):
    """Results of a comparison by pretraining."""

    accuracies: dict[str, dict[str, list[float]]]
    """Arm, then measure (``knn``, ``ridge``, ``knn/head``, ``knn/DOMAIN``...), then seeds."""
    differences: dict[str, dict[str, Interval]]
    """``curated - random`` and so on, then measure."""
    losses: dict[str, np.ndarray]
    """Arm, float32 ``[n_seeds, n_steps]``."""


def compare(
    images: np.ndarray,
    arms: Mapping[str, Sequence[training.Run]],
    probe_set: HeldOut,
    test_set: HeldOut,
    is_head: Mapping[str, bool],
    settings: training.PretrainConfig,
    *,
    devices: Devices | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Pretrains on every arm with every seed, and probes the encoders on held-out items.

    A seed fixes the initial weights and the random views for all arms alike, so that what
    differs between arms is the data.

    Args:
        images: of the pool, uint8 ``[n, s, s, 3]``.
        arms: the runs of each arm, with the same seeds in the same order.
        probe_set: what the probes learn from.
        test_set: what they are tested on.
        is_head: for each label whether it is one of those that fill the pool.
        settings: the same for every run.
        devices: the devices over which runs are split; all by default.
        progress: told the steps done.

    Raises:
        ValueError: the arms differ in their seeds.
    """
    seeds = [run.seed for run in next(iter(arms.values()))]
    for name, own in arms.items():
        if [run.seed for run in own] != seeds:
            raise InputError(f"arm {name!r} must have the seeds of the others: {seeds}")
    runs, n_seeds = [run for own in arms.values() for run in own], len(seeds)

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress("pretraining steps", done, total)

    trained = training.pretrain(images, runs, settings, devices=devices, progress=told)
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
            _probe(train, test, probe_set, test_set, is_head)
            for train, test in zip(*features, strict=True)
        ]
        accuracies[name] = {m: [one[m] for one in measured] for m in measured[0]}
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
    """Returns the mean of ``a - b`` over seeds with its Student t-interval.

    With one seed nothing is known of the spread: the interval is infinite.
    """
    values = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, -np.inf, np.inf, tuple(values.tolist()))
    error = values.std(ddof=1) / np.sqrt(len(values))
    import scipy.stats  # takes half a second, which `--help` need not wait for

    reach = float(scipy.stats.t.ppf(0.5 + level / 2, len(values) - 1) * error)
    return Interval(mean, mean - reach, mean + reach, tuple(values.tolist()))


def head_labels(labels: np.ndarray, known: np.ndarray) -> dict[str, bool]:
    """Returns for each known label whether it fills more of the pool than an even share would.

    Where the pool is even, no label is head and none is tail: the result is empty.
    """
    counts = {str(label): int((labels == label).sum()) for label in np.unique(labels)}
    even = len(labels) / max(1, len(counts))
    if max(counts.values()) < 1.5 * even:
        return {}
    return {str(label): counts.get(str(label), 0) > even for label in known}


def _probe(
    train: np.ndarray,
    test: np.ndarray,
    probe_set: HeldOut,
    test_set: HeldOut,
    is_head: Mapping[str, bool],
) -> dict[str, float]:
    """Returns all measures of one encoder."""
    names, labels = np.unique(
        np.concatenate([probe_set.labels, test_set.labels]), return_inverse=True
    )
    train_y, test_y = np.split(labels, [len(probe_set.labels)])
    domain_names, domains = np.unique(test_set.domains, return_inverse=True)
    out = {}
    for name, classify in PROBES.items():
        predicted = classify(train, train_y, test)
        out[name] = probe.macro_accuracy(predicted, test_y, domains)
        if len(domain_names) > 1:
            for number, accuracy in probe.domain_accuracies(predicted, test_y, domains).items():
                out[f"{name}/{domain_names[number]}"] = accuracy
        if is_head:
            head = np.array([is_head[str(label)] for label in names])[test_y]
            for part, rows in (("head", head), ("tail", ~head)):
                if rows.any():
                    out[f"{name}/{part}"] = probe.macro_accuracy(
                        predicted[rows], test_y[rows], domains[rows]
                    )
    return out
