"""Anonymous memory of a running process: pages that the system cannot take back. Linux only."""

from pathlib import Path


def anonymous_bytes(pid: int) -> int:
    """Returns the anonymous memory of a process in bytes; 0 if it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return 1024 * int(line.split()[1])  # "kB" are 1024 bytes there
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
