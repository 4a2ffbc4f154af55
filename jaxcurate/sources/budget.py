"""Budget of bytes that threads share, so that memory does not grow with their number."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class ByteBudget:
    """Budget that makes threads wait until their bytes fit beside those of other threads.

    Threads are served in the order of their requests, so that small amounts do not delay a large
    amount forever. An amount above the whole budget is admitted alone.

    Args:
        total: largest number of bytes that are held at a time.
        uncounted: amounts up to this number of bytes never wait, and are not counted.

    Examples:
        >>> budget = ByteBudget(100)
        >>> with budget.hold(60):
        ...     budget.held
        60
    """

    def __init__(self, total: int, uncounted: int = 0) -> None:
        self.total = total
        self.uncounted = uncounted
        self.held = 0
        """Number of bytes that are held now."""
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextmanager
    def hold(self, n_bytes: int) -> Iterator[None]:
        """Holds bytes within the block, after waiting until they fit.

        A thread that holds bytes must not ask for more: two such threads would wait for each
        other.
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
