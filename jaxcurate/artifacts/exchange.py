"""Exchanges two folders so that at no moment either name stands for nothing."""

import ctypes
import errno
import os
import sys

from etils import epath

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # of Linux's renameat2; macOS calls renamex_np's flag RENAME_SWAP, also 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)


def swap(fresh: epath.Path, path: epath.Path, aside: epath.Path) -> None:
    """Puts ``fresh`` in the place of ``path``; what stood there is then at ``fresh``.

    Where the system cannot exchange two names at once (some network file systems), ``path`` is
    moved to ``aside`` first, from where :func:`jaxcurate.artifacts.temporary.clean` puts it back
    when the process dies before the second move; it then stays at ``aside``.

    Args:
        fresh: a folder.
        path: a folder on the same file system.
        aside: a free name on the same file system.

    Raises:
        OSError: neither way works; both are as they were.
    """
    try:
        exchange(os.fspath(fresh), os.fspath(path))
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        path.rename(aside)
        try:
            fresh.rename(path)
        except BaseException:
            aside.rename(path)
            raise


def exchange(one: str, other: str) -> None:
    """Exchanges what two names of one file system stand for, in one step.

    Raises:
        OSError: with ENOSYS where the system has no such call.
    """
    first, second = os.fsencode(one), os.fsencode(other)
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        call, arguments = "renamex_np", (first, second, _RENAME_EXCHANGE)
    else:
        call = "renameat2"
        arguments = (_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE)
    if "://" in one or not hasattr(libc, call):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), one)
    if getattr(libc, call)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), one, None, other)
