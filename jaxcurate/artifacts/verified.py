"""Comparison of files with their checksums, once a process as long as a file stays the same."""

import os
import time
from typing import Any

from etils import epath

from jaxcurate.artifacts.files import DamagedError, sha256
from jaxcurate.artifacts.local import is_local
from jaxcurate.artifacts.new_folder import CARD, target_sha256

_SETTLED_NS = 2 * 10**9
"""Age of the last change of a file, in nanoseconds, from which on a later change has another time.
File systems round times, some to two seconds."""
_verified: set[tuple[int | str, ...]] = set()


def check_file(path: epath.Path, entry: dict[str, Any]) -> None:
    """Compares a file with its checksum, unless this process did and the file is the same since.

    A file is the same if its size, its number in the file system and the times of its last changes
    are. A large pool is thus not read once more by every stage of a run.

    Args:
        path: path of the file, or of a link.
        entry: entry of the file in the card of its folder.

    Raises:
        DamagedError: the file was altered; the message names it.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     path = epath.Path(work) / "a.txt"
        ...     path.write_text("a")
        ...     check_file(path, {"sha256": sha256(path)})
        1
    """
    if entry.get("link") and os.path.islink(path):
        if target_sha256(path) != entry["sha256"]:
            raise _damaged(path)
        return
    known = None
    if is_local(path):
        stat = os.stat(path)
        times = stat.st_mtime_ns, stat.st_ctime_ns
        known = (stat.st_dev, stat.st_ino, stat.st_size, *times, entry["sha256"])
        if known in _verified:
            return
        if time.time_ns() - max(times) < _SETTLED_NS:
            known = None
    if sha256(path) != entry["sha256"]:
        raise _damaged(path)
    if known is not None:
        _verified.add(known)


def _damaged(path: epath.Path) -> DamagedError:
    return DamagedError(f"{path} is damaged: its checksum is not {CARD}'s; remove the folder")
