"""Protocol of an export format, and the writing of items to a folder shard by shard."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from etils import epath

from jaxcurate.artifacts import folders
from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.checks import InputError, check_choice, check_whole
from jaxcurate.sources.base import Content, Kind

KIND = "export"
"""Kind of a folder of exported items, as its card says it."""
_ROWS_AT_ONCE = 1024
_BYTES_AT_ONCE = 2**25


class ExportItem(NamedTuple):
    """Item of a subset, as it is handed to a format."""

    id: str
    """Id of the item."""
    content: Content | None
    """Content as it is stored. None for a format that needs none."""
    path: str | None
    """Absolute path of the item's own local file, if it has one."""
    row: int
    """Row of the pool."""
    count: int
    """Number of times that the item was drawn."""
    extra: Mapping[str, Any] = {}
    """Values of further columns, by name, such as the clusters of the item."""


class Shard(NamedTuple):
    """Part of the items, which is written in one go."""

    index: int
    """Number of the shard, from 0."""
    n_shards: int
    """Number of all shards."""
    kind: Kind
    """Kind of the items."""
    items: Iterator[ExportItem]
    """Items of the shard, in order, read while they are written."""

    def name(self, suffix: str, stem: str = "data") -> str:
        """Returns the name of a file with the number of the shard, such as
        ``data-00000-of-00004.tar``."""
        return shard_name(self.index, self.n_shards, suffix, stem)


class Plan(NamedTuple):
    """Facts about a whole export, which is finished with them."""

    name: str
    """Name of the subset."""
    kind: Kind
    """Kind of the items."""
    n_records: tuple[int, ...]
    """Number of records of each shard, as `Format.write_shard` returned it."""
    width: int | None = None
    """Number of columns of vectors."""
    dtype: str | None = None
    """Name of the type of vectors, as they are stored."""


class Format(Protocol):
    """Protocol of an export format.

    Every file of a shard depends on the shard alone, and its bytes on the items alone. An export
    that was killed can therefore go on at the first shard that is not whole, once all files that
    `NewFolder.files` does not list are removed. The memory that a format takes does not grow with
    the number of items, but for a few bytes an item where a format writes a single array.
    """

    name: str
    """Name of the format in the settings."""
    kinds: tuple[Kind, ...]
    """Kinds of items that the format takes."""
    needs_content: bool
    """True if contents are written, and not only ids and paths."""
    repeats: bool
    """True if an item that was drawn twice is written twice, for formats that training loops
    iterate. Otherwise it is written once, with the number of draws in a column ``count``."""
    in_shards: bool
    """True if there may be several shards."""

    def write_shard(self, folder: NewFolder, shard: Shard) -> int:
        """Writes the files of one shard.

        Returns:
            The number of records that were written.

        Raises:
            InputError: the items cannot be written in this format, or the disk is full.
        """
        ...

    def finish(self, folder: NewFolder, plan: Plan) -> None:
        """Writes the files that describe the whole export."""
        ...


FORMATS: dict[str, Format] = {}
"""Formats by name; filled in `jaxcurate.export`."""


def export_items(
    path: epath.PathLike,
    items: Iterable[ExportItem],
    kind: Kind,
    format: str,
    about: Mapping[str, Any],
    *,
    items_per_shard: int = 10_000,
    n_items: int,
    name: str = "curated",
) -> None:
    """Writes the items of a subset to a folder, whole or not at all.

    Args:
        path: the folder, which must be absent, empty, or written by jaxcurate.
        items: items, each once.
        kind: kind of all items.
        format: a name in :data:`FORMATS`.
        about: entries to add to the folder's ``card.json``.
        items_per_shard: largest number of items of a shard, for formats that have shards.
        n_items: number of items, at least one.
        name: name of the subset.

    Raises:
        InputError: the format is unknown, or it cannot hold the items.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from jaxcurate.export import ExportItem, export_items
        >>> items = [ExportItem("1", "a text", None, 0, 1), ExportItem("2", "two", None, 1, 2)]
        >>> with tempfile.TemporaryDirectory() as work:
        ...     export_items(f"{work}/out", items, "text", "copy", {"seed": 0}, n_items=2)
        ...     (Path(work) / "out/1%.txt").read_text()
        'a text'
    """
    check_choice("format", format, FORMATS)
    check_whole("items_per_shard", items_per_shard, 1)
    check_whole("n_items", n_items, 1)
    writer = FORMATS[format]
    check_kind(writer, kind)
    sizes = shard_sizes(n_items, items_per_shard if writer.in_shards else n_items)
    facts, n_records = _Facts(items), []
    with folders.new_folder(path, about, KIND) as folder:
        for index, size in enumerate(sizes):
            shard = Shard(index, len(sizes), kind, itertools.islice(facts, size))
            n_records.append(writer.write_shard(folder, shard))
        found = "more" if next(facts, None) is not None else facts.n
        if found != n_items:
            raise InputError(f"n_items={n_items}, but there are {found} items")
        plan = Plan(name, kind, tuple(n_records), facts.width, facts.dtype)
        writer.finish(folder, plan)


