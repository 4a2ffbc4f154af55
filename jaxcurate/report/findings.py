"""Findings that a report is made from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree


class Findings(NamedTuple):
    """All that the page tells; nothing in it is made up by the page."""

    title: str
    made_from: str
    """Fingerprint of the inputs; stands in the page so that a page out of date is known."""
    settings: dict[str, Any]
    """The whole run's, as nested plain values."""
    cards: dict[str, dict[str, Any]]
    """Cards of the stages that are done, by stage: seconds, devices, versions, checksums..."""
    pool: Pool
    tree: ClusterTree
    indices: np.ndarray
    """int64, sorted: the subset's rows of the pool."""
    images: Callable[[np.ndarray], np.ndarray]
    """Rows of the pool to uint8 ``[m, s, s, 3]``, or float ``[m, d]`` where items are vectors."""
    results: dict[str, Any] | None
    """``evaluation/results.json``: balance, accuracies, differences."""
    losses: dict[str, np.ndarray]
    """Arm to float32 ``[n_seeds, n_steps]``."""
