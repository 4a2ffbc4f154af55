"""Local paths, one-line errors of the file system, and JSON that may be damaged."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from jaxcurate.artifacts import bucket
from jaxcurate.checks import InputError


def is_local(path: epath.PathLike) -> bool:
    """Returns whether a path belongs to this machine, unlike ``gs://bucket``.

    Examples:
        >>> is_local("/data/pool"), is_local("gs://bucket/pool")
        (True, False)
    """
    return "://" not in os.fspath(path)


def make_folder(path: epath.PathLike) -> None:
    """Makes a folder with its parents, unless it exists. Buckets have no folders to make.

    Examples:
        >>> make_folder("gs://bucket/pool")
    """
    if is_local(path):
        os.makedirs(path, exist_ok=True)


def exists(path: epath.PathLike) -> bool:
    """Returns whether there is a file or folder. A bucket that cannot be reached is an error.

    Examples:
        >>> exists("/"), exists("/nowhere")
        (True, False)
    """
    if is_local(path):
        return os.path.exists(path)
    return bucket.is_file(path) or bucket.is_folder(path)


def is_file(path: epath.PathLike) -> bool:
    """Returns whether there is a regular file. A bucket that cannot be reached is an error.

    Examples:
        >>> is_file("/"), is_file("/nowhere")
        (False, False)
    """
    return os.path.isfile(path) if is_local(path) else bucket.is_file(path)


def is_folder(path: epath.PathLike) -> bool:
    """Returns whether there is a folder. A bucket that cannot be reached is an error.

    Examples:
        >>> is_folder("/"), is_folder("/nowhere")
        (True, False)
    """
    return os.path.isdir(path) if is_local(path) else bucket.is_folder(path)


def names_in(folder: epath.PathLike) -> list[str]:
    """Returns the names of the files and folders in a folder, sorted; none if it does not exist.

    Examples:
        >>> names_in("/nowhere")
        []
    """
    if is_local(folder):
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return bucket.names(folder)


def remove_file(path: epath.PathLike) -> None:
    """Removes a file, if it exists.

    Examples:
        >>> remove_file("/nowhere/a")
    """
    if is_local(path):
        epath.Path(path).unlink(missing_ok=True)
    else:
        bucket.remove([path])


def remove_tree(folder: epath.PathLike) -> None:
    """Removes a folder with all that is in it, if it exists.

    Examples:
        >>> remove_tree("/nowhere")
    """
    if is_local(folder):
        epath.Path(folder).rmtree(missing_ok=True)
    else:
        bucket.remove_below(folder)


def read_text(path: epath.PathLike) -> str:
    """Returns the text of a file.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the bucket of the file cannot be reached.

    Examples:
        >>> read_text("/dev/null")
        ''
    """
    if is_local(path):
        return epath.Path(path).read_text()
    data = bucket.read(path)
    if data is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    return data.decode()


@contextmanager
def write_errors(path: epath.PathLike, n_bytes: int | None = None) -> Iterator[None]:
    """Turns an error of the file system into one line with the path and the number of bytes.

    Args:
        path: path that the block writes to.
        n_bytes: number of bytes that the block writes, if it is known.

    Raises:
        InputError: replaces an OSError, which does not always name the path.

    Examples:
        >>> with write_errors("/data/a.npy", n_bytes=64):
        ...     raise OSError(errno.EIO, "Input/output error")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: cannot write 64 bytes to /data/a.npy: Input/output error
    """
    try:
        yield
    except OSError as error:
        why, path = error.strerror or str(error), os.fspath(path)
        left = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            with contextlib.suppress(OSError):
                left = f"; {shutil.disk_usage(os.path.dirname(path)).free} bytes are free there"
        size = "" if n_bytes is None else f"{n_bytes} bytes to "
        raise InputError(f"cannot write {size}{path}: {why}{left}") from error


def parsed(text: str) -> Any:
    """Returns the value of a text in JSON.

    Raises:
        ValueError: the text is no JSON, or nested too deeply for Python.

    Examples:
        >>> parsed('{"n": 3}')
        {'n': 3}
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
