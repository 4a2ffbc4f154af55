"""Protocol of a source of items, and the annotations that are kept apart from them."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxcurate.artifacts.files import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources.synthetic.recipe import Recipe


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


@dataclass(frozen=True)
class Options:
    """How the items of a source are read, as far as it asks for it."""

    split: str = "train"
    """Name of the split, of a dataset that has any."""
    data_dir: str | os.PathLike | None = None
    """Folder of TFDS datasets; by default ``$JAXCURATE_DATA``, or else ``data``."""
    image_size: int = 32
    """Side of the images in pixels."""
    recipe: Recipe | None = None
    """Recipe of ``tfds:weblike``; by default `jaxcurate.sources.synthetic.recipe.web_like`."""
    image_key: str | None = None
    """Image feature of a TFDS dataset, where it is not found by itself."""
    label_key: str | None = None
    """Label feature of a TFDS dataset, where it is not found by itself."""
    leave_out: str | os.PathLike | None = None
    """Folder in which no pictures are looked for: the work directory."""
    download: bool = False
    """Whether TFDS may download a dataset that is not there, and run the program that prepares
    it."""


SCHEMES: dict[str, Callable[[str, Options], Source]] = {}
"""What opens a source, by what its specification begins with; filled in `jaxcurate.sources`. It
takes what follows the colon, and the options."""


def local_path(spec: str, path: str, options: Options) -> str:
    """Returns the path of files on this machine that are one source, without splits.

    Args:
        spec: what errors call the source.
        path: may begin with ``~``.
        options: of which a split is refused.

    Raises:
        InputError: a split is asked for, or the path is on another machine.
    """
    if options.split != "train":
        raise InputError(f"source {spec!r} has no splits, so no split {options.split!r}")
    if not is_local(path):
        raise InputError(f"source {spec!r} is not on this machine: only local paths are read")
    return os.path.expanduser(path)
