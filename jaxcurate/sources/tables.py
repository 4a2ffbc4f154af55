"""Source of the rows of Arrow tables that lie in parts, of which a few are kept in memory."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.sources.base import Annotations, Item, Kind, Options, UnreadableItem
from jaxcurate.sources.columns import (
    choose_fields,
    content_of,
    metadata_of,
    note_of,
    width_of,
)
from jaxcurate.sources.names import content_id
from jaxcurate.sources.usable import UnusableContent

if TYPE_CHECKING:
    import pyarrow as pa

_CACHE_BYTES = 2**29


class Parts(Protocol):
    """Protocol of a table in parts, such as the row groups of Parquet files."""

    schema: "pa.Schema"
    """Schema of all parts."""
    ends: np.ndarray
    """int64 ``[p]``, the number of rows up to the end of each part."""

    def read(self, part: int, names: Sequence[str]) -> "pa.Table":
        """Returns columns of a part, checked so that its values can be read.

        Raises:
            InputError: the part cannot be read.
        """
        ...

    def place(self, part: int) -> tuple[str, int, str]:
        """Returns the name of the file of a part, its first row there, and the file's folder."""
        ...


class TableSource:
    """Source of the rows of a table in parts.

    Args:
        name: name of the source.
        parts: table in parts.
        options: options of the source with the keys of the columns.
        fingerprint: function that returns the fingerprint.

    Raises:
        InputError: there are no rows, or no column of contents.
    """

    def __init__(
        self, name: str, parts: Parts, options: Options, fingerprint: Callable[[], str]
    ) -> None:
        self.name = name
        self._parts = parts
        self._fields = choose_fields(parts.schema, options, name)
        self._fingerprint = fingerprint
        if not len(self):
            raise InputError(f"{name} has no rows")
        content, id_ = self._fields.content, self._fields.id
        names = [content] if id_ in (None, content) else [content, id_]
        self._cache = _PartCache(lambda part: parts.read(part, names))
        self._width = self._first_width() if self.kind == "vector" else None

    def _first_width(self) -> int | None:
        """Returns the width of most vectors of the first part that has vectors."""
        column = self._fields.content
        for part in range(len(self._parts.ends)):
            width = width_of(self._parts.read(part, [column])[column])
            if width is not None:
                return width
        raise InputError(f"{self.name}: column {column!r} has no numbers")

    @property
    def kind(self) -> Kind:
        """Kind of the contents."""
        return self._fields.kind

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the files and of the keys of the columns."""
        return self._fingerprint()

    @property
    def ids_are_hashes(self) -> bool:
        """True if the id of an item is a hash of its content, equal for equal items."""
        return self._fields.id is None

    @property
    def column_names(self) -> Sequence[str]:
        """Names of the columns of metadata, without content, ids, labels and domains."""
        return self._fields.metadata

    def __len__(self) -> int:
        return int(self._parts.ends[-1]) if len(self._parts.ends) else 0

    def read(self, row: int) -> Item:
        part, within = self._part_of(row)
        file, first, folder = self._parts.place(part)
        place = f"{file}#{first + within}"
        fields = self._fields
        try:
            table = self._cache.get(part)
        except InputError as error:
            raise UnreadableItem(place, str(error)) from error
        id_ = None
        if fields.id is not None:
            id_ = self._id(table[fields.id], within, place)
        try:
            content = content_of(table[fields.content], within, fields.kind, self._width, folder)
        except UnusableContent as error:
            raise UnreadableItem(id_ or place, str(error)) from error
        if id_ is None:
            hashed = content.tobytes() if isinstance(content, np.ndarray) else content
            id_ = content_id(hashed)
        return Item(id_, content)

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        rows = np.asarray(rows, np.int64)
        names = [name for name in (self._fields.label, self._fields.domain) if name is not None]
        table = self._taken(rows, names) if names and len(rows) else {}
        unknown = np.full(len(rows), "", np.str_)

        def notes(name: str | None) -> np.ndarray:
            if name is None or name not in table:
                return unknown
            classes = self._fields.class_names.get(name)
            try:
                values = table[name].to_pylist()
            except UnicodeDecodeError as error:
                raise InputError(f"{self.name}: column {name!r} is not UTF-8") from error
            return np.array([note_of(value, classes) for value in values], np.str_)

        return Annotations(notes(self._fields.label), notes(self._fields.domain))

    def columns(self, rows: np.ndarray, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Returns the values ``[b]`` of columns of metadata, by name, for rows in their order.

        Raises:
            InputError: a name is not among `column_names`, or a part cannot be read.
        """
        unknown = [name for name in names if name not in self.column_names]
        if unknown:
            there = ", ".join(self.column_names) or "none"
            raise InputError(f"{self.name} has no column {unknown[0]!r}; there are: {there}")
        if not names:
            return {}
        table = self._taken(np.asarray(rows, np.int64), list(names))
        try:
            return {name: metadata_of(table[name]) for name in names}
        except UnicodeDecodeError as error:
            raise InputError(f"{self.name}: a column of text is not UTF-8") from error

    def _part_of(self, row: int) -> tuple[int, int]:
        """Returns the part of a row, and the position in it."""
        part = int(np.searchsorted(self._parts.ends, row, side="right"))
        return part, row - (int(self._parts.ends[part - 1]) if part else 0)

    def _id(self, column: "pa.ChunkedArray", row: int, place: str) -> str:
        try:
            id_ = note_of(column[row].as_py(), None)
        except UnicodeDecodeError as error:
            raise UnreadableItem(place, "its id is not UTF-8") from error
        if not id_:
            raise UnreadableItem(place, f"has no id {self._fields.id!r}")
        return id_

    def _taken(self, rows: np.ndarray, names: list[str]) -> Mapping[str, "pa.ChunkedArray"]:
        """Returns columns of rows in their order, for which each part is read once."""
        import pyarrow as pa

        part_of = np.searchsorted(self._parts.ends, rows, side="right")
        begins = np.concatenate([[0], self._parts.ends])
        order = np.argsort(part_of, kind="stable")
        taken = []
        for part in np.unique(part_of):
            within = rows[order[part_of[order] == part]] - begins[part]
            taken.append(self._parts.read(int(part), names).take(within))
        if not taken:
            empty = self._parts.schema
            return {name: pa.chunked_array([], empty.field(name).type) for name in names}
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        table = pa.concat_tables(taken, promote_options="permissive").take(back)
        return {name: table[name] for name in names}


