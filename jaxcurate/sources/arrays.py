"""Source of the rows of an array on disk, such as embeddings that were made elsewhere."""

import functools
import hashlib
import os
import warnings
import zipfile
from collections.abc import Sequence
from typing import cast

import numpy as np

from jaxcurate.artifacts.pool import NARROW, row_ids
from jaxcurate.checks import InputError, as_real
from jaxcurate.sources import files, signatures
from jaxcurate.sources.base import Annotations, Item, Kind, Options, Source, local_path

_BLOCK_BYTES = 1 << 24


class ArraySource:
    """Source of the rows of a 2-D ``.npy`` file of real numbers, which are read when needed.

    The id of an item is the number of its row.

    Args:
        path: path of the file.

    Attributes:
        array: content of the file, a memory map ``[n, d]`` of the dtype of the file.

    Raises:
        InputError: the file cannot be used; the message names the file and the reason.

    Examples:
        >>> import tempfile
        >>> from jaxcurate.sources import ArraySource
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/x.npy", np.eye(3))
        ...     source = ArraySource(f"{folder}/x.npy")
        ...     len(source), source.read(1).content
        (3, array([0., 1., 0.], dtype=float32))
    """

    kind: Kind = "vector"

    def __init__(self, path: str | os.PathLike) -> None:
        self._path = os.fspath(path)
        array = _mapped(self._path)
        if array.ndim != 2 or 0 in array.shape:
            raise InputError(f"{path} must be [n, d] with n, d > 0, not {list(array.shape)}")
        n_bytes = os.path.getsize(path)
        if n_bytes != array.offset + array.nbytes:
            raise InputError(
                f"{path} is not a whole .npy file of numbers: its array "
                f"ends after {array.offset + array.nbytes} of {n_bytes} bytes"
            )
        self.array = as_real(array, self._path)

    @property
    def name(self) -> str:
        return f"npy:{self._path}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content, type and shape."""
        digest = hashlib.sha256(f"{self.array.dtype.str}{self.array.shape}".encode())
        step = max(1, _BLOCK_BYTES // (self.array.shape[1] * self.array.itemsize))
        for start in range(0, len(self.array), step):
            digest.update(
                np.ascontiguousarray(self.array[start : start + step]).view(np.uint8).data
            )
        return digest.hexdigest()

    @property
    def width(self) -> int:
        """Number of columns of the rows."""
        return self.array.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Type of the rows that are read."""
        return narrow(self.array.dtype)

    def __len__(self) -> int:
        return len(self.array)

    def read(self, row: int) -> Item:
        return Item(str(row), as_stored(self.array[row]))

    def read_block(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, n = int(rows[0]), len(rows)
        in_a_run = np.array_equal(rows, np.arange(first, first + n))
        block = self.array[first : first + n] if in_a_run else self.array[rows]
        return row_ids(rows), as_stored(block)

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        unknown = np.full(len(rows), "", np.str_)
        return Annotations(unknown, unknown)


def open_rows(path: str, options: Options) -> Source:
    """Opens ``npy:PATH``."""
    source = ArraySource(local_path(f"npy:{path}", path, options))
    return cast(Source, source)  # its fingerprint is a cached property


def narrow(dtype: np.dtype) -> np.dtype:
    """Returns the type in which rows of numbers are kept: their own if it is narrow, else float32.

    Examples:
        >>> narrow(np.dtype("float16")), narrow(np.dtype("float64"))
        (dtype('float16'), dtype('float32'))
    """
    return dtype if dtype.name in NARROW else np.dtype(np.float32)


def as_stored(rows: np.ndarray) -> np.ndarray:
    """Returns a copy of rows in the type in which they are kept.

    A number beyond float32 becomes infinite, so that readers skip it.

    Examples:
        >>> as_stored(np.array([1, 2], np.int64)).dtype
        dtype('float32')
    """
    with np.errstate(over="ignore"):
        return np.array(rows, narrow(rows.dtype))


def _mapped(path: str) -> np.memmap:
    """Returns a memory map of the array of a ``.npy`` file, without ever unpickling.

    Raises:
        InputError: the file is of another kind, which the message names.
    """
    files.check_regular(path)
    refused = f"{path} is not a whole .npy file of numbers"
    try:
        with open(path, "rb") as file:
            beginning = file.read(signatures.N_BYTES)
        if not beginning.startswith(np.lib.format.MAGIC_PREFIX):
            if zipfile.is_zipfile(path) and _holds_arrays(path):
                raise InputError(f"{path} is an archive of arrays; a single .npy file is needed")
            kind = signatures.file_kind(beginning) or "of another kind"
            raise InputError(f"{refused}: it is {kind}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the header is parsed as Python, which may warn
            return np.lib.format.open_memmap(path, mode="r")
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({files.reason(error)})") from error
    except Exception as error:  # a damaged header may raise nearly any type
        line = (str(error).splitlines() or [""])[0]
        # The message of NumPy for a long header advises to trust the file.
        reason = "its header cannot be read" if "securely" in line else line
        raise InputError(f"{refused} ({reason or type(error).__name__})") from error


def _holds_arrays(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
