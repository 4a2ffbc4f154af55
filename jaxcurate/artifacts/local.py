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

from jaxcurate.checks import InputError


def is_local(path: epath.PathLike) -> bool:
    """Returns whether a path belongs to this machine, unlike ``gs://bucket``.

    Examples:
        >>> is_local("/data/pool"), is_local("gs://bucket/pool")
        (True, False)
    """
    return "://" not in os.fspath(path)


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
