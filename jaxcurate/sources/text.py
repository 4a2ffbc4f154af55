"""Source of texts: the lines of text files, or the objects of files of JSON lines."""

import functools
import json
import os
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.sources import files, location, signatures
from jaxcurate.sources.base import (
    Annotations,
    Item,
    Kind,
    Options,
    Source,
    UnreadableItem,
    without_splits,
)
from jaxcurate.sources.columns import note_of
from jaxcurate.sources.line_index import LONGEST, Lines, find_lines
from jaxcurate.sources.names import content_id
from jaxcurate.sources.ranges import read_at, read_range

_LINES, _OBJECTS, _COMPRESSED = (".txt",), (".jsonl", ".ndjson", ".json"), ".gz"
_BLOCK_BYTES = 2**24
_LOOKED_AT = 100
"""Number of first lines in which an id is looked for."""


class TextSource:
    """Source of the lines of text files, or of a field of the objects of files of JSON lines.

    Lines of white space alone are no items; they are counted in `skipped`. The id of a line of
    text is a hash of it. The id of an object is its field ``id`` or ``key``, if the first hundred
    objects have one, or else a hash of its text. Only the positions of lines are kept in memory,
    12 bytes for each.

    A file compressed by gzip cannot be read in any order, so that it is unpacked at opening into a
    temporary file without a name, in the folder that ``TMPDIR`` names. It is gone with the source.

    Args:
        path: path of a file, a pattern, or a folder of files, which may have a protocol such as
            ``gs://``. Files end in ``.txt``, or in ``.jsonl``, ``.ndjson`` or ``.json``, with or
            without ``.gz``. Of a folder, files ending in ``.json`` are not taken.
        options: options of the source. For JSON lines, ``content_key`` names the field of the text,
            by default ``text``; ``id_key``, ``label_key`` and ``domain_key`` name other fields.

    Attributes:
        skipped: path and number of empty lines of each file that has some.

    Raises:
        InputError: a file cannot be read, there are no lines, text and JSON lines are mixed, or
            files of text are to have keys.

    Examples:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with open(f"{folder}/a.jsonl", "w") as file:
        ...         _ = file.write('{"id": 7, "text": "a cat"}')
        ...     TextSource(folder, Options()).read(0)
        Item(id='7', content='a cat')
    """

    kind: Kind = "text"

    def __init__(self, path: str, options: Options) -> None:
        self._path, self._options = path, options
        suffixes = (*_LINES, *_OBJECTS[:2])
        packed = tuple(suffix + _COMPRESSED for suffix in suffixes)
        self._paths = location.expanded(path, (*suffixes, *packed), "texts")
        formats = {_is_objects(file) for file in self._paths}
        if len(formats) > 1:
            raise InputError(
                f"{path} holds lines of text and JSON lines; PATH/*.txt names one kind"
            )
        self._objects = formats.pop()
        self._check_keys(options)
        self._unpacked: BinaryIO | None = None
        self._begins: list[int] = []
        lines = [self._index(file) for file in self._paths]
        self._start = np.concatenate([of.start for of in lines])
        self._size = np.concatenate([of.size for of in lines])
        self._row_ends = np.cumsum([len(of.start) for of in lines])
        self.skipped = [
            (file, f"{of.n_empty} empty line{'s' if of.n_empty > 1 else ''}")
            for file, of in zip(self._paths, lines, strict=True)
            if of.n_empty
        ]
        if not len(self):
            raise InputError(f"{path} holds no lines of text")
        self._content_key = options.content_key or "text"
        self._id_key = (options.id_key or self._usual_id()) if self._objects else None

    def _check_keys(self, options: Options) -> None:
        if self._objects:
            return
        for name in ("content_key", "id_key", "label_key", "domain_key"):
            if getattr(options, name) is not None:
                raise InputError(
                    f"{self._path} is lines of text, which have no fields: {name} is for JSON lines"
                )

    def _index(self, path: str) -> Lines:
        """Returns the lines of a file, and unpacks it if it is compressed."""
        with location.open_file(path) as file:
            beginning = file.read(signatures.N_BYTES)
            file.seek(0)
            kind = signatures.file_kind(beginning)
            if path.endswith(_COMPRESSED):
                if kind != "a file compressed by gzip":
                    raise InputError(f"{path} is not compressed by gzip: it is {kind or 'broken'}")
                return self._unpack(path, file)
            if kind and not kind.startswith(("text", "an empty")):
                raise InputError(f"{path} is not a file of text: it is {kind}")
            self._begins.append(-1)
            return find_lines(path, lambda: file.read(_BLOCK_BYTES))

    def _unpack(self, path: str, file: BinaryIO) -> Lines:
        """Returns the lines of a compressed file, which is unpacked behind the files before it."""
        if self._unpacked is None:
            self._unpacked = cast(BinaryIO, tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
            weakref.finalize(self, self._unpacked.close)
        target = self._unpacked
        self._begins.append(target.seek(0, os.SEEK_END))
        blocks = _unzipped(file)

        def read() -> bytes:
            try:
                block = next(blocks, b"")
            except (OSError, EOFError, zlib.error) as error:
                raise InputError(f"{path} cannot be unpacked ({files.reason(error)})") from error
            try:
                written = 0
                while written < len(block):
                    written += target.write(memoryview(block)[written:]) or 0
            except OSError as error:
                raise InputError(
                    f"{path} cannot be unpacked into {tempfile.gettempdir()} "
                    f"({files.reason(error)}); TMPDIR names another folder"
                ) from error
            return block

        return find_lines(path, read)

    def _usual_id(self) -> str | None:
        """Returns the field that is the id of each of the first objects, if there is one."""
        found = []
        for row in range(min(len(self), _LOOKED_AT)):
            try:
                found.append(self._object(row))
            except UnreadableItem:
                continue
        for key in ("id", "key"):
            values = [of.get(key) for of in found]
            usable = all(isinstance(of, (str, int)) and of != "" for of in values)
            if found and usable and len(set(map(str, values))) == len(values):
                return key
        return None

    @property
    def name(self) -> str:
        return f"text:{self._path}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the files and of the keys."""
        options = self._options
        keys = (self._content_key, self._id_key, options.label_key, options.domain_key)
        about = ["text", *(key or "" for key in keys)]
        return location.fingerprint_of(self._paths, options.verify, about)

    @property
    def ids_are_hashes(self) -> bool:
        """True if the id of an item is a hash of its content, equal for equal items."""
        return self._id_key is None

    def __len__(self) -> int:
        return len(self._start)

    def read(self, row: int) -> Item:
        if not self._objects:
            line = self._line(row)
            return Item(content_id(line), _decoded(line))
        fields = self._object(row)
        text = fields.get(self._content_key)
        id_ = self._id(row, fields)
        if not isinstance(text, str):
            has = "no" if text is None else f"a {type(text).__name__}, not a text, in"
            raise UnreadableItem(id_, f"has {has} {self._content_key!r}")
        if not text.strip():
            raise UnreadableItem(id_, "an empty text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UnreadableItem(id_, "half a character (a lone surrogate)") from error
        return Item(id_ if self._id_key else content_id(text), text)

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        label = self._options.label_key or ("label" if self._objects else None)
        domain = self._options.domain_key or ("domain" if self._objects else None)
        notes = [self._notes(int(row), (label, domain)) for row in rows]
        return Annotations(*(np.array([note[i] for note in notes], np.str_) for i in range(2)))

    def _notes(self, row: int, keys: tuple[str | None, ...]) -> list[str]:
        if not self._objects:
            return [""] * len(keys)
        try:
            fields = self._object(row)
        except UnreadableItem:
            return [""] * len(keys)
        return [_text(fields.get(key)) if key else "" for key in keys]

    def _id(self, row: int, fields: dict[str, Any]) -> str:
        """Returns the id of an object, or a hash of its line if its text is to be hashed."""
        if self._id_key is None:
            return content_id(self._line(row))
        id_ = _text(fields.get(self._id_key))
        if not id_:
            raise UnreadableItem(content_id(self._line(row)), f"has no id {self._id_key!r}")
        return id_

    def _object(self, row: int) -> dict[str, Any]:
        """Returns the object of a line.

        Raises:
            UnreadableItem: the line is no object in JSON.
        """
        line = self._line(row)
        try:
            value = json.loads(_decoded(line))
        except RecursionError as error:
            raise UnreadableItem(content_id(line), "JSON that is nested too deeply") from error
        except ValueError as error:
            reason = getattr(error, "msg", "") or "a number of too many digits"
            raise UnreadableItem(content_id(line), f"not JSON ({reason})") from error
        if not isinstance(value, dict):
            raise UnreadableItem(content_id(line), "not an object in JSON")
        return value

    def _line(self, row: int) -> bytes:
        """Returns the bytes of a line without its end.

        Raises:
            UnreadableItem: the file has become shorter, or the line is too long.
        """
        file = int(np.searchsorted(self._row_ends, row, side="right"))
        start, size = int(self._start[row]), int(self._size[row])
        place = f"{PurePosixPath(self._paths[file]).name}@{start}"
        if size > LONGEST:
            raise UnreadableItem(place, f"a line of more than {LONGEST} bytes")
        if (begin := self._begins[file]) >= 0:
            assert self._unpacked is not None
            return read_at(self._unpacked.fileno(), begin + start, size)
        try:
            return read_range(self._paths[file], start, size)
        except InputError as error:
            raise UnreadableItem(place, str(error)) from error


def open_texts(path: str, options: Options) -> Source:
    """Opens ``text:PATH``."""
    without_splits(f"text:{path}", options)
    return cast(Source, TextSource(path, options))  # its fingerprint is a cached property


def _is_objects(path: str) -> bool:
    """Returns whether a file holds JSON lines, by its suffix.

    Raises:
        InputError: the suffix is unknown.
    """
    suffix = PurePosixPath(path.lower().removesuffix(_COMPRESSED)).suffix
    if suffix not in (*_LINES, *_OBJECTS):
        known = ", ".join((*_LINES, *_OBJECTS))
        raise InputError(f"{path} does not end in one of {known}, with or without {_COMPRESSED}")
    return suffix in _OBJECTS


def _unzipped(file: BinaryIO) -> Iterator[bytes]:
    """Yields the content of a file compressed by gzip, of one or several members."""
    import gzip

    with gzip.GzipFile(fileobj=file) as opened:
        while block := opened.read(_BLOCK_BYTES):
            yield block


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableItem(content_id(line), "not UTF-8") from error


def _text(value: Any) -> str:
    """Returns a value of JSON as the text of an id or a note."""
    if isinstance(value, (dict, list)):
        value = json.dumps(value)
    text = note_of(value, None)
    return text.encode("utf-8", "backslashreplace").decode()
