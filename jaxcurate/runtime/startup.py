"""Start of a command: its process joins the others of the run, and finds its devices."""

import contextlib
import os
import socket
import warnings
from dataclasses import dataclass
from typing import Any, cast

import jax
from jax._src import clusters  # jax tells in no public way whether it knows the cluster

from jaxcurate.checks import InputError
from jaxcurate.runtime import messages, processes

_MOST_CPU_DEVICES = 1024
"""Largest number of CPU devices that are made. Making ten thousand would take half a minute, and
a request for more devices than exist is refused later."""
_MOST_CORES = 8
"""Largest number of cores of which each gets a CPU device by default."""

_FLAGS = {
    "coordinator_address": "coordinator",
    "num_processes": "n_processes",
    "process_id": "process_id",
}
"""Flags by the names of the arguments of jax, which messages give."""


@dataclass(frozen=True)
class Launch:
    """Place of this process in the run, as far as it was given, and times to wait for others."""

    coordinator: str | None = None
    """``host:port`` of process 0. None to detect it."""
    n_processes: int | None = None
    """Number of processes. None to detect it; 1 joins no others, whatever the cluster is."""
    process_id: int | None = None
    """Index of this process, from 0. None to detect it."""
    start_seconds: float = processes.START_SECONDS
    """Time to wait for all processes to start."""
    heartbeat_seconds: float = processes.HEARTBEAT_SECONDS
    """Time without a sign of life after which a process counts as stopped."""
    stall_seconds: float = processes.STALL_SECONDS
    """Time without work after which a process counts as stuck, at least that of three heartbeats; 0
    for never."""

    @property
    def is_alone(self) -> bool:
        """True if this process joins no others: it is told so, or nothing tells of others."""
        if self.n_processes == 1:
            return True
        return self.n_processes is self.coordinator is self.process_id is None and not _detected()


def join(launch: Launch) -> None:
    """Joins this process with the others of the run, if there are others.

    Args:
        launch: Place of this process in the run.

    Raises:
        InputError: The place of this process is not known, or other processes did not start.

    Examples:
        >>> from jaxcurate.runtime.startup import Launch, join
        >>> join(Launch(n_processes=1))
    """
    if launch.is_alone:
        return
    try:
        processes.initialize(
            launch.coordinator,
            launch.n_processes,
            launch.process_id,
            heartbeat_seconds=launch.heartbeat_seconds,
            stall_seconds=launch.stall_seconds,
            start_seconds=launch.start_seconds,
        )
    except InputError as error:
        message = str(error)
        for argument, flag in _FLAGS.items():
            message = message.replace(argument, f"--{flag}")
        raise InputError(message) from error
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"the other processes cannot be joined: {reason} (--n_processes=1 runs this one alone)"
        ) from error


def set_up_devices(n_devices: int | None, platform: str | None) -> None:
    """Sets up the devices that the settings ask for.

    On a CPU it makes a device of each core, so that runs of the comparison do not share a core.

    Args:
        n_devices: Number of devices of all processes together. None for all.
        platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``, or None for any.

    Raises:
        InputError: A device that the settings or ``JAX_PLATFORMS`` ask for does not exist.

    Examples:
        >>> from jaxcurate.runtime.startup import set_up_devices
        >>> set_up_devices(None, None)
    """
    if cast(Any, jax.config).jax_num_cpu_devices < 0:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        n = min(cores or 1, _MOST_CORES) if n_devices is None else -(-n_devices // messages.count())
        # If jax has run already, as in a notebook, its devices can no longer change.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", min(n, _MOST_CPU_DEVICES))
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    asked = cast(Any, jax.config).jax_platforms
    try:
        backend = jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # AssertionError without the plugin of CUDA
        reason = (str(error).splitlines() or ["no such device or no plugin for it"])[0]
        raise InputError(
            f"JAX_PLATFORMS asks for {asked!r}, which does not exist here: {reason}"
        ) from error
    if platform and backend != platform:
        raise InputError(f"config.platform asks for {platform!r}, but jax runs on {backend!r}")


def found() -> str:
    """Returns a line on process, devices and memory, the first of a command.

    Examples:
        >>> from jaxcurate.runtime.startup import found
        >>> "host memory" in found()
        True
    """
    devices, n = jax.local_devices(), jax.process_count()
    n_bytes = (devices[0].memory_stats() or {}).get("bytes_limit")
    n_host_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory = f"{n_bytes / 1e9:.1f} GB each, " if n_bytes else ""
    kind = f"{jax.default_backend().upper()} ({devices[0].device_kind})"
    place = f"process {jax.process_index()} of {n} on {socket.gethostname()}: " if n > 1 else ""
    of_all = f" of {jax.device_count()}" if n > 1 else ""
    about = f"{memory}{n_host_bytes / 1e9:.1f} GB of host memory"
    return f"{place}{len(devices)}{of_all} x {kind}, {about}"


def _detected() -> bool:
    """Returns whether jax knows the cluster in which this process runs."""
    known: list[Any] = clusters.ClusterEnv._cluster_types
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a pod without the client of Kubernetes, it is alone
        return any(not cluster.opt_in_only_method and cluster.is_env_present() for cluster in known)
