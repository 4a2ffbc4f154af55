"""Temporary folders that are known by a mark and removed once their process is gone."""

import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from jaxcurate.artifacts.local import parsed, told
from jaxcurate.artifacts.owner import Owner

_MARK = "jaxcurate-temporary.json"
"""Tells the token of the folder's name and the process that made it."""
_NAME = re.compile(r"\.jaxcurate-(?P<token>[0-9a-f]{32})-(?P<pid>\d+)-(?P<started>\d*)\.tmp")
OLD = "old"
"""Name, within a temporary folder, of what its target was before."""


@contextmanager
def beside(path: epath.Path) -> Iterator[epath.Path]:
    """Yields an empty place for what will stand at ``path``, and removes the rest in the end.

    Temporary folders that processes left behind beside ``path`` are removed first.

    Args:
        path: the target, whose folder exists.

    Yields:
        A temporary folder on the file system of ``path``.
    """
    clean(path.parent)
    owner, token = Owner.current(), uuid.uuid4().hex
    folder = path.parent / f".jaxcurate-{token}-{owner.pid}-{owner.started}.tmp"
    folder.mkdir()
    try:
        mark = {"token": token, "target": path.name, **owner._asdict()}
        text = json.dumps(mark)
        with told(folder / _MARK, len(text)):
            (folder / _MARK).write_text(text)
        yield folder
    finally:
        _remove(folder)


def clean(parent: epath.Path) -> None:
    """Removes temporary folders of processes that are gone.

    Folders without the mark, and those of processes that run or may run on another machine, stay.
    Where a process was killed between two renames, what it was about to replace is put back.
    """
    for folder in parent.glob(".jaxcurate-*.tmp"):
        if not (name := _NAME.fullmatch(folder.name)) or not folder.is_dir():
            continue
        mark = _read_mark(folder)
        if mark is None:
            # Nothing but an unfinished mark: the process was killed while it made the folder.
            here = Owner.current()
            maker = here._replace(pid=int(name["pid"]), started=name["started"])
            unfinished = {entry.name for entry in folder.iterdir()} <= {_MARK}
            if unfinished and maker.is_running() is False:
                _remove(folder)
            continue
        token, target, owner = mark
        if token == name["token"] and owner.is_running() is False:
            if (folder / OLD).exists() and not (parent / target).exists():  # between two renames
                (folder / OLD).rename(parent / target)
            _remove(folder)


def is_temporary(name: str) -> bool:
    """Tells whether a file name is one that only temporary folders have."""
    return _NAME.fullmatch(name) is not None


def _read_mark(folder: epath.Path) -> tuple[str, str, Owner] | None:
    try:
        mark = parsed((folder / _MARK).read_text())
        token, target, owner = mark["token"], mark["target"], Owner.from_plain(mark)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (token, target, owner) if _is_name(target) else None


def _is_name(target: Any) -> bool:
    """Tells whether something, from a mark that may be damaged, can be a file's name."""
    try:
        size = len(os.fsencode(target)) if isinstance(target, str) else 0
    except UnicodeEncodeError:
        return False
    return 0 < size < 256 and not set(target) & {"/", "\0"} and target not in (".", "..")


def _remove(folder: epath.Path) -> None:
    """Removes a temporary folder, its mark last, so that a kill leaves one that is marked."""
    for entry in folder.iterdir():
        if entry.name != _MARK:
            entry.rmtree(missing_ok=True) if entry.is_dir() else entry.unlink(missing_ok=True)
    folder.rmtree(missing_ok=True)
