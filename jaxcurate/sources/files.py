"""Opening of regular files, and of nothing else, and scanning of folders at any depth."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from jaxcurate.checks import InputError

_LONGEST = 1000
"""Largest number of bytes of a path that is passed to the system. Linux allows 4095, macOS 1023."""
_SPECIAL = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind(mode: int) -> str:
    """Returns the kind of a file that is not regular, in words.

    Args:
        mode: mode of the file from `os.stat`.

    Examples:
        >>> kind(os.stat("/").st_mode)
        'a folder'
    """
    return _SPECIAL.get(stat.S_IFMT(mode), "no regular file")


def check_regular(path: str) -> None:
    """Refuses a path that is not a regular file or a link to a regular file, without opening it.

    Raises:
        InputError: the message names the kind of the file, or why it cannot be opened.

    Examples:
        >>> check_regular("/")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: / is a folder, not a file
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
        InputError: the file is not regular.
        OSError: the file cannot be opened.

    Examples:
        >>> open_regular("/")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: a folder, not a file
    """
    with _parent(path) as (folder, name):
        mode = os.stat(name, dir_fd=folder).st_mode
        if stat.S_ISREG(mode):
            # O_NONBLOCK, so as not to wait if a FIFO has replaced the file meanwhile.
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
        OSError: the folder cannot be opened.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.mkdir(f"{folder}/cats")
        ...     with scan(folder) as entries:
        ...         [entry.name for entry in entries]
        ['cats']
    """
    with _parent(path) as (parent, name):
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        with os.scandir(folder) as entries:
            yield entries
    finally:
        os.close(folder)


def reason(error: Exception) -> str:
    """Returns the message of an error of the system, without the path.

    Examples:
        >>> reason(FileNotFoundError(2, "No such file or directory", "/data/a.png"))
        'No such file or directory'
    """
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def _parent(path: str) -> Iterator[tuple[int | None, bytes]]:
    """Yields an open folder and a short path relative to it, or None and the path if it is
    short."""
    *above, last = _pieces(os.fsencode(path))
    folder = None
    try:
        for piece in above:
            # O_PATH, if the system has it, needs no more permission than following a path.
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
    """Cuts a path at slashes into pieces that are short enough for the system."""
    pieces = []
    while len(path) > _LONGEST and (cut := path.rfind(b"/", 1, _LONGEST)) > 0:
        pieces.append(path[:cut])
        path = path[cut:].lstrip(b"/")
    return [*pieces, path]
