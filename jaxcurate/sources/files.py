"""Opens regular files and scans folders at any depth; nothing else is ever opened."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from jaxcurate.checks import InputError

_LONGEST = 1000
"""Bytes of a path that are handed to the system at a time: Linux takes 4095, macOS 1023."""
_SPECIAL = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind(mode: int) -> str:
    """Returns what a file that is not regular is, in words, by the mode that `os.stat` gives."""
    return _SPECIAL.get(stat.S_IFMT(mode), "no regular file")


def check_regular(path: str) -> None:
    """Refuses what is not a regular file or a link to one, without opening it.

    Raises:
        InputError: with what stands at the path instead, or why nothing can be told of it.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL within the path
        raise InputError(f"{path} cannot be opened ({reason(error)})") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {kind(mode)}, not a file")


def open_regular(path: str) -> BinaryIO:
    """Opens a regular file for reading, however long its path.

    Raises:
        InputError: it is no regular file.
        OSError: it cannot be opened.
    """
    with _parent(path) as (folder, name):
        mode = os.stat(name, dir_fd=folder).st_mode
        if stat.S_ISREG(mode):
            # Without waiting, should a FIFO have taken the file's place meanwhile.
            number = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            file = os.fdopen(number, "rb")
            mode = os.fstat(number).st_mode
            if stat.S_ISREG(mode):
                return file
            file.close()
    raise InputError(f"{kind(mode)}, not a file")


@contextmanager
def scan(path: str) -> Iterator[Iterator[os.DirEntry]]:
    """Yields the entries of a folder, however long its path.

    Raises:
        OSError: it cannot be opened.
    """
    with _parent(path) as (parent, name):
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        with os.scandir(folder) as entries:
            yield entries
    finally:
        os.close(folder)


def reason(error: Exception) -> str:
    """Returns what an error of the system says, without the path that it names."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def _parent(path: str) -> Iterator[tuple[int | None, bytes]]:
    """Yields an open folder and a short path from there; for a short path None and the path."""
    *above, last = _pieces(os.fsencode(path))
    folder = None
    try:
        for piece in above:
            # O_PATH, where there is one, needs no more permission than a path as such does.
            flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
            deeper = os.open(piece, flags, dir_fd=folder)
            if folder is not None:
                os.close(folder)
            folder = deeper
        yield folder, last
    finally:
        if folder is not None:
            os.close(folder)


def _pieces(path: bytes) -> list[bytes]:
    """Cuts a path at slashes into pieces that the system takes."""
    pieces = []
    while len(path) > _LONGEST and (cut := path.rfind(b"/", 1, _LONGEST)) > 0:
        pieces.append(path[:cut])
        path = path[cut:].lstrip(b"/")
    return [*pieces, path]
