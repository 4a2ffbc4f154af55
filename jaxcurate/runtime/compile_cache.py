"""Keeps what XLA compiled on disk, so that a second run starts at once.

JAX's own persistent compilation cache does the work: its keys tell versions, devices and flags
apart, and an entry that cannot be read is compiled anew. Here it is given a private folder, kept
within a size, and rid of entries that a killed process or a full disk left cut short.
"""

import contextlib
import functools
import hashlib
import os
import platform
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import jax
from jax.experimental.compilation_cache import compilation_cache

VARIABLE = "JAXCURATE_COMPILE_CACHE"
"""Environment variable that names another folder; ``off`` turns the cache off."""
MOST_BYTES = 2**30
"""Size that the folder is cut back to, the entries that were written first going first."""
_ENTRIES = "*-cache"
_CHECKED = ".checked"
_STEP = 2**20


@functools.cache
def use_compile_cache() -> Path | None:
    """Lets JAX keep compiled code on disk, unless the user has chosen otherwise.

    A folder that the user gave to JAX (``JAX_COMPILATION_CACHE_DIR``) stays in use. A folder that
    other users can write to is not used, for JAX runs the code that it finds there.

    Only the first call in a process has an effect.

    Returns:
        The folder of the cache; None if the user's settings decide, or no folder can be used.

    Examples:
        >>> from jaxcurate.runtime import use_compile_cache
        >>> folder = use_compile_cache()
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "off" or cast(Any, jax.config).jax_compilation_cache_dir:
        return None
    try:
        folder = Path(chosen) if chosen else default_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder):
            return None
        tidy(folder)
    except (OSError, RuntimeError):  # no home, no room, no permission: only time is lost
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # where JAX has compiled before, it looks anew
    return folder


def default_folder() -> Path:
    """Returns the folder in the user's cache for this version of jaxlib and this processor."""
    above = os.environ.get("XDG_CACHE_HOME")
    above = Path(above) if above else Path.home() / ".cache"
    # A home directory may be shared by machines whose processors have other instructions.
    processor = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    return above / "jaxcurate" / f"xla-{metadata.version('jaxlib')}-{processor}"


def tidy(folder: Path, most_bytes: int = MOST_BYTES) -> None:
    """Removes damaged entries, and the oldest entries if the folder is too large.

    Entries are checked once, in the first run after they were written.

    Args:
        folder: the cache.
        most_bytes: its size in the end, at most.
    """
    stamp = folder / _CHECKED
    checked = stamp.stat().st_mtime_ns if stamp.exists() else 0
    entries = []
    for path in folder.glob(_ENTRIES):
        with contextlib.suppress(FileNotFoundError):  # another process tidies as well
            entries.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    entries.sort()
    now = max((written for written, _, _ in entries), default=0)
    total = sum(size for _, size, _ in entries)
    for written, size, path in entries:
        if total > most_bytes or (written > checked and not _is_whole(path)):
            path.unlink(missing_ok=True)
            total -= size
    if now > checked:
        stamp.touch()
        os.utime(stamp, ns=(now, now))


def _is_whole(path: Path) -> bool:
    """Returns whether an entry can be unpacked; an entry of another format is left to JAX."""
    try:
        with path.open("rb") as file:
            unpack, data = zlib.decompressobj(), file.read(_STEP)
            if data[:1] != b"x":  # not zlib's
                return True
            while data:
                unpack.decompress(data)
                data = file.read(_STEP)
            return unpack.eof
    except (FileNotFoundError, zlib.error):
        return False


def _is_private(folder: Path) -> bool:
    """Returns whether a folder belongs to this user, and nobody else can write to it."""
    status = folder.stat()
    return not hasattr(os, "getuid") or (
        status.st_uid == os.getuid() and not status.st_mode & 0o022
    )


def _processor() -> str:
    """Returns a text that identifies the instructions of this processor."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kinds = ("model name", "flags", "Features")
        return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))
    return f"{platform.machine()} {platform.processor()}"
