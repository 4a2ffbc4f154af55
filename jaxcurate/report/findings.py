"""Findings that a report is made from."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.sources.base import Kind


class Findings(NamedTuple):
    """Inputs of the page, the only ones."""

    title: str
    """Title of the page. The name of the source if it is empty."""
    source: str
    """Name of the source of the items."""
    kind: Kind
    """Kind of the items."""
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
    contents: Callable[[np.ndarray], Sequence[np.ndarray | str | None]]
    """Function from sorted rows of the pool to their items: square pictures uint8 ``[s, s, 3]``
    of any size (160 pixels are enough), texts, or None for vectors and for items that cannot be
    read now. It is called with at most 512 rows at once, and never twice with the same row."""
    links: Callable[[np.ndarray], Sequence[str | None]]
    """Function from rows of the pool to the path or URL of each item's own file, or None."""
    results: dict[str, Any] | None
    """Contents of ``evaluation/results.json`` (balance, accuracies, differences), or None."""
    losses: dict[str, np.ndarray]
    """Training losses by arm, float32 ``[n_seeds, n_steps]``."""
    duplicates: Sequence[tuple[int, int, float]] = ()
    """Row that deduplication dropped, row that stands for it, and cosine similarity of the two,
    for some of the dropped rows. The page shows those of the lowest similarity."""
