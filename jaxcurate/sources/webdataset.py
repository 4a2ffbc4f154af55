"""Source of the samples of tar files in the layout of WebDataset, read without the package."""

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, NamedTuple, cast

import numpy as np

from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources import location
from jaxcurate.sources.base import (
    Annotations,
    Item,
    Kind,
    Options,
    Source,
    UnreadableItem,
    without_splits,
)
from jaxcurate.sources.ranges import read_range
from jaxcurate.sources.tar_index import TarIndex, index_tar
from jaxcurate.sources.walk import SUFFIXES

_PICTURES = tuple(sorted(suffix[1:] for suffix in SUFFIXES))
_TEXTS = ("txt", "text", "caption")
_OPENED_AT_ONCE = 16
"""Number of tar files in a bucket that are indexed at once."""


class _Members(NamedTuple):
    """Place of a member of each sample in its tar file. The size is -1 if a sample has none."""

    offset: np.ndarray
    size: np.ndarray


class WebDatasetSource:
    """Source of the samples of tar files in the layout of WebDataset.

    A sample is the members of a tar file with the same key, which is the name of a member up to
    the first dot of its last part. Its item is the member with the suffix of a picture; if no
    sample has a picture, it is the text ``.txt``, ``.text`` or ``.caption``. The id is the key. If
    two tar files share a key, the name of the tar file stands before it in all ids:
    ``00000/cats-1``. Nothing is extracted, and the index takes at most 80 bytes and the key for
    each sample.

    Args:
        path: path of a tar file, a pattern, or a folder of tar files, which may have a protocol
            such as ``gs://``.
        options: ``content_key`` is a suffix, or several in their order, such as ``jpg;png``.
            ``label_key``, ``domain_key`` and ``id_key`` are a suffix, such as ``cls``, or
            ``json:FIELD`` for a field of the member ``.json``. The label is ``cls`` by default.

    Attributes:
        skipped: name and reason of each member and sample that is no item.

    Raises:
        InputError: a file is compressed or cannot be read, a sample has several pictures, or there
            is no sample with the content.

    Examples:
        >>> import io, tarfile, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with tarfile.open(f"{folder}/a.tar", "w") as archive:
        ...         for name, content in (("1.txt", b"a cat"), ("1.cls", b"cat")):
        ...             member = tarfile.TarInfo(name)
        ...             member.size = len(content)
        ...             archive.addfile(member, io.BytesIO(content))
        ...     source = WebDatasetSource(folder, Options())
        ...     source.read(0), source.annotations([0]).label.tolist()
        (Item(id='1', content='a cat'), ['cat'])
    """

    kind: Kind

    def __init__(self, path: str, options: Options) -> None:
        self._options = options
        self._path = path
        self._paths = location.expanded(path, (".tar",), "tar files")
        given = _suffixes(options.content_key)
        keys = {"label": options.label_key or "cls", "domain": options.domain_key}
        keys["id"] = options.id_key
        others = {name: _member_of(key) for name, key in keys.items() if key}
        wanted = {*(given or (*_PICTURES, *_TEXTS)), *others.values()}
        indexes = _indexes(self._paths, wanted)
        self.skipped = [entry for index in indexes for entry in index.skipped]
        present = {suffix for index in indexes for suffix in index.suffixes}
        pictures = [suffix for suffix in _PICTURES if suffix in present]
        contents = given or pictures or list(_TEXTS)
        self.kind = "picture" if _are_pictures(contents) else "text"
        if not given:
            _check_single(path, self._paths, indexes, contents)
        chosen = [_choose(index, contents) for index in indexes]
        for file, index, members in zip(self._paths, indexes, chosen, strict=True):
            name = PurePosixPath(file).name
            for sample in np.flatnonzero(members.size < 0):
                key = _key(index.keys, index.key_ends, int(sample))
                self.skipped.append((f"{name}/{key}", f"has no {self.kind}"))
        rows = [np.flatnonzero(members.size >= 0) for members in chosen]
        if not sum(map(len, rows)):
            also = "".join(f"; {name}: {reason}" for name, reason in self.skipped[:1])
            raise InputError(f"{path} has no sample with .{', .'.join(contents)}{also}")
        self._set_rows(indexes, rows)
        self._content = _joined(chosen, rows)
        self._notes = {
            name: (_field_of(keys[name]), _joined([_choose(i, [member]) for i in indexes], rows))
            for name, member in others.items()
            if member in present
        }
        for name, key in (("label", options.label_key), ("domain", options.domain_key)):
            if key and name not in self._notes:
                raise InputError(f"{path}: no sample has the {name}_key {key!r}")
        if options.id_key and "id" not in self._notes:
            raise InputError(f"{path}: no sample has the id_key {options.id_key!r}")

    def _set_rows(self, indexes: list[TarIndex], rows: list[np.ndarray]) -> None:
        """Keeps the keys of the samples that are rows, and the tar file of each row."""
        begins = np.cumsum([0, *(len(index.keys) for index in indexes)])
        self._keys = b"".join(index.keys for index in indexes)
        ends = [
            index.key_ends[row] + begin
            for index, row, begin in zip(indexes, rows, begins, strict=False)
        ]
        starts = [
            np.concatenate([[0], index.key_ends[:-1]])[row] + begin
            for index, row, begin in zip(indexes, rows, begins, strict=False)
            if len(index.key_ends)
        ]
        self._key_starts = np.concatenate([*starts, np.empty(0, np.int64)]).astype(np.int64)
        self._key_ends = np.concatenate(ends)
        self._row_ends = np.cumsum([len(row) for row in rows])
        self._with_file = _share_keys(self._keys, self._key_starts, self._key_ends)
        if self._with_file:
            stems = [PurePosixPath(path).stem for path in self._paths]
            if len(set(stems)) < len(stems):
                raise InputError(
                    f"{self._path}: tar files of one name have samples of one key, so that ids "
                    "would repeat"
                )

    @property
    def name(self) -> str:
        return f"webdataset:{self._path}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the tar files and of the keys of the members."""
        options = self._options
        keys = (options.content_key, options.id_key, options.label_key, options.domain_key)
        about = ["webdataset", *(key or "" for key in keys)]
        return location.fingerprint_of(self._paths, options.verify, about)

    @property
    def ids_are_hashes(self) -> bool:
        """False: ids are keys."""
        return False

    def __len__(self) -> int:
        return len(self._key_ends)

    def read(self, row: int) -> Item:
        id_ = self._id(row)
        try:
            data = self._bytes(self._content, row)
        except InputError as error:
            raise UnreadableItem(id_, str(error)) from error
        if self.kind == "picture":
            return Item(id_, data)
        try:
            return Item(id_, data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UnreadableItem(id_, "not UTF-8") from error

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        return Annotations(
            np.array([self._note("label", int(row)) for row in rows], np.str_),
            np.array([self._note("domain", int(row)) for row in rows], np.str_),
        )

    def _id(self, row: int) -> str:
        key = self._keys[self._key_starts[row] : self._key_ends[row]].decode()
        if self._with_file:
            key = f"{PurePosixPath(self._paths[self._file_of(row)]).stem}/{key}"
        if "id" not in self._notes:
            return key
        try:
            id_ = self._note("id", row)
        except InputError as error:
            raise UnreadableItem(key, str(error)) from error
        if not id_:
            raise UnreadableItem(key, f"has no id {self._options.id_key!r}")
        return id_

    def _file_of(self, row: int) -> int:
        return int(np.searchsorted(self._row_ends, row, side="right"))

    def _bytes(self, members: _Members, row: int) -> bytes:
        path = self._paths[self._file_of(row)]
        return read_range(path, int(members.offset[row]), int(members.size[row]))

    def _note(self, name: str, row: int) -> str:
        """Returns the text of a member, or of a field of it, or "" if the sample has none.

        Raises:
            InputError: the tar file cannot be read.
        """
        if name not in self._notes or self._notes[name][1].size[row] < 0:
            return ""
        field, members = self._notes[name]
        text = self._bytes(members, row).decode("utf-8", "backslashreplace")
        return text.strip() if field is None else _field(text, field)


def open_tars(path: str, options: Options) -> Source:
    """Opens ``webdataset:PATH``."""
    without_splits(f"webdataset:{path}", options)
    return cast(Source, WebDatasetSource(path, options))  # its fingerprint is a cached property


def _indexes(paths: list[str], wanted: set[str]) -> list[TarIndex]:
    if all(map(is_local, paths)):
        return [index_tar(path, wanted) for path in paths]
    with ThreadPoolExecutor(_OPENED_AT_ONCE) as threads:
        return list(threads.map(lambda path: index_tar(path, wanted), paths))


def _suffixes(key: str | None) -> list[str]:
    """Returns the suffixes of a key such as ``jpg;png``, in lower case."""
    return [part.strip().removeprefix(".").lower() for part in (key or "").split(";") if part]


def _are_pictures(suffixes: Sequence[str]) -> bool:
    return any(suffix.rpartition(".")[2] in _PICTURES for suffix in suffixes)


def _member_of(key: str | None) -> str:
    """Returns the suffix of the member that a key such as ``cls`` or ``json:FIELD`` names."""
    suffix, colon, _ = (key or "").partition(":")
    return "json" if colon and suffix == "json" else (key or "").removeprefix(".").lower()


def _field_of(key: str | None) -> str | None:
    return key.removeprefix("json:") if key and key.startswith("json:") else None


def _field(text: str, field: str) -> str:
    """Returns a field of an object in JSON as text, or "" if there is none."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    value = value.get(field) if isinstance(value, dict) else None
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _choose(index: TarIndex, suffixes: Sequence[str]) -> _Members:
    """Returns the first member of each sample that has one of the suffixes, in their order."""
    n = len(index.key_ends)
    offset, size = np.zeros(n, np.int64), np.full(n, -1, np.int64)
    for suffix in reversed(suffixes):
        if suffix in index.suffixes:
            members = np.flatnonzero(index.suffix == index.suffixes.index(suffix))
            offset[index.sample[members]] = index.offset[members]
            size[index.sample[members]] = index.size[members]
    return _Members(offset, size)


def _joined(parts: list[_Members], rows: list[np.ndarray]) -> _Members:
    pairs = [(part.offset[row], part.size[row]) for part, row in zip(parts, rows, strict=True)]
    return _Members(*(np.concatenate(column) for column in zip(*pairs, strict=True)))


def _check_single(
    path: str, paths: list[str], indexes: list[TarIndex], contents: Sequence[str]
) -> None:
    """Refuses samples that have several members that may be the content."""
    for file, index in zip(paths, indexes, strict=True):
        codes = [code for code, suffix in enumerate(index.suffixes) if suffix in contents]
        found = np.isin(index.suffix, codes)
        counts = np.bincount(index.sample[found], minlength=1)
        if counts.max() > 1:
            sample = int(counts.argmax())
            of_it = index.suffix[found & (index.sample == sample)]
            key = _key(index.keys, index.key_ends, sample)
            raise InputError(
                f"{path}: sample {key!r} of {PurePosixPath(file).name} has several members that "
                f"may be the content ({', '.join(index.suffixes[code] for code in of_it)}); "
                "content_key names one"
            )


def _key(keys: bytes, ends: np.ndarray, sample: int) -> str:
    return keys[int(ends[sample - 1]) if sample else 0 : int(ends[sample])].decode()


def _share_keys(keys: bytes, starts: np.ndarray, ends: np.ndarray) -> bool:
    """Returns whether two samples have the same key."""
    hashes = np.empty(len(starts), np.uint64)
    for row, key in enumerate(_each(keys, starts, ends)):
        digest = hashlib.blake2b(key, digest_size=8).digest()
        hashes[row] = int.from_bytes(digest, "little")
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    if not len(same):
        return False
    # Different keys of one hash are so rare that comparing neighbors is enough.
    first, second = order[same], order[same + 1]
    pairs = zip(
        _each(keys, starts[first], ends[first]),
        _each(keys, starts[second], ends[second]),
        strict=True,
    )
    return any(a == b for a, b in pairs)


def _each(keys: bytes, starts: np.ndarray, ends: np.ndarray) -> Iterator[bytes]:
    return (keys[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
