"""Counts a process's operations on files, and disturbs the one with a given number."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from jaxcurate.artifacts import exchange, files

Action = Literal["count", "kill", "tear", "stop", "full", "full once"]
"""``tear`` kills in the middle of a write; ``full`` stays so, ``full once`` is over at once."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_TAKES_SPACE = {"open", "mkdir", "write", "flush", "fsync", "pwrite", "allocate"}


class Plan(NamedTuple):
    """What happens at which operation; operations count from 0."""

    at: int
    action: Action


COUNT = Plan(-1, "count")
"""Disturbs nothing."""


class Operations:
    """The operations of this process below some folders, from :meth:`install` on.

    An operation is known by the interpreter's audit hook or, where there is none, by a function
    put in the place of the real one. Nothing can be uninstalled: the process is a child that ends
    soon.

    Args:
        folders: only operations below them count.
        plan: what to disturb.
    """

    def __init__(self, folders: Iterable[str], plan: Plan) -> None:
        self.done: list[str] = []
        """Kind and path of each operation."""
        self._folders = tuple(os.path.realpath(folder) + os.sep for folder in folders)
        self._plan = plan
        self._thread = threading.get_ident()
        self._is_full = False

    def install(self) -> None:
        """Begins to count."""
        sys.addaudithook(self._audit)
        os.fsync = self._before("fsync", os.fsync)
        os.pwrite = self._before("pwrite", os.pwrite)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate = self._before("allocate", os.posix_fallocate)
        exchanged = exchange.exchange

        def exchange_(one: str, other: str) -> None:
            self.happens("exchange", one)
            exchanged(one, other)

        exchange.exchange = exchange_
        opened = files.NewFile.__init__
        operations = self

        def init(self: files.NewFile, path: Any, *arguments: Any) -> None:
            opened(self, path, *arguments)
            self._file = _Disturbed(self._file, os.fspath(path), operations)  # type: ignore

        files.NewFile.__init__ = init  # type: ignore[method-assign]

    def happens(self, kind: str, path: str, tear: Callable[[], object] | None = None) -> None:
        """Counts an operation that is about to begin, and disturbs it where it is its turn."""
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if threading.get_ident() != self._thread or not (path + os.sep).startswith(self._folders):
            return
        self.done.append(f"{kind} {path}")
        mine = len(self.done) - 1 == self._plan.at
        if self._is_full and kind in _TAKES_SPACE - {"fsync"}:
            raise _full(kind, path)
        if not mine:
            return
        match self._plan.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "tear":
                if tear is not None:
                    tear()
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "full" | "full once" if kind in _TAKES_SPACE:
                self._is_full = self._plan.action == "full"
                if tear is not None:
                    tear()
                raise _full(kind, path)

    def _audit(self, event: str, arguments: tuple) -> None:
        kind = event.removeprefix("os.")
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not flags & _WRITING:
                return
            path = os.path.abspath(os.fsdecode(path))
            self.happens("reopen" if os.path.lexists(path) else "open", path)
        elif kind in ("rename", "mkdir", "remove", "rmdir", "truncate"):
            path = arguments[0]
            if isinstance(path, int):
                self.happens(kind, _path_of(path))
                return
            folder = arguments[-1] if kind in ("remove", "rmdir", "mkdir") else -1
            base = _path_of(folder) if folder not in (-1, None) else os.getcwd()
            path = os.path.join(base, os.fsdecode(path))
            if kind != "mkdir" or not os.path.lexists(path):  # it may be made once more
                self.happens(kind, path)

    def _before(self, kind: str, function: Callable) -> Callable:
        """A function of a file's number, counted before it is called."""

        def counted(number: int, *arguments: Any) -> Any:
            self.happens(kind, _path_of(number))
            return function(number, *arguments)

        return counted


class _Disturbed:
    """An open file whose writes are counted, and torn in the middle where they are disturbed."""

    def __init__(self, file: Any, path: str, operations: Operations) -> None:
        self._file, self._path, self._operations = file, path, operations

    def write(self, data: Any) -> int:
        data = memoryview(data)

        def tear() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._operations.happens("write", self._path, tear)
        return self._file.write(data)

    def flush(self) -> None:
        self._operations.happens("flush", self._path)
        self._file.flush()

    def __enter__(self) -> "_Disturbed":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _path_of(number: int) -> str:
    return os.readlink(f"/proc/self/fd/{number}")


def _full(kind: str, path: str) -> OSError:
    """The error of a full disk; the system tells the path for names only."""
    named = (path,) if kind in ("open", "mkdir") else ()
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *named)
