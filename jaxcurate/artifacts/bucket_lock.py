"""Locks of work directories in a bucket: an object that is made only if there is none.

S3 and Google Cloud Storage make and replace an object on a condition, so that of two runs that
begin together one gets the lock. In a store without conditions the later of the two gets it, and
the earlier one stops at its next check.
"""

import datetime
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from etils import epath

from jaxcurate.artifacts import bucket
from jaxcurate.artifacts.holder import (
    BEAT_SECONDS,
    OBSERVED_SECONDS,
    POLL_SECONDS,
    SILENT_SECONDS,
    Holder,
    in_use,
    parsed_holder,
)
from jaxcurate.artifacts.owner import Owner
from jaxcurate.checks import InputError


@contextmanager
def locked_object(
    path: epath.Path, token: str, wait: bool, say: Callable[[str], None]
) -> Iterator[None]:
    """Holds a lock during the block.

    Args:
        path: path of the object.
        token: token that all processes of one run share.
        wait: wait for the holder instead of refusing.
        say: called with a line of text about the holder that is waited for.

    Raises:
        InputError: another run holds the lock; the message names it.
    """
    is_mine = _acquire(path, token, wait, say)
    try:
        if is_mine:
            with _renewed(path, token):
                yield
        else:
            yield
    finally:
        if is_mine:
            _release(path, token)


def read_holder(path: epath.Path) -> Holder | None:
    """Returns the holder of a lock, or None if nobody holds it."""
    data = bucket.read(path)
    return None if data is None else parsed_holder(data.decode(errors="replace"))


def _acquire(path: epath.Path, token: str, wait: bool, say: Callable[[str], None]) -> bool:
    """Takes a lock, and returns False if another process of the run has taken it already."""
    waiting = False
    while True:
        before = bucket.version(path)
        holder = None if before is None else read_holder(path)
        if holder is not None and holder.token == token:
            return False
        if before is None:
            if bucket.create(path, _text(token, 0)) and _is_held(path, token):
                return True
        elif holder is None or _has_ended(path, holder, before, say):
            if bucket.replace(path, _text(token, 0), before) and _is_held(path, token):
                return True
        else:
            if not wait:
                raise in_use(path.parent, holder)
            if not waiting:
                say(f"waiting for {holder}")
                waiting = True
        time.sleep(POLL_SECONDS)


def _is_held(path: epath.Path, token: str) -> bool:
    holder = read_holder(path)
    return holder is not None and holder.token == token


def _has_ended(path: epath.Path, holder: Holder, before: str, say: Callable[[str], None]) -> bool:
    """Returns whether a holder no longer runs, or no longer renews its lock from elsewhere."""
    is_running = holder.owner.is_running()
    if is_running is not None:
        return not is_running
    age = _age(path)
    if age is not None and age < SILENT_SECONDS:
        return False
    say(f"looking for {OBSERVED_SECONDS:.0f} s whether {holder} is alive")
    deadline = time.monotonic() + OBSERVED_SECONDS
    while time.monotonic() < deadline:
        time.sleep(BEAT_SECONDS / 2)
        if bucket.version(path) != before:
            return False
    return True


def _age(path: epath.Path) -> float | None:
    """Returns the seconds since an object was written, by the clock of the store, if it tells."""
    found = bucket.info(path) or {}
    written = found.get("LastModified") or found.get("mtime")
    if not isinstance(written, datetime.datetime):
        return None
    return time.time() - written.timestamp()


def _text(token: str, n_beats: int) -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    about = {"token": token, "since": since, "beats": n_beats, **Owner.current()._asdict()}
    return json.dumps(about).encode()


@contextmanager
def _renewed(path: epath.Path, token: str) -> Iterator[None]:
    """Writes the lock again now and then during the block, unless another run has taken it."""
    done = threading.Event()

    def renew() -> None:
        n_beats = 0
        while not done.wait(BEAT_SECONDS):
            try:
                before = bucket.version(path)
                if before is None or not _is_held(path, token):
                    return  # the lock was lost, which the next check reports
                n_beats += 1
                if not bucket.replace(path, _text(token, n_beats), before):
                    return
            except InputError:
                continue  # the network may come back before the lock is taken over

    thread = threading.Thread(target=renew, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _release(path: epath.Path, token: str) -> None:
    try:
        if _is_held(path, token):
            bucket.remove([path])
    except InputError:
        pass  # without the network the lock stays, and is taken over later
