"""Measures of training rows that are known before training: balance, coverage, near-duplicates."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.evaluation.accuracy import macro_mean
from jaxcurate.evaluation.balance import balance_of
from jaxcurate.evaluation.coverage import level_balance
from jaxcurate.neighbors.nearest_rows import nearest_rows
from jaxcurate.pipeline.items import Items
from jaxcurate.runtime.devices import Devices
from jaxcurate.sources import Annotations

NEAR = 0.99
"""Cosine at or above which a row counts as a near-duplicate of another."""
_QUERIES = 2000
"""Largest number of rows whose near-duplicates are sought."""


class HeldOutRows(NamedTuple):
    """Embedded items of the probe set."""

    embeddings: np.ndarray
    """Float ``[m, d]``."""
    labels: np.ndarray
    """Label of each, Unicode ``[m]``."""
    domains: np.ndarray
    """Domain of each, Unicode ``[m]``."""


def embed_probe_set(items: Items) -> HeldOutRows:
    """Returns the probe set, embedded like the pool."""
    source = items.held_out_sources[0]
    blocks = list(items.embedded("probe set", source, source.name, need_direction=False))
    rows = np.concatenate([block.items for block in blocks])
    notes = source.annotations(rows)
    embeddings = np.concatenate([block.embeddings for block in blocks])
    return HeldOutRows(embeddings, notes.label, notes.domain)


class Yardstick(NamedTuple):
    """Pool and held-out items by which rows are measured."""

    embeddings: np.ndarray
    """Embeddings of the pool, ``[n, d]``."""
    notes: Annotations
    """Labels and domains of the pool."""
    tree: ClusterTree
    """Tree over the pool."""
    held_out: HeldOutRows
    """Items outside the pool."""

    def measure(self, rows: np.ndarray, devices: Devices) -> dict[str, float]:
        """Returns the measures of rows of the pool, int64 ``[m]``, each as often as it is seen.

        Returns:
            ``domain_entropy`` and ``label_entropy``, where there are several; ``cluster_entropy``
            and ``cluster_gini`` of the lowest level, ``top_entropy`` and ``top_gini`` of the
            highest; ``held_out_distance``, the macro mean over classes of the Euclidean distance to
            the nearest row; ``near_duplicates``, a fraction.
        """
        measures = {}
        for name, groups in (("domain", self.notes.domain), ("label", self.notes.label)):
            known = np.unique(groups)
            if len(known) > 1:
                measures[f"{name}_entropy"] = balance_of(groups[rows], known).entropy
        balances = level_balance(self.tree, rows)
        for name, of_level in (("cluster", balances[0]), ("top", balances[-1])):
            measures |= {f"{name}_entropy": of_level.entropy, f"{name}_gini": of_level.gini}
        distinct = np.unique(rows)
        x = np.asarray(self.embeddings)[distinct]
        held = self.held_out
        nearest = nearest_rows(x, held.embeddings, 1, "euclidean", devices=devices)
        distances = np.sqrt(np.maximum(nearest.distances[:, 0].astype(np.float64), 0))
        labeled = held.labels != ""
        measures["held_out_distance"] = macro_mean(
            distances[labeled], held.labels[labeled], held.domains[labeled]
        )
        measures["near_duplicates"] = near_duplicates(x, devices)
        return measures


def near_duplicates(x: np.ndarray, devices: Devices, threshold: float = NEAR) -> float:
    """Returns the fraction of rows that have another row within the threshold.

    Args:
        x: rows ``[n, d]``, of which at most 2,000, evenly spaced, are looked at.
        devices: the devices.
        threshold: cosine at or above which two rows are near-duplicates.
    """
    if len(x) < 2:
        return 0.0
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _QUERIES)).astype(np.int64))
    nearest = nearest_rows(x, x[chosen], 2, "cosine", devices=devices)
    other = np.where(nearest.rows[:, 0] == chosen, nearest.distances[:, 1], nearest.distances[:, 0])
    return float(np.mean(1 - other >= threshold))


def rounded(measures: Mapping[str, float]) -> dict[str, float]:
    """Returns measures with six digits after the point."""
    return {name: round(float(value), 6) for name, value in measures.items()}
