"""Names the process that something on disk belongs to, and tells whether it still runs."""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Owner(NamedTuple):
    """A process, told apart from every other one on any machine."""

    host: str
    """Name of the machine."""
    boot: str
    """Identifier of the machine's present start; "" where the system tells none."""
    namespace: str
    """Namespace of process numbers, which differs between containers; "" where there is none."""
    pid: int
    started: str
    """Start time in the system's own unit; "" where the system tells none."""
    command: str
    """First words of the command line, for people."""

    @classmethod
    def current(cls) -> "Owner":
        """Returns the process that calls."""
        pid = os.getpid()
        command = " ".join([os.path.basename(sys.argv[0] or "python"), *sys.argv[1:2]])
        return cls(platform.node(), _boot(), _namespace(), pid, _started(pid) or "", command)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Owner":
        """Returns the process that :meth:`_asdict` described.

        Raises:
            KeyError: a field is missing.
            TypeError: ``plain`` is no mapping, or a field is of another type.
        """
        owner = cls(*(plain[name] for name in cls._fields))
        if not isinstance(owner.pid, int):
            raise TypeError(f"pid={owner.pid!r}")
        return owner

    @property
    def machine(self) -> tuple[str, str, str]:
        """Everything that two processes share when each can see the other."""
        return self.host, self.boot, self.namespace

    def is_running(self) -> bool | None:
        """Tells whether the process still runs; None where this machine cannot know."""
        here = Owner.current()
        if self.machine != here.machine:
            restarted = self.host == here.host and "" not in (self.boot, here.boot)
            return False if restarted and self.boot != here.boot else None
        if _has_proc():
            return self.started == _started(self.pid)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.command})"


def _has_proc() -> bool:
    return Path("/proc/self/stat").exists()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Returns the start time of a process in clock ticks; None where it is gone, zombies
    included."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The command's name, in parentheses, may hold anything, parentheses and blanks included.
    state, *fields = status.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]
