"""A limit of time for what must not hang."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Hangs(BaseException):
    """Something took too long. Not an Exception, so that no reader takes it for a broken file."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises `Hangs` where the block takes longer; for the main thread only."""

    def stop(*_: object) -> None:
        raise Hangs(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
