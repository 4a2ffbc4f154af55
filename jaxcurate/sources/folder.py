"""Source of the pictures in a folder and its subfolders, on this machine or in a bucket."""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import cast

import numpy as np

from jaxcurate.artifacts.files import fingerprint
from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources import files, location
from jaxcurate.sources.base import (
    Annotations,
    Item,
    Kind,
    Options,
    Source,
    UnreadableItem,
    without_splits,
)
from jaxcurate.sources.names import printable
from jaxcurate.sources.walk import Entry, objects, walk


class FolderSource:
    """Source of all pictures below a folder, ordered by path.

    A picture is known by its content, whatever its name is. Links to folders are followed, and
    each folder is read once. The id of an item is its path relative to the folder, with forward
    slashes. Its label, for evaluation only, is the path of the folder of the file. There are no
    domains.

    Args:
        path: path of the folder, which may have a protocol such as ``gs://``.
        leave_out: folder that is not searched, such as the work directory.
        verify: basis of the fingerprint: ``stat`` takes sizes and times of change, ``content``
            reads all files.

    Attributes:
        skipped: path and reason of each file or folder that is no item.

    Raises:
        InputError: there is no such folder, it cannot be read, or it has no picture.

    Examples:
        >>> import tempfile
        >>> from jaxcurate.sources.pictures import encode_png
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.mkdir(f"{folder}/cats")
        ...     with open(f"{folder}/cats/a.png", "wb") as file:
        ...         n_bytes = file.write(encode_png(np.zeros((9, 9, 3), np.uint8)))
        ...     source = FolderSource(folder)
        ...     source.read(0).id, source.read(0).content[1:4], source.annotations([0]).label
        ('cats/a.png', b'PNG', array(['cats'], dtype='<U4'))
    """

    kind: Kind = "picture"

    def __init__(
        self,
        path: str | os.PathLike,
        leave_out: str | os.PathLike | None = None,
        verify: str = "stat",
    ) -> None:
        path = os.fspath(path)
        self._verify = verify
        self._is_local = is_local(path)
        if self._is_local:
            self._root = str(PurePath(path))
            if not os.path.isdir(self._root):
                raise InputError(f"{path} is not a folder")
            entries, skipped = walk(self._root, _other_than_root(leave_out, self._root))
        else:
            self._root = path.rstrip("/")
            entries, skipped = objects(self._root, None if leave_out is None else str(leave_out))
        self._entries: list[Entry] = entries
        self.skipped = [(printable(name), reason) for name, reason in skipped]
        if not entries:
            also = "".join(f"; {name!r}: {reason}" for name, reason in self.skipped[:1])
            raise InputError(f"{path} holds no pictures{also}")

    @property
    def name(self) -> str:
        return f"folder:{self._root}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the paths and versions of the files, or of their content."""
        parts = ["folder", self._verify]
        for entry in self._entries:
            version = entry.version
            if self._verify == "content":
                version = location.content_hash(self._full(entry))
            parts.append(f"{entry.path}\0{entry.n_bytes}\0{version}")
        return fingerprint(parts)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def ids(self) -> Iterator[str]:
        """Ids of all rows, for which no picture is read."""
        return (printable(entry.path) for entry in self._entries)

    def path(self, row: int) -> str:
        """Returns the path of the file of a row."""
        return self._full(self._entries[row])

    def read(self, row: int) -> Item:
        entry = self._entries[row]
        try:
            with self._opened(entry) as file:
                return Item(printable(entry.path), file.read())
        except (InputError, OSError) as error:
            reason = files.reason(error).removeprefix(f"{self._full(entry)}: ")
            raise UnreadableItem(printable(entry.path), reason) from error

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        labels = [printable(self._entries[row].path).rpartition("/")[0] for row in rows]
        return Annotations(np.array(labels, np.str_), np.full(len(labels), "", np.str_))

    def _full(self, entry: Entry) -> str:
        return (
            f"{self._root}/{entry.path}"
            if not self._is_local
            else os.path.join(self._root, entry.path)
        )

    def _opened(self, entry: Entry):
        if self._is_local:
            return files.open_regular(self._full(entry))
        return location.open_file(self._full(entry))


def open_pictures(path: str, options: Options) -> Source:
    """Opens ``folder:PATH``."""
    without_splits(f"folder:{path}", options)
    path = os.path.expanduser(path) if is_local(path) else path
    source = FolderSource(path, options.leave_out, options.verify)
    return cast(Source, source)  # its fingerprint is a cached property


def _other_than_root(folder: str | os.PathLike | None, root: str) -> str | None:
    """Returns the path of a folder on this machine that is not searched.

    Raises:
        InputError: the folder is the root, so that no picture would be left.
    """
    if folder is None or not is_local(os.fspath(folder)):
        return None
    folder = os.path.realpath(folder)
    if folder == os.path.realpath(root):
        raise InputError(f"{root} is the work directory; pictures belong in a folder of their own")
    return folder
