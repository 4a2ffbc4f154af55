"""Processes of a run: they come together, check their arguments, and end if one of them fails."""

import atexit
import functools
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

import jax
from jax._src import clusters  # jax tells the addresses that it detects in no public way

from jaxcurate.checks import InputError
from jaxcurate.runtime import agreement, steps
from jaxcurate.runtime.devices import Devices
from jaxcurate.runtime.facts import code_facts, described
from jaxcurate.runtime.monitor import Monitor, end_now
from jaxcurate.runtime.relay import relayed
from jaxcurate.runtime.rendezvous import meet, split_address

HEARTBEAT_SECONDS = 30
STALL_SECONDS = 45
START_SECONDS = 300
_PARTING_SECONDS = 10
_VERDICT_SECONDS = 3.0
_STATUS = r"[A-Z]+(_[A-Z]+)*: "
"""Beginning of an error of XLA, which may tell of a broken connection, as a ``ValueError`` too."""
_SLOWER = 10
"""Factor by which jax's own heartbeat waits longer, so that its stack trace never comes first."""

_monitor: Monitor | None = None


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    stall_seconds: float = STALL_SECONDS,
    start_seconds: float = START_SECONDS,
    **options: Any,
) -> None:
    """Joins this process with the others of the run; call it before any use of a device.

    Cloud TPU, Slurm, Kubernetes and Open MPI need no arguments. All processes have to run the same
    versions of Python, jax, jaxlib, numpy and jaxcurate, from the same source files.

    From then on the processes watch each other through the port of the coordinator. Each of these
    ends all of them with an exit code other than 0 and a line that names the process, its host, its
    pid, and where it was:

    - A process dies, raises an error that nobody catches, or gets SIGTERM or SIGINT: the others
      end within seconds. SIGTERM raises ``SystemExit(143)`` where the program has no handler of
      its own; a handler of its own is left alone, and the others wait for what it does.
    - A process is stopped (SIGSTOP), its machine is gone, or C code holds the interpreter's lock:
      after ``heartbeat_seconds``.
    - A process is stuck in Python, in a lock or on a disk that does not answer, while another one
      waits for it: after ``stall_seconds`` in which it took no common step, used less than 1 % of
      one core, read or wrote no block of a disk, and was not within jax. A process that compiles,
      computes, reads, or waits for its device is thus not taken for stuck; one that waits for a
      slow network, or for a debugger's user, may be, and needs more seconds.

    Not detected are a process that spins for ever in a loop, one that is stuck after its last
    common step, a device that never comes back, and a collective operation that all processes have
    entered and none can finish.

    Args:
        coordinator_address: ``host:port`` of process 0, reachable by all processes.
        num_processes: Number of processes.
        process_id: Index of this process, from 0.
        heartbeat_seconds: Time without a sign of life after which a process counts as stopped.
        stall_seconds: Time without work after which a process counts as stuck, at least that of
            three heartbeats, of which there are ten in ``heartbeat_seconds``, or one each 3 s; 0
            for never.
        start_seconds: Time to wait for all processes to start.
        **options: Other arguments of ``jax.distributed.initialize``.

    Raises:
        InputError: An argument is missing and cannot be detected; processes did not start within
            ``start_seconds``; or versions or source files differ between the processes. The
            message names the processes.

    Examples:
        >>> from jaxcurate.runtime import initialize
        >>> initialize("10.0.0.1:4000", 2, 0)  # doctest: +SKIP
    """
    global _monitor
    for name, value, least in (
        ("heartbeat_seconds", heartbeat_seconds, 1),
        ("stall_seconds", stall_seconds, 0),
        ("start_seconds", start_seconds, 1),
    ):
        if not value >= least:
            raise InputError(f"{name}={value} must be at least {least}")
    place = _detected(coordinator_address, num_processes, process_id, start_seconds, options)
    if place.n == 1:
        with _own_sigterm(signal.SIG_DFL):
            jax.distributed.initialize(place.address, 1, 0, place.local_ids, **options)
        return
    party = meet(
        place.address,
        place.n,
        place.process,
        code_facts(),
        start_seconds,
        options.get("coordinator_bind_address") or os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"),
    )
    _monitor = Monitor(party, heartbeat_seconds, stall_seconds)
    address = relayed(*split_address(place.address)) if place.process else place.address
    late = threading.Timer(
        start_seconds,
        _monitor.end,
        [f"jax.distributed.initialize of {party.me} did not come back in {start_seconds:g} s"],
    )
    late.daemon = True
    sys.excepthook = functools.partial(_end_with_others, sys.excepthook)
    atexit.register(_leave)
    _monitor.start(_signals())
    late.start()
    seconds: dict[str, Any] = {
        "initialization_timeout": int(_SLOWER * start_seconds),
        "heartbeat_timeout_seconds": int(_SLOWER * heartbeat_seconds),
    }
    try:
        with _own_sigterm(_monitor.on_sigterm):
            jax.distributed.initialize(
                address, place.n, place.process, place.local_ids, **(seconds | options)
            )
    finally:
        late.cancel()
    steps.begin("initialize")


