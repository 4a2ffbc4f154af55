"""Findings that a report is made from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree


class Findings(NamedTuple):
    """Inputs of the page, the only ones."""

    title: str
    """Title of the page."""
    made_from: str
    """Fingerprint of the inputs, which the page holds so that an outdated page is recognized."""
    settings: dict[str, Any]
    """Settings of the whole run, as nested plain values."""
    cards: dict[str, dict[str, Any]]
    """Cards of the finished stages, by stage: seconds, devices, versions, checksums..."""
    pool: Pool
    """Pool that was curated."""
    tree: ClusterTree
    """Tree over the pool."""
    indices: np.ndarray
    """Rows of the pool in the subset, int64, sorted."""
    images: Callable[[np.ndarray], np.ndarray]
    """Function from ``m`` rows of the pool to their items: uint8 ``[m, s, s, 3]``, or float
    ``[m, d]`` if they are vectors."""
    results: dict[str, Any] | None
    """Contents of ``evaluation/results.json`` (balance, accuracies, differences), or None."""
    losses: dict[str, np.ndarray]
    """Training losses by arm, float32 ``[n_seeds, n_steps]``."""
