"""The rows of an array on disk, embeddings made elsewhere, as a source."""

import functools
import hashlib
import os
import zipfile
from collections.abc import Sequence

import numpy as np

from jaxcurate.artifacts.pool import row_ids
from jaxcurate.checks import InputError, as_real
from jaxcurate.faults import faults_of, refuse
from jaxcurate.sources.items import Annotations, Item

_BLOCK_BYTES = 1 << 24


class ArraySource:
    """Rows of a 2-D ``.npy`` file of real numbers, read as needed; an id is the row's number.

    Attributes:
        array: the file's content, a memory map ``[n, d]`` of the file's own dtype.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._path = os.fspath(path)
        try:
            array = np.load(self._path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise InputError(f"{path}: there is no such file") from error
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is not a whole .npy file of numbers ({error})") from error
        if not isinstance(array, np.ndarray):
            array.close()
            raise InputError(f"{path} is an archive of arrays; a single .npy file is needed")
        if array.ndim != 2 or 0 in array.shape:
            raise InputError(f"{path} must be [n, d] with n, d > 0, not {list(array.shape)}")
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
            digest.update(np.ascontiguousarray(self.array[start : start + step]).view(np.uint8))
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.array)

    def read(self, row: int) -> Item:
        return Item(str(row), self._single(self.array[row : row + 1], range(row, row + 1))[0])

    def read_block(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, n = int(rows[0]), len(rows)
        in_a_run = np.array_equal(rows, np.arange(first, first + n))
        block = self.array[first : first + n] if in_a_run else self.array[rows]
        return row_ids(rows), self._single(block, rows)

    def _single(self, block: np.ndarray, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """A copy of rows as float32; refused where finite numbers would become infinite."""
        with np.errstate(over="ignore"):
            single = np.array(block, np.float32)
        if np.isinf(single).any():
            found = faults_of(block, rows)
            found[0] = 0  # a NaN or an infinity of the file's own is not for a source to judge
            refuse([found], self._path, so_far=True)
        return single

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        unknown = np.full(len(rows), "", np.str_)
        return Annotations(unknown, unknown)