def agree(call: str, devices: Devices, **facts: Any) -> None:
    """Refuses, in all processes, a call whose arguments differ between processes.

    With one process this does nothing. The facts are exchanged through the key-value store of the
    coordinator, not through devices. They are small: of an array, its type, shape and a few rows.

    Args:
        call: Name of the called function.
        devices: Devices whose processes take part; all of these have to call.
        **facts: Arguments and settings to compare.

    Raises:
        InputError: A fact differs; the message gives its values in the processes.

    Examples:
        >>> import jaxcurate as jc
        >>> from jaxcurate.runtime.processes import agree
        >>> agree("kmeans", jc.Devices.first(1), n_clusters=10)
    """
    if not devices.span_processes:
        return
    steps.begin(call)
    descriptions = {name: described(value) for name, value in facts.items()}
    descriptions |= {"devices": described(devices)}
    agreement.compare(call, descriptions, list(devices.owners))


def fail(reason: str) -> None:
    """Reports to the other processes that this process ends, and why, so that they end too.

    An error that nobody catches does so by itself. A program that catches one and then exits calls
    this first. Within one process, and on a second call, this does nothing.

    Args:
        reason: Text to report after the name of the process, such as
            ``"failed: OSError: disk full"``.
    """
    if _monitor is not None:
        _monitor.fail(reason)


def end_all(reason: str, code: int) -> None:
    """Reports that this process ends, and leaves the run. Within one process this does nothing.

    Args:
        reason: Text to report after the name of the process.
        code: Exit code of this process.

    Examples:
        >>> from jaxcurate.runtime.processes import end_all
        >>> end_all("ended: no space left on the device", 2)
    """
    if _monitor is not None:
        fail(reason)
        give_up(code)


def give_up(code: int = 1) -> None:
    """Leaves a failed run, in order if all processes do so, otherwise by ending at once.

    Args:
        code: Exit code of this process if it ends at once.
    """
    # Processes that raise the same error part in order. If the first to raise it just ended, the
    # others would be ended too before they could tell.
    together = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    together.start()
    together.join(_PARTING_SECONDS)
    if together.is_alive():
        end_now(None, code)


class _Place(NamedTuple):
    """Place of this process among the processes of the run."""

    address: str
    n: int
    process: int
    local_ids: Any


def _detected(
    address: str | None,
    n: int | None,
    process: int | None,
    seconds: float,
    options: dict[str, Any],
) -> _Place:
    """Returns the arguments, with missing ones replaced by values that jax detects."""
    address = address or os.environ.get("JAX_COORDINATOR_ADDRESS")
    local_ids, method = options.pop("local_device_ids", None), None
    if None in (address, n, process):
        method = options.get("cluster_detection_method")
        if method != "deactivate":
            address, n, process, local_ids = (
                clusters.ClusterEnv.auto_detect_unset_distributed_params(
                    address, n, process, local_ids, method, int(seconds)
                )
            )
    given = {"coordinator_address": address, "num_processes": n, "process_id": process}
    missing = [name for name, value in given.items() if value is None]
    if address is None or n is None or process is None:
        raise InputError(
            f"cannot join the other processes: {', '.join(missing)} not given. Outside of a "
            "cluster that jax knows, give coordinator_address, num_processes and process_id"
        )
    if not 0 <= process < n:
        raise InputError(f"process_id={process} is not within [0, {n}), num_processes={n}")
    return _Place(address, n, process, local_ids)


def _signals() -> int | None:
    """Returns a descriptor that gets the signals even while the main thread is within C++."""
    if threading.current_thread() is not threading.main_thread():
        return None
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if before == -1:
        return read
    signal.set_wakeup_fd(before)  # of an event loop, which goes on to need it
    return None


@contextmanager
def _own_sigterm(otherwise: Any) -> Iterator[None]:
    """Keeps the handler of SIGTERM; jax takes the signal as a notice of preemption, and goes on."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and before is not None:
        signal.signal(signal.SIGTERM, otherwise if before == signal.SIG_DFL else before)


def _end_with_others(
    tell: Callable[..., Any],
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Ends on an error that nobody caught without waiting for processes that know nothing of it.

    By default jax waits minutes at the exit for the others, which wait for this one.
    """
    assert _monitor is not None
    text = " ".join(str(error).split())
    if re.match(_STATUS, text):
        # The connection to a process that died may break before the monitor knows of the death,
        # and then ends this process with the line that counts.
        end = time.monotonic() + _VERDICT_SECONDS
        while time.monotonic() < end and _monitor.line is None:
            time.sleep(0.05)
        if _monitor.line is not None:
            end_now(_monitor.line)
    if issubclass(kind, KeyboardInterrupt):
        _monitor.signal = signal.SIGINT
        _monitor.end_on_signal()
    fail(f"failed: {kind.__name__}: {text}" if text else f"failed: {kind.__name__}")
    tell(kind, error, trace)
    print("jaxcurate: this process ends on the error above", file=sys.stderr, flush=True)
    give_up()


def _leave() -> None:
    """Parts from the others at the exit."""
    assert _monitor is not None
    if _monitor.signal is not None:
        _monitor.end_on_signal()
    _monitor.leave()
