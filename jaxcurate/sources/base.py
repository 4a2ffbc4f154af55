"""Protocol of a source of items, and annotations, which are kept apart from items."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxcurate.artifacts.files import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources.synthetic.recipe import Recipe


class Item(NamedTuple):
    """Item of a pool without label and domain, as all stages but the evaluation see it.

    Attributes:
        id: stable id, unique in its source.
        image: uint8 ``[size, size, 3]`` RGB, or float32 ``[d]`` for `npy:` sources.
    """

    id: str
    image: np.ndarray


class UnreadableItem(Exception):
    """Error of an item that cannot be decoded. Callers skip, count and list such items.

    Attributes:
        id: id of the item.
        reason: reason in a few words.
    """

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(f"{id}: {reason}")
        self.id = id
        self.reason = reason


class Annotations(NamedTuple):
    """Labels and domains of items, for evaluation only.

    Attributes:
        label: unicode ``[n]``, "" if unknown.
        domain: unicode ``[n]``, "" if unknown.
    """

    label: np.ndarray
    domain: np.ndarray


class Source(Protocol):
    """Protocol of items that are read by row number, possibly from several threads at once."""

    @property
    def name(self) -> str:
        """Name of the source in logs and reports."""
        ...

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the items, which changes whenever an item changes."""
        ...

    def __len__(self) -> int:
        """Returns the number of rows, including unreadable rows."""
        ...

    def read(self, row: int) -> Item:
        """Returns the item of a row.

        Raises:
            UnreadableItem: the item cannot be decoded.
        """
        ...

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        """Returns the labels and domains of rows, for evaluation only, never for curation."""
        ...


@runtime_checkable
class InBlocks(Protocol):
    """Protocol of a source that reads many rows in one call, without threads."""

    def read_block(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids, unicode ``[b]``, and the items ``[b, ...]`` of rows, in their order."""
        ...


@runtime_checkable
class Skipping(Protocol):
    """Protocol of a source that skips files or folders, which then have no row."""

    skipped: Sequence[tuple[str, str]]
    """Path and reason of each skipped file or folder."""


@runtime_checkable
class Named(Protocol):
    """Protocol of a source that knows its ids without reading items."""

    @property
    def ids(self) -> Iterable[str]:
        """Ids of all rows, in order."""
        ...


@dataclass(frozen=True)
class Options:
    """Options of a source, of which it uses those that apply to it."""

    split: str = "train"
    """Name of the split of a dataset."""
    data_dir: str | os.PathLike | None = None
    """Folder of TFDS datasets. By default ``$JAXCURATE_DATA``, or ``data`` if it is not set."""
    image_size: int = 32
    """Side of the images in pixels."""
    recipe: Recipe | None = None
    """Recipe of ``tfds:weblike``. By default `jaxcurate.sources.synthetic.recipe.web_like`."""
    image_key: str | None = None
    """Image feature of a TFDS dataset. By default it is found automatically."""
    label_key: str | None = None
    """Label feature of a TFDS dataset. By default it is found automatically."""
    leave_out: str | os.PathLike | None = None
    """Folder that is not searched for pictures: the work directory."""
    download: bool = False
    """Allow TFDS to download a dataset that is missing, and to run the program that prepares
    it."""


SCHEMES: dict[str, Callable[[str, Options], Source]] = {}
"""Function that opens a source, by the scheme of its specification. It takes the part after the
colon, and the options. `jaxcurate.sources` fills the table."""


def local_path(spec: str, path: str, options: Options) -> str:
    """Returns the path of a source of local files, which has no splits.

    Args:
        spec: specification of the source, for errors.
        path: path after the colon, which may begin with ``~``.
        options: options of the source. A split is refused.

    Raises:
        InputError: a split is asked for, or the path is on another machine.

    Examples:
        >>> local_path("npy:/data/x.npy", "/data/x.npy", Options())
        '/data/x.npy'
    """
    if options.split != "train":
        raise InputError(f"source {spec!r} has no splits, so no split {options.split!r}")
    if not is_local(path):
        raise InputError(f"source {spec!r} is not on this machine: only local paths are read")
    return os.path.expanduser(path)
