"""Signals that end a program, put off until the work is at a place where it can be saved."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = signal.SIGTERM, signal.SIGINT


class Interruption:
    """Signal that came, if one did, and the handler that it was meant for."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._handlers: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """True once SIGTERM or SIGINT came."""
        return self._number is not None

    def deliver(self) -> None:
        """Gives the signal to the handler that was there before; does nothing if none came.

        The handler of the command line and that of Python raise a ``KeyboardInterrupt``. Without a
        handler the signal ends the process.
        """
        if self._number is None:
            return
        number, self._number = self._number, None
        self._give(number, None)

    def _give(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers[number]
        if callable(handler):
            handler(number, frame)
        elif handler != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:  # who asks twice does not want to wait
            self._give(number, frame)
        self._number = number


@contextmanager
def postponed_signals() -> Iterator[Interruption]:
    """Puts off SIGTERM and SIGINT while the block runs; a second one is not put off.

    Outside of the main thread, where Python lets nobody handle signals, nothing is put off. A
    signal that came and was not delivered in the block is delivered at its end.

    Examples:
        >>> with postponed_signals() as interruption:
        ...     interruption.asked
        False
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    for number in _SIGNALS:
        before = signal.getsignal(number)
        # A handler that C code has set cannot be called from here; it stays.
        if before is not None and before != signal.SIG_IGN:
            interruption._handlers[number] = before
            signal.signal(number, interruption._handle)
    try:
        yield interruption
    finally:
        for number, before in interruption._handlers.items():
            signal.signal(number, before)
    interruption.deliver()
