"""Protocol of a source of items, and annotations, which are kept apart from items."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources.synthetic.recipe import Recipe

Content = bytes | str | np.ndarray
"""Content of an item: the bytes of an encoded picture, a text, or a row of numbers ``[d]``."""
Kind = Literal["picture", "text", "vector"]
"""Kind of the items of a source."""


class Item(NamedTuple):
    """Item of a pool without label and domain, as all stages but the evaluation see it."""

    id: str
    """Stable id, unique in its source: a path, a key, or a hash of the content."""
    content: Content
    """Content as it is stored: encoded pictures are not decoded, and rows keep their dtype."""


class UnreadableItem(Exception):
    """Error of an item that cannot be read. Callers skip, count and list such items.

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
    def kind(self) -> Kind:
        """Kind of the items."""
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
            UnreadableItem: the item cannot be read.
        """
        ...

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        """Returns the labels and domains of rows, for evaluation only, never for curation."""
        ...


@runtime_checkable
class InBlocks(Protocol):
    """Protocol of a source of vectors that reads many rows in one call, without threads."""

    def read_block(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids, unicode ``[b]``, and the rows ``[b, d]``, in their order."""
        ...

    @property
    def width(self) -> int:
        """Number of columns of the rows."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers, as they are stored."""
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


@runtime_checkable
class Hashed(Protocol):
    """Protocol of a source whose ids may be hashes of the contents."""

    @property
    def ids_are_hashes(self) -> bool:
        """True if the id of an item is a hash of its content, equal for equal items."""
        ...


@runtime_checkable
class InFiles(Protocol):
    """Protocol of a source whose items are local files of their own."""

    def path(self, row: int) -> str:
        """Returns the absolute path of the file of a row."""
        ...


@runtime_checkable
class WithColumns(Protocol):
    """Protocol of a source that has columns of metadata beside the items."""

    @property
    def column_names(self) -> Sequence[str]:
        """Names of the columns."""
        ...

    def columns(self, rows: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Returns the values ``[b]`` of columns, by name, for rows in their order."""
        ...


@dataclass(frozen=True)
class Options:
    """Options of a source, of which it uses those that apply to it."""

    split: str = "train"
    """Name of the split of a dataset."""
    data_dir: str | os.PathLike | None = None
    """Folder of TFDS datasets. By default ``$JAXCURATE_DATA``, or ``data`` if it is not set."""
    recipe: Recipe | None = None
    """Recipe of ``tfds:weblike``. By default `jaxcurate.sources.synthetic.recipe.web_like`."""
    content_key: str | None = None
    """Feature or column with the picture, text or vector. By default it is found automatically."""
    id_key: str | None = None
    """Feature or column with the ids. By default ``id`` or ``key``, if there is one."""
    label_key: str | None = None
    """Feature or column with the labels. By default it is found automatically."""
    domain_key: str | None = None
    """Feature or column with the domains. By default ``domain``, if there is one."""
    leave_out: str | os.PathLike | None = None
    """Folder that is not searched for pictures: the work directory."""
    download: bool = False
    """Allow a dataset that is missing to be downloaded, and TFDS to run the program that prepares
    it."""
    verify: Literal["stat", "content"] = "stat"
    """Basis of the fingerprint of files: their sizes and times of change, or their content."""


SCHEMES: dict[str, Callable[[str, Options], Source]] = {}
"""Function that opens a source, by the scheme of its specification. It takes the part after the
colon, and the options. `jaxcurate.sources` fills the table."""


def without_splits(spec: str, options: Options) -> None:
    """Refuses a split of a source that has none.

    Args:
        spec: specification of the source, for errors.
        options: options of the source.

    Raises:
        InputError: a split other than ``train`` is asked for.

    Examples:
        >>> without_splits("npy:x.npy", Options(split="test"))
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: source 'npy:x.npy' has no splits, so no split 'test'
    """
    if options.split != "train":
        raise InputError(f"source {spec!r} has no splits, so no split {options.split!r}")


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
    without_splits(spec, options)
    if not is_local(path):
        raise InputError(f"source {spec!r} is not on this machine: only local paths are read")
    return os.path.expanduser(path)
