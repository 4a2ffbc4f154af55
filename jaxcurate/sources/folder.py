"""Source of the pictures in a folder and its subfolders."""

import functools
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import cast

import numpy as np

from jaxcurate.artifacts.files import fingerprint
from jaxcurate.checks import InputError
from jaxcurate.sources import files, image_files
from jaxcurate.sources.base import (
    Annotations,
    Item,
    Options,
    Source,
    UnreadableItem,
    local_path,
)
from jaxcurate.sources.names import printable

WORK_DIRECTORY = "the work directory"
"""Reason for skipping the work directory."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""Suffixes of pictures, in lower case."""


class FolderSource:
    """Source of all files below a folder that have the suffix of a picture, ordered by path.

    The id of an item is its path relative to the folder, with forward slashes. Its label, for
    evaluation only, is the path of the folder of the file. There are no domains.

    Args:
        path: path of the folder.
        image_size: side of the images in pixels.
        leave_out: folder that is not searched, such as the work directory.

    Attributes:
        skipped: path and reason of each folder that was not searched, and of each entry that has
            the suffix of a picture but is no file.

    Raises:
        InputError: there is no such folder, it cannot be read, or it has no picture.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.mkdir(f"{folder}/cats")
        ...     with open(f"{folder}/cats/a.png", "wb") as file:
        ...         n_bytes = file.write(image_files.encode_png(np.zeros((9, 9, 3), np.uint8)))
        ...     source = FolderSource(folder, image_size=4)
        ...     source.read(0).id, source.read(0).image.shape, source.annotations([0]).label
        ('cats/a.png', (4, 4, 3), array(['cats'], dtype='<U4'))
    """

    def __init__(
        self, path: str | os.PathLike, image_size: int, leave_out: str | os.PathLike | None = None
    ) -> None:
        self._root = str(PurePath(path))
        if not os.path.isdir(self._root):
            raise InputError(f"{path} is not a folder")
        self._files, skipped = _walk(self._root, _relative(leave_out, self._root))
        self.skipped = [(printable(name), reason) for name, reason in skipped]
        if not self._files:
            also = "".join(f"; {name!r}: {reason}" for name, reason in self.skipped[:1])
            raise InputError(f"{path} holds no pictures ({', '.join(sorted(SUFFIXES))}){also}")
        self._image_size = image_size

    @property
    def name(self) -> str:
        return f"folder:{self._root}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the paths, sizes and times of change, for which no picture is read."""
        parts = ["folder", image_files.METHOD, str(self._image_size)]
        parts += [f"{id}\0{size}\0{changed}" for id, size, changed in self._files]
        return fingerprint(parts)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def ids(self) -> Iterator[str]:
        """Ids of all rows, for which no picture is read."""
        return (printable(path) for path, _, _ in self._files)

    def read(self, row: int) -> Item:
        path = self._files[row][0]
        try:
            image = image_files.decode(os.path.join(self._root, path), self._image_size)
        except image_files.UndecodablePicture as error:
            raise UnreadableItem(printable(path), str(error)) from error
        except FileNotFoundError as error:
            raise UnreadableItem(printable(path), files.reason(error)) from error
        return Item(printable(path), image)

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        labels = [printable(self._files[row][0]).rpartition("/")[0] for row in rows]
        return Annotations(np.array(labels, np.str_), np.full(len(labels), "", np.str_))


def open_pictures(path: str, options: Options) -> Source:
    """Opens ``folder:PATH``."""
    path = local_path(f"folder:{path}", path, options)
    source = FolderSource(path, options.image_size, options.leave_out)
    return cast(Source, source)  # its fingerprint is a cached property


def _relative(folder: str | os.PathLike | None, root: str) -> str | None:
    """Returns the path of a folder relative to the root, or None if it is not below the root.

    Raises:
        InputError: the folder is the root, so that no picture would be left.
    """
    if folder is None:
        return None
    folder, root = os.path.realpath(folder), os.path.realpath(root)
    if folder == root:
        raise InputError(f"{root} is the work directory; pictures belong in a folder of their own")
    return os.path.relpath(folder, root) if os.path.commonpath([folder, root]) == root else None


def _walk(
    root: str, leave_out: str | None
) -> tuple[list[tuple[str, int, int]], list[tuple[str, str]]]:
    """Returns pictures, as (path, bytes, nanoseconds), and skipped entries, as (path, reason).

    Links to folders are not followed.
    """
    pictures, skipped = [], []
    prefixes = [""]
    while prefixes:
        prefix = prefixes.pop()
        if prefix and prefix[:-1] == leave_out:
            skipped.append((prefix, WORK_DIRECTORY))
            continue
        try:
            with files.scan(os.path.join(root, prefix)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        prefixes.append(f"{prefix}{entry.name}/")
                    else:
                        _add_entry(entry, prefix + entry.name, pictures, skipped)
        except OSError as error:
            if not prefix:
                raise InputError(f"{root} cannot be read ({files.reason(error)})") from error
            skipped.append((prefix, files.reason(error)))
    return sorted(pictures), sorted(skipped)


def _add_entry(
    entry: os.DirEntry,
    path: str,
    pictures: list[tuple[str, int, int]],
    skipped: list[tuple[str, str]],
) -> None:
    """Adds a picture to the pictures, and an entry that may be or have pictures to the skipped."""
    has_suffix = PurePath(entry.name).suffix.lower() in SUFFIXES
    if not (has_suffix or entry.is_symlink()):
        return
    try:
        status = entry.stat()
    except OSError as error:
        if has_suffix:
            skipped.append((path, files.reason(error)))
        return
    if stat.S_ISDIR(status.st_mode):
        skipped.append((f"{path}/", "a link to a folder, which is not followed"))
    elif has_suffix and stat.S_ISREG(status.st_mode):
        pictures.append((path, status.st_size, status.st_mtime_ns))
    elif has_suffix:
        skipped.append((path, f"{files.kind(status.st_mode)}, not a file"))
