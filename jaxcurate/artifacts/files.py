"""Single files: written so that they are on the disk, arrays without pickles, digests."""

import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

import numpy as np
from etils import epath

from jaxcurate.artifacts import temporary
from jaxcurate.artifacts.local import is_local, told
from jaxcurate.artifacts.lock import check_held
from jaxcurate.checks import InputError

_BLOCK_BYTES = 2**24
_IN_TURN = 64
"""Files that are synchronized one by one; beyond it the whole file system is."""


class DamagedError(InputError):
    """Tells which file is missing, truncated or altered."""


class NewFile(io.RawIOBase):
    """A new file that is hashed while it is written; errors name it and the bytes wanted.

    On a path that is not local the bytes are gathered in a temporary file and copied at the end.

    Args:
        path: where nothing stands yet.

    Raises:
        InputError: the file cannot be made, or, while it is written, the disk is full.
    """

    def __init__(self, path: epath.Path) -> None:
        super().__init__()
        self.path = path
        self.n_bytes = 0
        """Size of the file so far."""
        self._sha256: Any = hashlib.sha256()  # None once a part was written anew
        with told(path):
            local = is_local(path)
            # Closed by close(), with this object.
            file = open(path, "xb") if local else tempfile.TemporaryFile()  # noqa: SIM115
            self._file: IO[bytes] = file

    def write(self, data: Any) -> int:
        """Writes all of ``data``; returns its size in bytes."""
        data = memoryview(data).cast("B")
        with told(self.path, len(data)):
            begin = self._file.tell()
            self._file.write(data)
        if begin < self.n_bytes:
            self._sha256 = None
        elif self._sha256 is not None:
            self._sha256.update(data)
        self.n_bytes = max(self.n_bytes, begin + len(data))
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to another place, which must not be beyond the end."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Returns the place of the next byte."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def writable(self) -> bool:
        """Returns True."""
        return True

    def close(self) -> None:
        """Gives everything to the file system, which may still hold it in memory."""
        if self.closed:
            return
        try:
            with told(self.path, self.n_bytes), self._file:
                self._file.flush()
                if not is_local(self.path):
                    self._file.seek(0)
                    with self.path.open("wb") as file:
                        shutil.copyfileobj(self._file, file, _BLOCK_BYTES)
        finally:
            super().close()

    def sha256(self) -> str:
        """Returns the SHA-256 of what was written, in hexadecimal, once the file is closed."""
        return sha256(self.path) if self._sha256 is None else self._sha256.hexdigest()


