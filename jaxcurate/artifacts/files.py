"""Single files: durable writing, arrays without pickles, and digests."""

import errno
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

import numpy as np
from etils import epath

from jaxcurate.artifacts import temporary
from jaxcurate.artifacts.local import is_local, write_errors
from jaxcurate.artifacts.lock import check_held
from jaxcurate.checks import InputError
from jaxcurate.runtime.devices import RowsLike

_BLOCK_BYTES = 2**24
_IN_TURN = 64
"""Largest number of files that are synchronized one by one, not with their whole file system."""


class DamagedError(InputError):
    """Error that names a file that is missing, truncated or altered."""


class NewFile(io.RawIOBase):
    """New file that is hashed while it is written, with errors that name it and its size.

    If the path is not local, the bytes are gathered in a temporary file and copied at the end.

    Args:
        path: path that does not exist yet.

    Raises:
        InputError: the file cannot be made, or the disk becomes full while it is written.
    """

    def __init__(self, path: epath.Path) -> None:
        super().__init__()
        self.path = path
        self.n_bytes = 0
        """Size of the file so far."""
        self._sha256: Any = hashlib.sha256()  # None once a part is overwritten
        with write_errors(path):
            local = is_local(path)
            # Closed by close(), with this object.
            file = open(path, "xb") if local else tempfile.TemporaryFile()  # noqa: SIM115
            self._file: IO[bytes] = file

    def write(self, data: Any) -> int:
        """Writes all of ``data`` and returns its size in bytes."""
        data = memoryview(data).cast("B")
        with write_errors(self.path, len(data)):
            begin = self._file.tell()
            self._file.write(data)
        if begin < self.n_bytes:
            self._sha256 = None
        elif self._sha256 is not None:
            self._sha256.update(data)
        self.n_bytes = max(self.n_bytes, begin + len(data))
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to another position, which must not be beyond the end, and returns it."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Returns the position of the next byte."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def writable(self) -> bool:
        """Returns True."""
        return True

    def close(self) -> None:
        """Passes all bytes to the file system, which may still have them in memory."""
        if self.closed:
            return
        try:
            with write_errors(self.path, self.n_bytes), self._file:
                self._file.flush()
                if not is_local(self.path):
                    self._file.seek(0)
                    with self.path.open("wb") as file:
                        shutil.copyfileobj(self._file, file, _BLOCK_BYTES)
        finally:
            super().close()

    def sha256(self) -> str:
        """Returns the SHA-256 of the closed file, in hexadecimal."""
        return sha256(self.path) if self._sha256 is None else self._sha256.hexdigest()


def write_text(
    path: epath.PathLike, text: str, is_ours: Callable[[str], bool] | None = None
) -> None:
    """Writes a file such that it appears whole or not at all, even after a power failure.

    Args:
        path: path of the file.
        text: content of the file.
        is_ours: returns whether a file with a given text may be replaced.

    Raises:
        InputError: the path holds another file, the disk is full, or the lock of the work
            directory was lost.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     write_text(f"{work}/config.json", "{}")
        ...     (epath.Path(work) / "config.json").read_text()
        '{}'
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

    Args:
        path: path of the file.
        is_ours: returns whether a file with a given text may be replaced.

    Raises:
        InputError: the path holds a folder, a link or another file.

    Examples:
        >>> check_text(epath.Path("/"), lambda text: True)
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: / is a folder in the place of a file: move it away, or choose \
another work directory
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
"""Advice in errors about a file or folder that must not be replaced."""


def sync(files: list[epath.Path], folders: list[epath.Path]) -> None:
    """Waits until files, and the names in folders, would survive a power failure.

    With many files, whole file systems are synchronized instead, in a single wait.
    """
    paths = [path for path in (*files, *folders) if is_local(path)]
    if len(paths) > _IN_TURN:
        os.sync()
        return
    for path in paths:
        with write_errors(path):
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
    """Makes a local file of zeros with all of its space reserved on the disk.

    If a disk becomes full while a sparse file is written through a memory map, SIGBUS kills the
    process. (macOS cannot reserve space: there the file is sparse.)

    Raises:
        InputError: the disk has too little space.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     allocate(epath.Path(work) / "rows", 4096)
        ...     os.path.getsize(f"{work}/rows")
        4096
    """
    with write_errors(path, n_bytes), open(path, "xb") as file:
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
        path: path of the file.
        mmap: open the file as a memory map. A file that is not local is copied first.

    Raises:
        DamagedError: the file is no complete ``.npy`` file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     path = epath.Path(work) / "a.npy"
        ...     with NewFile(path) as file:
        ...         save_array(file, np.arange(3))
        ...     load_array(path)
        array([0, 1, 2])
    """
    try:
        if mmap and is_local(path):
            return np.load(os.fspath(path), mmap_mode="r", allow_pickle=False)
        with path.open("rb") as file:
            if not mmap:
                return np.load(file, allow_pickle=False)
            with tempfile.NamedTemporaryFile() as copy:  # the map stays valid without the name
                shutil.copyfileobj(file, copy, _BLOCK_BYTES)
                copy.flush()
                return np.load(copy.name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DamagedError(f"{path} is damaged ({error})") from error


def sha256(path: epath.Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     (epath.Path(work) / "a.txt").write_text("a")
        ...     sha256(epath.Path(work) / "a.txt")[:16]
        1
        'ca978112ca1bbdca'
    """
    with path.open("rb") as file:
        readable = cast(io.BufferedReader, file)  # etils types it more widely
        return hashlib.file_digest(readable, "sha256").hexdigest()


class ArrayDigest:
    """SHA-256 of an array that is given block by block: of its contents, then type and shape.

    The contents come first, because the number of rows may be known at the end only.
    """

    def __init__(self) -> None:
        self._sha256, self._n, self._rows = hashlib.sha256(), 0, ("", ())

    def update(self, rows: np.ndarray) -> None:
        """Adds rows ``[b, ...]`` of the same type and shape as the rows before."""
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
    """Returns the SHA-256 of an array's contents, type and shape, in hexadecimal.

    Examples:
        >>> a = np.arange(3)
        >>> array_digest(a) == array_digest(a.copy()), array_digest(a) == array_digest(a * 1.0)
        (True, False)
    """
    digest = ArrayDigest()
    for block in blocks(array):
        digest.update(array[block])
    return digest.hexdigest()


def blocks(array: RowsLike) -> Iterator[slice]:
    """Yields slices of some megabytes of rows, and at least one slice, possibly empty.

    Examples:
        >>> list(blocks(np.zeros((2**22, 4), np.float32)))[:2]
        [slice(0, 1048576, None), slice(1048576, 2097152, None)]
    """
    n_bytes = math.prod(array.shape) * array.dtype.itemsize
    rows = max(1, _BLOCK_BYTES * len(array) // max(1, n_bytes))
    for begin in range(0, max(1, len(array)), rows):
        yield slice(begin, begin + rows)


def fingerprint(value: Any) -> str:
    """Returns a fingerprint of a value, sixteen hexadecimal digits of the hash of its JSON form.

    Examples:
        >>> fingerprint({"k": 10, "seed": 0}) == fingerprint({"seed": 0, "k": 10})
        True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
