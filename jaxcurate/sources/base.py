"""Protocol of a source of items, and the annotations that are kept apart from them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


class Item(NamedTuple):
    """One item of a pool, as every stage but the evaluation sees it: no label, no domain.

    Attributes:
        id: stable and unique in its source.
        image: uint8 ``[size, size, 3]`` RGB; or, for `npy:` sources, float32 ``[d]``.
    """

    id: str
    image: np.ndarray


class UnreadableItem(Exception):
    """An item that cannot be decoded: callers skip, count and list it.

    Attributes:
        id: the item's id.
        reason: what is wrong with it, in a few words.
    """

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(f"{id}: {reason}")
        self.id = id
        self.reason = reason


class Annotations(NamedTuple):
    """Labels and domains of items; for evaluation only.

    Attributes:
        label: unicode ``[n]``, "" where unknown.
        domain: unicode ``[n]``, "" where unknown.
    """

    label: np.ndarray
    domain: np.ndarray


class Source(Protocol):
    """Items that can be read by row number, from several threads at once."""

    @property
    def name(self) -> str:
        """Returns what the source calls itself in logs and reports."""
        ...

    @property
    def fingerprint(self) -> str:
        """Returns a string that changes when what the source yields changes."""
        ...

    def __len__(self) -> int:
        """Returns the number of rows, unreadable ones included."""
        ...

    def read(self, row: int) -> Item:
        """Returns the item of a row.

        Raises:
            UnreadableItem: where it cannot be decoded.
        """
        ...

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        """Returns the labels and domains of rows. For evaluation only: curation never sees them."""
        ...


@runtime_checkable
class InBlocks(Protocol):
    """Source that reads many rows as fast as one, in the order given."""

    def read_block(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids, unicode ``[b]``, and the items ``[b, ...]`` of rows."""
        ...


@runtime_checkable
class Skipping(Protocol):
    """Source that leaves things out before they have a row."""

    skipped: Sequence[tuple[str, str]]
    """Path and reason of each."""


@runtime_checkable
class Named(Protocol):
    """Source that knows its ids before it reads an item."""

    @property
    def ids(self) -> Iterable[str]:
        """Returns the id of every row, in order."""
        ...