def write_text(
    path: epath.PathLike, text: str, is_ours: Callable[[str], bool] | None = None
) -> None:
    """Writes one file so that it appears whole or not at all, also after a power cut.

    Args:
        path: the file.
        text: its content.
        is_ours: tells from a text whether it may be replaced.

    Raises:
        InputError: another file stands there, the disk is full, or the lock of the work directory
            was lost.
    """
    path = epath.Path(path)
    if is_ours is not None:
        check_text(path, is_ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.beside(path) as folder:
        with NewFile(folder / path.name) as file:
            file.write(text.encode())
        sync([folder / path.name], [])
        check_held(path)
        (folder / path.name).replace(path)
    sync([], [path.parent])


def check_text(path: epath.Path, is_ours: Callable[[str], bool]) -> None:
    """Refuses to replace a file that jaxcurate did not write.

    Raises:
        InputError: a folder, a link or another file stands at ``path``.
    """
    if is_local(path) and os.path.islink(path):
        raise InputError(f"{path} is a link, which is never replaced: {MOVE_AWAY}")
    if path.is_dir():
        raise InputError(f"{path} is a folder in the place of a file: {MOVE_AWAY}")
    if is_local(path) and path.exists() and not os.path.isfile(path):
        raise InputError(f"{path} is not a regular file: {MOVE_AWAY}")
    if path.exists():
        try:
            ours = is_ours(path.read_text())
        except UnicodeDecodeError:
            ours = False
        if not ours:
            raise InputError(f"{path} was not written by jaxcurate: {MOVE_AWAY}")


MOVE_AWAY = "move it away, or choose another work directory"
"""Tells what to do about something that would have to be replaced."""


def sync(files: list[epath.Path], folders: list[epath.Path]) -> None:
    """Waits until files, and the names in folders, would outlast a power cut.

    Where there are many files, the file systems are synchronized as a whole, which takes the time
    of what they hold instead of a wait for each file.
    """
    paths = [path for path in (*files, *folders) if is_local(path)]
    if len(paths) > _IN_TURN:
        os.sync()
        return
    for path in paths:
        with told(path):
            number = os.open(path, os.O_RDONLY)
            try:
                os.fsync(number)
            except OSError as error:
                # Some network file systems keep names on the server and refuse this for folders.
                if path in files or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                    raise
            finally:
                os.close(number)


def allocate(path: epath.Path, n_bytes: int) -> None:
    """Makes a local file of zeros that has all its room on the disk.

    A file that is sparse ends the process by SIGBUS when the disk fills while it is written
    through a memory map. (macOS has no such call: the file is sparse there.)

    Raises:
        InputError: the disk has less room.
    """
    with told(path, n_bytes), open(path, "xb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:
            file.truncate(n_bytes)


def save_array(file: IO[bytes] | io.RawIOBase, array: np.ndarray) -> None:
    """Writes an array as ``.npy``, never as a pickle."""
    np.save(file, array, allow_pickle=False)  # type: ignore[arg-type]


def load_array(path: epath.Path, *, mmap: bool = False) -> np.ndarray:
    """Reads a ``.npy`` file, never a pickle.

    Args:
        path: the file.
        mmap: read lazily; a file that is not local from a temporary copy.

    Raises:
        DamagedError: the file is not a whole ``.npy`` file.
    """
    try:
        if mmap and is_local(path):
            return np.load(os.fspath(path), mmap_mode="r", allow_pickle=False)
        with path.open("rb") as file:
            if not mmap:
                return np.load(file, allow_pickle=False)
            with tempfile.NamedTemporaryFile() as copy:  # the map outlives its name
                shutil.copyfileobj(file, copy, _BLOCK_BYTES)
                copy.flush()
                return np.load(copy.name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DamagedError(f"{path} is damaged ({error})") from error


def sha256(path: epath.Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        readable = cast(io.BufferedReader, file)  # etils types it more widely
        return hashlib.file_digest(readable, "sha256").hexdigest()


class ArrayDigest:
    """The SHA-256 of an array that comes block by block: of its contents, then type and shape.

    In this order, since how many rows there are may be known at the end only.
    """

    def __init__(self) -> None:
        self._sha256, self._n, self._rows = hashlib.sha256(), 0, ("", ())

    def update(self, rows: np.ndarray) -> None:
        """Takes further rows ``[b, ...]``, of the type and shape of those before."""
        self._sha256.update(np.ascontiguousarray(rows).view(np.uint8).data)
        self._n += len(rows)
        self._rows = rows.dtype.str, rows.shape[1:]

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._n

    def hexdigest(self) -> str:
        """Returns the digest of all rows so far."""
        dtype, shape = self._rows
        whole = self._sha256.copy()
        whole.update(f"{dtype}{(self._n, *shape)}".encode())
        return whole.hexdigest()


def array_digest(array: np.ndarray) -> str:
    """Returns the SHA-256 of an array's contents, type and shape, in hexadecimal."""
    digest = ArrayDigest()
    for part in blocks(array):
        digest.update(array[part])
    return digest.hexdigest()


def blocks(array: np.ndarray) -> Iterator[slice]:
    """Yields slices of some megabytes of rows: at least one, be it of nothing."""
    rows = max(1, _BLOCK_BYTES * len(array) // max(1, array.nbytes))
    for begin in range(0, max(1, len(array)), rows):
        yield slice(begin, begin + rows)


def fingerprint(value: Any) -> str:
    """Returns sixteen hexadecimal digits that change when the JSON form of ``value`` does."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
