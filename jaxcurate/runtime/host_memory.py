"""Working memory of a function that is called again and again on a CPU: kept from call to call.

On a CPU, XLA asks the C library for the working memory of each call, and frees it at its end. The C
library of most Linux systems, glibc, gives blocks of more than 32 MB back to the system, which has
to fill them with zeros for the next call, page by page: a quarter of the time of a training step.

References:
    mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html, for what is set here.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jax

_BLOCK: dict[str, Any] = {"xla_multiheap_size_constraint_per_heap": 2**24}
"""Option of XLA for working memory in blocks of 16 MB, or of one array where that is larger."""
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""Numbers of the parameters, as glibc's ``malloc.h`` has them."""
_HEAP = 2**26
"""Largest size in bytes of a heap of a thread. With as much to spare, none is given back."""
_USUAL = {
    _MMAP_MAX: 2**16,
    _MMAP_THRESHOLD: 2**25,  # glibc moves these two up to here of its own accord
    _TRIM_THRESHOLD: 2**26,
    _TOP_PAD: 2**17,
}


def compile_in_blocks(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles a function for a CPU so that its working memory can be kept; the results are equal.

    Such a function cannot be stored in JAX's cache of compiled code, and is compiled each time.

    Examples:
        >>> lowered = jax.jit(lambda x: x + 1).lower(1)
        >>> int(compile_in_blocks(lowered)(1))
        2
    """
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(cast(Any, jax.config), name)
    jax.config.update(name, float("inf"))  # JAX would warn that it cannot store the function
    try:
        return lowered.compile(_BLOCK)
    except jax.errors.JaxRuntimeError:  # a release of XLA without the option
        return lowered.compile()
    finally:
        jax.config.update(name, before)


@contextlib.contextmanager
def freed_memory_kept(n_bytes: int) -> Iterator[None]:
    """Keeps blocks of less than 64 MB that are freed while the body runs, for those who ask next.

    Each thread that computes comes to keep as much as a call needs. Most of it is given back at the
    end; tens of megabytes of a thread were seen to stay. Nothing is kept without glibc, or if it
    could be more than a quarter of the free memory.

    Args:
        n_bytes: working memory of a call on one device.

    Examples:
        >>> with freed_memory_kept(2**20):
        ...     pass
    """
    is_glibc = platform.libc_ver()[0] == "glibc"
    if not is_glibc or 4 * (os.cpu_count() or 1) * n_bytes > _free():
        yield
        return
    libc = ctypes.CDLL(None)
    for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _HEAP)):
        libc.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _USUAL.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def _free() -> int:
    """Returns the size of the host's free memory in bytes."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    facts = dict(line.split(":") for line in lines)
    return int(facts["MemAvailable"].split()[0]) * 1024
