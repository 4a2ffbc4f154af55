"""Several processes of one run: how they come together, and how they end when one of them dies."""

import functools
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax

from jaxcurate.checks import InputError

_HEARTBEAT_SECONDS = 30
_PARTING_SECONDS = 10


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = _HEARTBEAT_SECONDS,
    **options: Any,
) -> None:
    """Joins this process with the others of the run; call it before anything uses a device.

    Cloud TPU, Slurm, Kubernetes and Open MPI need no arguments. Where a process dies, all others
    end with an exit code other than 0, ``heartbeat_seconds`` plus a few later at most. They print
    ``Terminating process because the JAX distributed service detected fatal errors. This most
    likely indicates that another task died``, or the error of the broken connection and then
    ``this process ends on the error above``.

    Args:
        coordinator_address: ``host:port`` of process 0, reachable by all.
        num_processes: how many there are.
        process_id: which one this is, from 0.
        heartbeat_seconds: a process not heard of for so long counts as dead.
        **options: others of ``jax.distributed.initialize``.

    Raises:
        ValueError: an argument is missing that the surroundings do not tell.
    """
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=heartbeat_seconds,
            **options,
        )
    except ValueError as error:
        raise InputError(
            f"cannot join the other processes: {error} Outside of a cluster that jax knows, give "
            "coordinator_address, num_processes and process_id"
        ) from error
    sys.excepthook = functools.partial(_end_with_others, sys.excepthook)


def _end_with_others(
    tell: Callable[..., Any],
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Ends on an error that nobody caught without waiting for processes that know nothing of it.

    By default jax waits minutes at the exit for the others, which wait for this one.
    """
    tell(kind, error, trace)
    print(
        "jaxcurate: this process ends on the error above. If it tells of a lost connection, "
        "another process ended first: see what that one printed.",
        file=sys.stderr,
        flush=True,
    )
    give_up()


def give_up() -> None:
    """Leaves a run that failed: in order if all processes do, or else ends this one at once."""
    # Processes that raise the same error part in order. If the first to raise it just ended, the
    # others would be ended too before they could tell.
    together = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    together.start()
    together.join(_PARTING_SECONDS)
    if together.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
