"""Paths and small files of this machine: what is local, what disks refuse, JSON that is damaged."""

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
    """Tells whether a path is one of this machine's, and not such as ``gs://bucket``."""
    return "://" not in os.fspath(path)


@contextmanager
def told(path: epath.PathLike, n_bytes: int | None = None) -> Iterator[None]:
    """Turns an error of the file system into one line with the path and the bytes wanted.

    Raises:
        InputError: in the place of an OSError, of which the system does not always tell the path.
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
    """Returns what a text in JSON holds.

    Raises:
        ValueError: it is none, or nested more deeply than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