class _Part(NamedTuple):
    """Part in memory, or the error of reading it, which is not tried again for each row."""

    table: "pa.Table | None"
    error: str
    n_bytes: int


class _PartCache:
    """Cache of the parts that were read last, for threads that read near each other.

    A part is read once, while the threads that need it wait. At least two parts stay, so that
    threads at both sides of a border do not read them in turns.
    """

    def __init__(self, read: Callable[[int], "pa.Table"]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._parts: OrderedDict[int, _Part] = OrderedDict()
        self._reading: dict[int, threading.Lock] = {}

    def __reduce__(self) -> tuple[object, ...]:
        """Lets a worker process have an empty cache of its own."""
        return _PartCache, (self._read,)

    def get(self, part: int) -> "pa.Table":
        """Returns a part.

        Raises:
            InputError: the part cannot be read.
        """
        found = self._known(part)
        if found is None:
            with self._lock:
                reading = self._reading.setdefault(part, threading.Lock())
            with reading:
                found = self._known(part)
                if found is None:
                    found = self._load(part)
        if found.table is None:
            raise InputError(found.error)
        return found.table

    def _known(self, part: int) -> _Part | None:
        with self._lock:
            found = self._parts.get(part)
            if found is not None:
                self._parts.move_to_end(part)
            return found

    def _load(self, part: int) -> _Part:
        try:
            table = self._read(part)
            loaded = _Part(table, "", table.nbytes)
        except InputError as error:
            loaded = _Part(None, str(error), 0)
        with self._lock:
            self._parts[part] = loaded
            self._reading.pop(part, None)
            total = sum(kept.n_bytes for kept in self._parts.values())
            while total > _CACHE_BYTES and len(self._parts) > 2:
                total -= self._parts.popitem(last=False)[1].n_bytes
        return loaded
