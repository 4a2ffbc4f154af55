"""The rows of an array on disk, embeddings made elsewhere, as a source."""

import functools
import hashlib
import os
import warnings
import zipfile
from collections.abc import Sequence
from typing import cast

import numpy as np

from jaxcurate.artifacts.pool import row_ids
from jaxcurate.checks import InputError, as_real
from jaxcurate.sources import files, signatures
from jaxcurate.sources.base import Annotations, Item, Options, Source, local_path

_BLOCK_BYTES = 1 << 24


class ArraySource:
    """Rows of a 2-D ``.npy`` file of real numbers, read as needed; an id is the row's number.

    Attributes:
        array: the file's content, a memory map ``[n, d]`` of the file's own dtype.

    Raises:
        InputError: naming the file and what is wrong with it.
    """

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
        """Of the content, block by block."""
        digest = hashlib.sha256(f"{self.array.dtype.str}{self.array.shape}".encode())
        step = max(1, _BLOCK_BYTES // (self.array.shape[1] * self.array.itemsize))
        for start in range(0, len(self.array), step):
            digest.update(
                np.ascontiguousarray(self.array[start : start + step]).view(np.uint8).data
            )
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.array)

    def read(self, row: int) -> Item:
        return Item(str(row), _as_float32(self.array[row]))

    def read_block(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, n = int(rows[0]), len(rows)
        in_a_run = np.array_equal(rows, np.arange(first, first + n))
        block = self.array[first : first + n] if in_a_run else self.array[rows]
        return row_ids(rows), _as_float32(block)

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        unknown = np.full(len(rows), "", np.str_)
        return Annotations(unknown, unknown)


def open_rows(path: str, options: Options) -> Source:
    """Opens ``npy:PATH``."""
    source = ArraySource(local_path(f"npy:{path}", path, options))
    return cast(Source, source)  # of a cached property


def _as_float32(rows: np.ndarray) -> np.ndarray:
    """Copies rows; a number beyond float32 becomes an infinity, which readers leave out."""
    with np.errstate(over="ignore"):
        return np.array(rows, np.float32)


def _mapped(path: str) -> np.memmap:
    """Maps the array of a ``.npy`` file, of which nothing is ever unpickled.

    Raises:
        InputError: it is no such file, and is told as what it is.
    """
    files.check_regular(path)
    refused = f"{path} is not a whole .npy file of numbers"
    try:
        with open(path, "rb") as file:
            beginning = file.read(signatures.N_BYTES)
        if not beginning.startswith(np.lib.format.MAGIC_PREFIX):
            if zipfile.is_zipfile(path) and _holds_arrays(path):
                raise InputError(f"{path} is an archive of arrays; a single .npy file is needed")
            what = signatures.what_is(beginning) or "of another kind"
            raise InputError(f"{refused}: it is {what}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the header is parsed as Python, which may warn
            return np.lib.format.open_memmap(path, mode="r")
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({files.reason(error)})") from error
    except Exception as error:  # a damaged header may raise nearly any type
        told = (str(error).splitlines() or [""])[0]
        # NumPy's own words for a long header advise to trust the file.
        reason = "its header cannot be read" if "securely" in told else told
        raise InputError(f"{refused} ({reason or type(error).__name__})") from error


def _holds_arrays(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
