"""Locks of work directories: one run at a time writes, and the file names that run."""

import fcntl
import json
import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from etils import epath

from jaxcurate.artifacts import bucket
from jaxcurate.artifacts.bucket_lock import locked_object, read_holder
from jaxcurate.artifacts.holder import (
    BEAT_SECONDS,
    OBSERVED_SECONDS,
    POLL_SECONDS,
    SILENT_SECONDS,
    Holder,
    in_use,
    parsed_holder,
)
from jaxcurate.artifacts.local import is_local, write_errors
from jaxcurate.artifacts.owner import Owner
from jaxcurate.checks import InputError

NAME = ".jaxcurate.lock"
"""Name of the lock file in a work directory while a command writes there."""
_GUARD_SECONDS = 5.0


class Lock:
    """Lock that this process, or another process of the same run, holds.

    Args:
        folder: the work directory.
        token: token that all processes of the run share.
    """

    def __init__(self, folder: epath.Path, token: str) -> None:
        self.folder = folder
        self.token = token

    def check(self) -> None:
        """Refuses to continue if this run no longer holds the lock.

        Raises:
            InputError: the lock was removed, or taken over while this process was suspended.
        """
        holder = _read(self.folder / NAME)
        if holder is None or holder.token != self.token:
            now = "nobody" if holder is None else str(holder)
            raise InputError(
                f"{self.folder} was locked by this run and is now held by {now}: nothing more is "
                "written; start the command again"
            )


_held: list[Lock] = []
"""Locks that this process holds."""


def check_held(path: epath.Path) -> None:
    """Refuses to write below a work directory whose lock was lost.

    It is called as late as possible, because a process may be suspended for hours between any two
    of its steps, and its lock be taken over meanwhile.

    Raises:
        InputError: this process has locked a folder above ``path``, and lost the lock.
    """
    for lock in _held:
        if lock.folder in path.parents:
            lock.check()


def held_token(path: epath.Path) -> str | None:
    """Returns the token of the lock that this process holds over a path, or None.

    Examples:
        >>> held_token(epath.Path("/nowhere")) is None
        True
    """
    over = (lock for lock in _held if lock.folder == path or lock.folder in path.parents)
    return next((lock.token for lock in over), None)


@contextmanager
def locked(
    folder: epath.Path,
    *,
    wait: bool = False,
    token: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Lock]:
    """Holds the lock of a work directory during the block, and makes the directory if needed.

    The lock of a process that has ended is taken over. On the same machine the system knows
    whether a process runs. A holder on another machine that shares the file system counts as
    ended if it has not touched the file for two minutes, and does not touch it during half a
    minute of observation. If the directory was made for the lock and nothing was written to it,
    it is removed in the end.

    Args:
        folder: the work directory. In a bucket (``gs://``, ``s3://``) the lock is an object that
            is made only if there is none.
        wait: wait for the holder instead of refusing.
        token: token that all processes of one run share, which hold the lock together.
        say: called with a line of text about the holder that is waited for.

    Raises:
        InputError: another run holds the lock; the message names it.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work, locked(epath.Path(work)):
        ...     (epath.Path(work) / NAME).exists()
        True
    """
    token = token or uuid.uuid4().hex
    if not is_local(folder):
        bucket.check_name(folder)
        if bucket.is_file(folder):
            raise InputError(f"{folder} is a file, not a work directory")
        with locked_object(folder / NAME, token, wait, say), _noted(folder, token) as held:
            yield held
        return
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, not a work directory")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        mine = _acquire(folder / NAME, token, wait, say)
        try:
            with _touched(folder / NAME), _noted(folder, token) as held:
                yield held
        finally:
            if mine:
                _release(folder / NAME, token)
    finally:
        for parent in made:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()


@contextmanager
def followed(folder: epath.Path, token: str) -> Iterator[Lock | None]:
    """Notes a lock that another process of the run holds, under which this process writes too.

    In a bucket, what this process writes then names the lock. If the run is killed, a later one
    knows it for something that an earlier run left, on whatever machine that was. A local path is
    not noted, as a shared file system may show another machine a new lock late.

    Args:
        folder: the work directory.
        token: token of the lock, from the process that holds it.

    Examples:
        >>> with followed(epath.Path("s3://bucket/run"), "a-token"):
        ...     held_token(epath.Path("s3://bucket/run/pool"))
        'a-token'
    """
    if is_local(folder):
        yield None
        return
    with _noted(folder, token) as held:
        yield held


