"""Temporary folders with a mark that names their process, removed once it has ended."""

import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from jaxcurate.artifacts.local import parsed, write_errors
from jaxcurate.artifacts.owner import Owner

MARK = "jaxcurate-temporary.json"
"""Name of the file with the token of the folder's name and the process that made it."""
_NAME = re.compile(r"\.jaxcurate-(?P<token>[0-9a-f]{32})-(?P<pid>\d+)-(?P<started>\d*)\.tmp")
OLD = "old"
"""Name, within a temporary folder, of the former content of its target."""


@contextmanager
def beside(path: epath.Path) -> Iterator[epath.Path]:
    """Yields a temporary folder beside ``path``, and removes it in the end.

    Temporary folders that ended processes left beside ``path`` are removed first.

    Args:
        path: target that the content will be moved to. Its parent folder exists.

    Yields:
        A temporary folder on the file system of ``path``, empty but for its mark.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     with beside(epath.Path(work) / "tree") as folder:
        ...         before = folder.exists(), is_temporary(folder.name)
        ...     before, folder.exists()
        ((True, True), False)
    """
    clean(path.parent)
    owner, token = Owner.current(), uuid.uuid4().hex
    folder = path.parent / f".jaxcurate-{token}-{owner.pid}-{owner.started}.tmp"
    folder.mkdir()
    try:
        mark = {"token": token, "target": path.name, **owner._asdict()}
        text = json.dumps(mark)
        with write_errors(folder / MARK, len(text)):
            (folder / MARK).write_text(text)
        yield folder
    finally:
        _remove(folder)


def clean(parent: epath.Path) -> None:
    """Removes the temporary folders of processes that have ended.

    Folders without a mark stay, and so do folders of processes that run, or may run on another
    machine. If a process was killed between two renames, the folder that it was about to replace
    is moved back.
    """
    for folder in parent.glob(".jaxcurate-*.tmp"):
        if not (name := _NAME.fullmatch(folder.name)) or not folder.is_dir():
            continue
        mark = _read_mark(folder)
        if mark is None:
            # With nothing but an unfinished mark, the process was killed while it made the folder.
            maker = Owner.current()._replace(pid=int(name["pid"]), started=name["started"])
            unfinished = {entry.name for entry in folder.iterdir()} <= {MARK}
            if unfinished and maker.is_running() is False:
                _remove(folder)
            continue
        token, target, owner = mark
        if token == name["token"] and owner.is_running() is False:
            if (folder / OLD).exists() and not (parent / target).exists():  # between two renames
                (folder / OLD).rename(parent / target)
            _remove(folder)


def is_temporary(name: str) -> bool:
    """Returns whether a name has the form of the names of temporary folders.

    Examples:
        >>> is_temporary(f".jaxcurate-{'0' * 32}-17-5.tmp"), is_temporary("a.tmp")
        (True, False)
    """
    return _NAME.fullmatch(name) is not None


def _read_mark(folder: epath.Path) -> tuple[str, str, Owner] | None:
    try:
        mark = parsed((folder / MARK).read_text())
        token, target, owner = mark["token"], mark["target"], Owner.from_plain(mark)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (token, target, owner) if _is_name(target) else None


def _is_name(target: Any) -> bool:
    """Returns whether an entry of a mark, which may be damaged, can be the name of a file."""
    try:
        size = len(os.fsencode(target)) if isinstance(target, str) else 0
    except UnicodeEncodeError:
        return False
    return 0 < size < 256 and not set(target) & {"/", "\0"} and target not in (".", "..")


def _remove(folder: epath.Path) -> None:
    """Removes a temporary folder, its mark last, so that it stays marked if a kill interrupts."""
    for entry in folder.iterdir():
        if entry.name != MARK:
            entry.rmtree(missing_ok=True) if entry.is_dir() else entry.unlink(missing_ok=True)
    folder.rmtree(missing_ok=True)
