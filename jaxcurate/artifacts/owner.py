"""Identity of the process that owns a file or folder, and a test whether it still runs."""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Owner(NamedTuple):
    """Identity of a process, distinct from every other process on any machine."""

    host: str
    """Name of the machine."""
    boot: str
    """Identifier of the machine's last boot. "" if the system has none."""
    namespace: str
    """Namespace of process numbers, which differs between containers. "" if there is none."""
    pid: int
    """Process number."""
    started: str
    """Start time of the process in the unit of the system. "" if it is unknown."""
    command: str
    """First words of the command line, for people."""

    @classmethod
    def current(cls) -> "Owner":
        """Returns the identity of the calling process."""
        pid = os.getpid()
        command = " ".join([os.path.basename(sys.argv[0] or "python"), *sys.argv[1:2]])
        return cls(platform.node(), _boot(), _namespace(), pid, _started(pid) or "", command)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Owner":
        """Returns the identity from the mapping that :meth:`_asdict` returned.

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
        """Host, boot and namespace, equal for two processes that can see each other."""
        return self.host, self.boot, self.namespace

    def is_running(self) -> bool | None:
        """Returns whether the process still runs, or None if this machine cannot know.

        Examples:
            >>> Owner.current().is_running()
            True
            >>> Owner.current()._replace(host="elsewhere").is_running() is None
            True
        """
        current = Owner.current()
        if self.machine != current.machine:
            restarted = self.host == current.host and "" not in (self.boot, current.boot)
            return False if restarted and self.boot != current.boot else None
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
    """Returns the start time of a process in clock ticks, or None if it has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name of the command, in parentheses, may itself contain parentheses and blanks.
    state, *fields = status.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]
