"""A number of bytes that threads share, so that memory does not grow with their number."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class ByteBudget:
    """Makes threads wait until what they are about to hold fits beside what others hold.

    Threads are served in the order in which they ask, so that a large amount is not put off by
    small ones for ever. More than the whole budget is let through alone.

    Args:
        total: bytes that are held at a time.
        uncounted: amounts up to this many bytes never wait, and are not counted.
    """

    def __init__(self, total: int, uncounted: int = 0) -> None:
        self.total = total
        self.uncounted = uncounted
        self.held = 0
        """Bytes that are held now."""
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextmanager
    def hold(self, n_bytes: int) -> Iterator[None]:
        """Holds bytes within the block, once there is room for them.

        A thread that holds some must not ask for more: two such threads would wait for each other.
        """
        if n_bytes <= self.uncounted:
            yield
            return
        self._take(n_bytes)
        try:
            yield
        finally:
            with self._changed:
                self.held -= n_bytes
                self._changed.notify_all()

    def _take(self, n_bytes: int) -> None:
        ticket = object()

        def is_served() -> bool:
            fits = self.held == 0 or self.held + n_bytes <= self.total
            return fits and self._waiting[0] is ticket

        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(is_served)
                self.held += n_bytes
            finally:  # an interrupted thread must not keep the others waiting
                self._waiting.remove(ticket)
                self._changed.notify_all()
