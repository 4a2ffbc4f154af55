"""Exchange of two folders such that both names exist at every moment."""

import ctypes
import errno
import os
import sys

from etils import epath

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # of Linux's renameat2; macOS calls renamex_np's flag RENAME_SWAP, also 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)


def swap(fresh: epath.Path, path: epath.Path, aside: epath.Path) -> None:
    """Exchanges the folders ``fresh`` and ``path``.

    Some network file systems cannot exchange two names in one step. Then ``path`` is moved to
    ``aside`` and stays there, and ``fresh`` is moved to ``path``. If the process dies between the
    two moves, :func:`jaxcurate.artifacts.temporary.clean` moves ``aside`` back.

    Args:
        fresh: a folder.
        path: a folder on the same file system.
        aside: a free name on the same file system.

    Raises:
        OSError: neither way works. Both folders are then as before.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     fresh, path = epath.Path(work) / "fresh", epath.Path(work) / "path"
        ...     (fresh / "new").mkdir(parents=True)
        ...     path.mkdir()
        ...     swap(fresh, path, epath.Path(work) / "aside")
        ...     [entry.name for entry in path.iterdir()]
        ['new']
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


def exchange(first: str, second: str) -> None:
    """Exchanges two files or folders of one file system in one step.

    Raises:
        OSError: with ENOSYS if the system has no such call.
    """
    names = os.fsencode(first), os.fsencode(second)
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        call, arguments = "renamex_np", (*names, _RENAME_EXCHANGE)
    else:
        call = "renameat2"
        arguments = (_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    if "://" in first or not hasattr(libc, call):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), first)
    if getattr(libc, call)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), first, None, second)