@contextmanager
def _noted(folder: epath.Path, token: str) -> Iterator[Lock]:
    """Notes that this process holds a lock during the block."""
    _held.append(held := Lock(folder, token))
    try:
        yield held
    finally:
        _held.remove(held)


def _acquire(path: epath.Path, token: str, wait: bool, say: Callable[[str], None]) -> bool:
    """Takes a lock, and returns False if another process of the run has taken it already."""
    waiting = False
    while True:
        with _guarded(path) as file:
            holder = parsed_holder(file.read()) if file else _read(path)
            if holder is not None and holder.token == token:
                return False
            if file and (holder is None or holder.owner.is_running() is False):
                _write(file, token)
                return True
        if holder is not None and holder.owner.is_running() is None and _is_silent(path, say):
            with _guarded(path) as file:
                if file and parsed_holder(file.read()) == holder:
                    _write(file, token)
                    return True
            continue
        if not wait:
            raise in_use(path.parent, holder)
        if not waiting:
            say(f"waiting for {holder or 'a process that starts'}")
            waiting = True
        time.sleep(POLL_SECONDS)


@contextmanager
def _guarded(path: epath.Path) -> Iterator["_File | None"]:
    """Opens the lock file while no other process has it open. Yields None after a long wait."""
    deadline = time.monotonic() + _GUARD_SECONDS
    while True:
        with _File(path) as file:
            if file.is_guarded and file.is_at(path):
                yield file
                return
        if time.monotonic() > deadline:
            yield None
            return
        time.sleep(0.01)


class _File:
    """Open lock file, guarded by the system against other processes that open it in this way."""

    def __init__(self, path: epath.Path) -> None:
        self._path = path
        self._number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        if not stat.S_ISREG(os.fstat(self._number).st_mode):
            os.close(self._number)
            raise InputError(f"{path} is no file: move it away")
        self.is_guarded = True
        try:
            fcntl.flock(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.is_guarded = False
        except OSError:
            pass  # the file system has no such locks, and reading the token again must suffice

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._number)

    def is_at(self, path: epath.Path) -> bool:
        """Returns whether the file still has its name."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._number))
        except FileNotFoundError:
            return False

    def read(self) -> str:
        """Returns the content of the file."""
        return os.pread(self._number, 2**16, 0).decode(errors="replace")

    def write(self, text: str) -> None:
        """Replaces the content of the file, or removes the file if the disk is full.

        Raises:
            InputError: the file cannot be written.
        """
        data = text.encode()
        try:
            with write_errors(self._path, len(data)):
                os.ftruncate(self._number, 0)
                os.pwrite(self._number, data, 0)
                os.fsync(self._number)
        except InputError:
            self._path.unlink(missing_ok=True)
            raise


def _write(file: _File, token: str) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(json.dumps({"token": token, "since": since, **Owner.current()._asdict()}))


def _release(path: epath.Path, token: str) -> None:
    with _guarded(path) as file:
        holder = parsed_holder(file.read()) if file else None
        if holder is None or holder.token == token:
            path.unlink(missing_ok=True)


def _read(path: epath.Path) -> Holder | None:
    if not is_local(path):
        return read_holder(path)
    try:
        return parsed_holder(path.read_text())
    except OSError:
        return None


def _is_silent(path: epath.Path, say: Callable[[str], None]) -> bool:
    """Returns whether a lock file is no longer touched, even if clocks of machines differ."""
    try:
        touched = os.stat(path).st_mtime_ns
        if time.time() - touched / 1e9 < SILENT_SECONDS:
            return False
        say(f"looking for {OBSERVED_SECONDS:.0f} s whether {_read(path)} is alive")
        deadline = time.monotonic() + OBSERVED_SECONDS
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            if os.stat(path).st_mtime_ns != touched:
                return False
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _touched(path: epath.Path) -> Iterator[None]:
    """Touches a file now and then during the block."""
    done = threading.Event()

    def touch() -> None:
        while not done.wait(BEAT_SECONDS):
            try:
                os.utime(path)
            except OSError:
                return  # the lock was lost, which the next check reports

    thread = threading.Thread(target=touch, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
