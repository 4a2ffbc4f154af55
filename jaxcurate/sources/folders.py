"""Pictures in a folder and the folders below it, as a source."""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxcurate.artifacts import files
from jaxcurate.checks import InputError
from jaxcurate.sources import pictures
from jaxcurate.sources.items import Annotations, Item, UnreadableItem

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


class FolderSource:
    """Every file with a picture's suffix below a folder, in the order of its path.

    An id is the path relative to the folder, with forward slashes. A label, for evaluation only,
    is the path of the file's own folder; there are no domains.

    Raises:
        ValueError: where there is no such folder, or no picture in it.
    """

    def __init__(self, path: str | os.PathLike, image_size: int) -> None:
        self._root = Path(path)
        if not self._root.is_dir():
            raise InputError(f"{path} is not a folder")
        self._files = sorted(_walk(self._root, ""))
        if not self._files:
            raise InputError(f"{path} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        self._image_size = image_size

    @property
    def name(self) -> str:
        return f"folder:{self._root}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the paths, sizes and times of change; the pictures themselves are not read."""
        parts = ["folder", pictures.METHOD, str(self._image_size)]
        parts += [f"{id}\0{size}\0{changed}" for id, size, changed in self._files]
        return files.fingerprint(parts)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, row: int) -> Item:
        id = self._files[row][0]
        try:
            return Item(_printable(id), pictures.decode(self._root / id, self._image_size))
        except (pictures.UndecodablePicture, FileNotFoundError) as error:
            raise UnreadableItem(_printable(id), str(error)) from error

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        labels = [_printable(self._files[row][0]).rpartition("/")[0] for row in rows]
        return Annotations(np.array(labels, np.str_), np.full(len(labels), "", np.str_))


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int, int]]:
    """Yields (path, bytes, nanoseconds) of pictures; links to folders are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            elif Path(entry.name).suffix.lower() in SUFFIXES and entry.is_file():
                status = entry.stat()
                yield f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns


def _printable(path: str) -> str:
    """Returns a path as valid Unicode, for ids that are written to files."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
