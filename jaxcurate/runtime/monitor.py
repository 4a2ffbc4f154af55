"""A thread that watches the other processes of a run, and ends this one when one of them is lost.

Each process sends its heartbeats to process 0, over the connections that
:mod:`jaxcurate.runtime.rendezvous` made. Process 0 decides whether a process is lost, and tells all
others which one.
"""

import os
import resource
import signal
import sys
import threading
import time
from dataclasses import asdict, replace
from types import FrameType
from typing import NoReturn

import jax

from jaxcurate.runtime import steps
from jaxcurate.runtime.channel import Channel, Message, ready
from jaxcurate.runtime.rendezvous import Party
from jaxcurate.runtime.verdict import Beat, first_seen, last_report, updated, verdict

_PRINT_SECONDS = 2.0
GRACE_SECONDS = 5.0
"""Seconds in which a process may end by itself after another process has reported a failure."""
_last_word = threading.Lock()
"""Lock that the first thread to end the process takes and never releases."""
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_JAX = os.path.dirname(jax.__file__) + os.sep
_LIBRARIES = (os.path.dirname(os.__file__), f"{os.sep}site-packages{os.sep}")


class Monitor:
    """Sender and receiver of heartbeats, which ends this process when another one is lost.

    Args:
        party: Processes of the run, and the connections to them.
        heartbeat_seconds: Time without a heartbeat after which a process counts as stopped.
        stall_seconds: Time without work after which a process counts as stuck, at least that of
            three heartbeats; 0 for never.
    """

    def __init__(self, party: Party, heartbeat_seconds: float, stall_seconds: float) -> None:
        self.me = party.me
        self._heartbeat_seconds = heartbeat_seconds
        self._every = min(3.0, heartbeat_seconds / 10)
        # Work is known by heartbeats, of which one may be late.
        self._stall_seconds = stall_seconds and max(stall_seconds, 3 * self._every)
        self._channels = dict(party.channels)
        now = time.monotonic()
        self._seen = {p: first_seen(member, now) for p, member in party.members.items()}
        self._main = threading.main_thread().ident
        self._reported = threading.Lock()
        self._ending = threading.Event()
        self._parted = threading.Event()
        self._signals: int | None = None
        self._stopped = 0.0
        self.signal: int | None = None
        """Number of the signal that ends this process, or None if there is none."""
        self.line: str | None = None
        """Message that names the process because of which this one ends, or None so far."""

    def start(self, signals: int | None = None) -> None:
        """Starts the thread that watches.

        Args:
            signals: Descriptor from which the numbers of arriving signals can be read.
        """
        self._signals = signals
        threading.Thread(target=self._watch, name="jaxcurate monitor", daemon=True).start()

    def fail(self, reason: str) -> None:
        """Reports to the other processes that this one ends; later calls do nothing.

        The thread stops watching, so that this process ends by itself.

        Args:
            reason: Text to report after the name of this process, such as "failed: OSError".
        """
        if not self._reported.acquire(blocking=False):
            return
        self._ending.set()
        if self.me.process:
            self._send_all({"fails": reason})
        else:
            self._send_all({"end": f"{self.me} {reason}", "grace": GRACE_SECONDS})

    def leave(self) -> None:
        """Reports that the program of this process has finished, and waits until all have."""
        self._send_all({"left": True})
        self._left(self.me.process)
        # jax itself would wait for a few minutes and then abort all processes.
        while not self._parted.wait(1) and not self._ending.is_set():
            pass

    def end(self, line: str, grace: float = 0.0) -> None:
        """Ends this process with a message, unless it ends by itself in time.

        Args:
            line: Message to print on standard error.
            grace: Seconds that this process has to end by itself.
        """
        self.line = line
        if self._ending.wait(grace):
            return
        end_now(line)

    def on_sigterm(self, number: int, frame: FrameType | None) -> NoReturn:
        """Raises ``SystemExit`` on SIGTERM, so that the program runs every ``finally``."""
        self.signal = number
        raise SystemExit(128 + number)

    def end_on_signal(self) -> NoReturn:
        """Ends this process because of :attr:`signal`, and reports that to the others."""
        assert self.signal is not None
        name = signal.Signals(self.signal).name
        self.fail(f"was ended by {name}")
        end_now(f"{self.me} ends on {name}", 128 + self.signal)

    def _watch(self) -> None:
        last = time.monotonic()
        next_beat = last
        while not self._ending.is_set():
            waiting: list[Channel | int] = list(self._channels.values())
            if self._signals is not None:
                waiting.append(self._signals)
            arrived = ready(waiting, max(0.0, next_beat - time.monotonic()))
            now = time.monotonic()
            stopped = now - last if now - last > self._heartbeat_seconds / 2 else 0.0
            self._stopped = stopped or self._stopped
            last = now
            for process, channel in list(self._channels.items()):
                if channel in arrived:
                    self._hear(process, channel)
            if self._signals is not None and self._signals in arrived:
                self._on_signals(os.read(self._signals, 64))
            self._excuse(stopped, now)
            if now >= next_beat:
                next_beat = now + self._every
                self._beat(now)

    def _beat(self, now: float) -> None:
        me = self.me.process
        beat = self._own_beat()
        self._seen[me] = updated(self._seen[me], beat, now)
        self._send_all({"beat": asdict(beat)})
        if me == 0:
            line = verdict(self._seen, now, self._heartbeat_seconds, self._stall_seconds)
            if line is not None:
                self._send_all({"end": line, "grace": 0})
                self.end(line)
        elif 0 in self._channels:
            # Two heartbeats later, so that a message of process 0 about another process comes
            # first.
            heard = {0: self._seen[0]}
            line = verdict(heard, now - 2 * self._every, self._heartbeat_seconds, 0)
            if line is not None:
                self.end(line)

    def _hear(self, process: int, channel: Channel) -> None:
        now = time.monotonic()
        messages, is_open = channel.receive()
        for message in messages:
            self._take(process, message, now)
        if not is_open:
            self._channels.pop(process).close()
            seen = self._seen[process]
            if not seen.left:
                line = last_report(seen.member, seen.beat, "died", now - seen.heard)
                if self._stopped:
                    line = f"{self.me} did not run for {self._stopped:.1f} s; then {line}"
                if self.me.process == 0:
                    self._send_all({"end": line, "grace": 0})
                self.end(line)

    def _take(self, process: int, message: Message, now: float) -> None:
        if "beat" in message:
            self._seen[process] = updated(self._seen[process], Beat(**message["beat"]), now)
        elif "left" in message:
            self._left(process)
        elif "parted" in message:
            self._parted.set()
        elif "fails" in message:
            line = f"{self._seen[process].member} {message['fails']}"
            self._seen[process] = replace(self._seen[process], left=True)
            self._send_all({"end": line, "grace": GRACE_SECONDS}, but=process)
            self.end(line, GRACE_SECONDS)
        elif "end" in message:
            self.end(message["end"], message["grace"])

    def _left(self, process: int) -> None:
        self._seen[process] = replace(self._seen[process], left=True)
        if self.me.process == 0 and all(seen.left for seen in self._seen.values()):
            self._send_all({"parted": True})
            self._parted.set()

    def _excuse(self, seconds: float, now: float) -> None:
        """Adds the seconds in which this process could not listen to the times of all others."""
        for process, seen in self._seen.items():
            self._seen[process] = replace(
                seen,
                heard=min(now, seen.heard + seconds),
                stepped=min(now, seen.stepped + seconds),
                active=min(now, seen.active + seconds),
            )

    def _on_signals(self, numbers: bytes) -> None:
        """Reports a signal that ends this process, even while its main thread is within C++."""
        for number in numbers:
            ends = {signal.SIGTERM: self.on_sigterm, signal.SIGINT: signal.default_int_handler}
            ends = {int(kind): handler for kind, handler in ends.items()}
            if number in ends and signal.getsignal(number) == ends[number]:
                self.signal = number
                self.fail(f"was ended by {signal.Signals(number).name}")
                time.sleep(GRACE_SECONDS)
                self.end_on_signal()

    def _send_all(self, message: Message, but: int | None = None) -> None:
        for process, channel in list(self._channels.items()):
            if process != but:
                channel.send(message)

    def _own_beat(self) -> Beat:
        taken, step = steps.taken()
        used = resource.getrusage(resource.RUSAGE_SELF)
        frame = sys._current_frames().get(self._main or 0)
        return Beat(
            taken,
            step,
            used.ru_utime + used.ru_stime - time.thread_time(),
            used.ru_majflt + used.ru_inblock + used.ru_oublock,
            _line_of(frame),
            frame is not None and frame.f_code.co_filename.startswith(_JAX),
        )


def end_now(line: str | None, code: int = 1) -> NoReturn:
    """Ends this process at once, whatever its other threads do.

    Args:
        line: Message to print on standard error, or None for no message.
        code: Exit code.
    """
    _last_word.acquire()  # and never release: a second thread that ends the process waits here

    def say() -> None:
        sys.stdout.flush()
        if line is not None:
            print(f"jaxcurate: {line}", file=sys.stderr)
        sys.stderr.flush()

    # The main thread may hold the lock of a stream and never release it, so that printing blocks.
    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    thread.join(_PRINT_SECONDS)
    if thread.is_alive() and line is not None:
        os.write(2, f"jaxcurate: {line}\n".encode())
    os._exit(code)


def _line_of(frame: FrameType | None) -> str:
    """Returns the innermost line of Python that belongs to the user or to this package.

    Lines of other libraries are skipped, unless there are no other lines.
    """
    innermost = frame
    while frame is not None:
        path = frame.f_code.co_filename
        ours = path.startswith(_PACKAGE + os.sep)
        if ours or not any(library in path for library in (*_LIBRARIES, "<frozen")):
            break
        frame = frame.f_back
    frame = frame or innermost
    if frame is None:
        return "no line of Python"
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