def check_kind(format: Format, kind: Kind) -> None:
    """Refuses items of a kind that a format does not take.

    Raises:
        InputError: the message names the formats that take the items.

    Examples:
        >>> from jaxcurate.export import FORMATS
        >>> check_kind(FORMATS["npy"], "text")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: export.format='npy' takes no items of the kind 'text'; \
these do: 'list', 'link', 'copy', 'tfds', 'webdataset', 'huggingface', 'parquet'
    """
    if kind not in format.kinds:
        others = ", ".join(repr(name) for name, other in FORMATS.items() if kind in other.kinds)
        raise InputError(
            f"export.format={format.name!r} takes no items of the kind {kind!r}; these do: {others}"
        )


def shard_sizes(n_items: int, items_per_shard: int) -> tuple[int, ...]:
    """Returns the number of items of each shard, of which only the last may be smaller.

    Examples:
        >>> shard_sizes(10, 4)
        (4, 4, 2)
    """
    whole, rest = divmod(n_items, items_per_shard)
    return (items_per_shard,) * whole + ((rest,) if rest else ())


def shard_name(index: int, n_shards: int, suffix: str, stem: str = "data") -> str:
    """Returns the name of a file of a shard.

    Examples:
        >>> shard_name(0, 4, ".tar")
        'data-00000-of-00004.tar'
    """
    return f"{stem}-{index:05d}-of-{n_shards:05d}{suffix}"


def batches(items: Iterable[ExportItem]) -> Iterator[list[ExportItem]]:
    """Yields lists of items, bounded in number and in bytes, for formats that write tables.

    Examples:
        >>> items = [ExportItem(str(i), None, None, i, 1) for i in range(1500)]
        >>> [len(batch) for batch in batches(items)]
        [1024, 476]
    """
    batch, n_bytes = [], 0
    for item in items:
        batch.append(item)
        n_bytes += _size(item.content)
        if len(batch) == _ROWS_AT_ONCE or n_bytes >= _BYTES_AT_ONCE:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


def repeated(items: Iterable[ExportItem]) -> Iterator[ExportItem]:
    """Yields each item as many times as it was drawn.

    Examples:
        >>> items = [ExportItem("a", None, None, 0, 2), ExportItem("b", None, None, 1, 1)]
        >>> [item.id for item in repeated(items)]
        ['a', 'a', 'b']
    """
    for item in items:
        yield from itertools.repeat(item, item.count)


def encoded(item: ExportItem) -> bytes:
    """Returns the bytes of the content of a picture or a text.

    Raises:
        InputError: the text is not valid Unicode, or the content is of another kind.

    Examples:
        >>> encoded(ExportItem("a", "text", None, 0, 1))
        b'text'
    """
    if isinstance(item.content, bytes):
        return item.content
    if isinstance(item.content, str):
        return utf8(item.content, f"the text of item {item.id!r}")
    raise InputError(f"item {item.id!r} is no picture or text: export it as 'npy'")


def utf8(text: str, what: str) -> bytes:
    """Returns a text in UTF-8.

    Args:
        text: any text.
        what: name of the text in the error.

    Raises:
        InputError: the text has half of a surrogate pair, which has no form in UTF-8.

    Examples:
        >>> utf8("zoë", "id")
        b'zo\\xc3\\xab'
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what} is not valid Unicode, which this format needs") from error


def vector(item: ExportItem) -> np.ndarray:
    """Returns the content of a vector.

    Raises:
        InputError: the content is of another kind.

    Examples:
        >>> vector(ExportItem("a", np.zeros(3), None, 0, 1)).shape
        (3,)
    """
    if not isinstance(item.content, np.ndarray):
        raise InputError(f"item {item.id!r} is no vector")
    return item.content


def _size(content: Content | None) -> int:
    return content.nbytes if isinstance(content, np.ndarray) else len(content or b"")


class _Facts:
    """Iterator over items that counts them, and notes the form of vectors."""

    def __init__(self, items: Iterable[ExportItem]) -> None:
        self._items = iter(items)
        self.n = 0
        self.width: int | None = None
        self.dtype: str | None = None

    def __iter__(self) -> "_Facts":
        return self

    def __next__(self) -> ExportItem:
        item = next(self._items)
        self.n += 1
        if isinstance(item.content, np.ndarray):
            self.width, self.dtype = len(item.content), item.content.dtype.name
        return item
