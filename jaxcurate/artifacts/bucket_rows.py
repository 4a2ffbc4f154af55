"""Rows of a ``.npy`` object in a bucket, read by ranges of bytes when they are indexed."""

import errno
import io
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.artifacts import bucket
from jaxcurate.artifacts.bucket_errors import errors
from jaxcurate.artifacts.row_base import LazyRows
from jaxcurate.checks import InputError

LEAST_BYTES = 2**28
"""Size from which on rows stay in the bucket; smaller arrays are read as a whole."""
RANGE_BYTES = 2**24
"""Largest size of a range that one request reads."""
_NEAR_BYTES = 2**16
"""Gap between two rows up to which a single request reads both, with what is between them."""
_AT_ONCE = 8
"""Number of ranges that are read at a time."""
_HEADER_BYTES = 2**12


class BucketRows(LazyRows):
    """Rows ``[n, ...]`` of a ``.npy`` object, of which only those asked for are read.

    Rows are indexed by a slice, a number, or an array of numbers or bools, as those of an array
    are. A slice that follows the one before it was read ahead while that one was worked on.

    Args:
        path: path of the object.
    """

    def __init__(self, path: epath.Path) -> None:
        self._path = path
        self._fs, self._name = bucket.system(path), str(path)
        self._row_shape, self._dtype, self._offset, n = header_of(path)
        self._begin, self._end = 0, n
        self._ahead = _ReadAhead(self._read)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes, rows first."""
        return (self._end - self._begin, *self._row_shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""
        return self._dtype

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._end - self._begin

    def select(self, rows: slice) -> "BucketRows":
        """Returns consecutive rows without reading them.

        Raises:
            InputError: the rows are not consecutive.
        """
        begin, end, step = rows.indices(len(self))
        if step != 1:
            raise InputError(f"only consecutive rows can be selected, not each {step}th")
        other = self._alike()
        other._begin, other._end = self._begin + begin, self._begin + max(begin, end)
        return other

    def view(self, dtype: Any) -> "BucketRows":
        """Returns the same bytes as numbers of another type of the same size."""
        dtype = np.dtype(dtype)
        if dtype.itemsize != self._dtype.itemsize:
            raise InputError(f"{self._path} holds {self._dtype}, which is no {dtype}")
        other = self._alike()
        other._dtype = dtype
        return other

    def __getitem__(self, rows: Any, /) -> Any:
        """Returns a row, or the rows of a slice or of an array of numbers or bools.

        Raises:
            InputError: the store cannot be reached, or the object became shorter.
        """
        numbers = self._numbers(rows)
        if isinstance(numbers, slice):
            begin, end = numbers.start, numbers.stop
            last = min(2 * end - begin, len(self))
            return self._ahead(self._begin + begin, self._begin + end, self._begin + last)
        if numbers.size == 0:
            return np.empty((*numbers.shape, *self._row_shape), self.dtype)
        wanted, places = np.unique(numbers, return_inverse=True)
        return self._gathered(self._begin + wanted)[places.reshape(numbers.shape)]

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self._row_shape, dtype=np.int64)) * self._dtype.itemsize

    def _alike(self) -> "BucketRows":
        other = object.__new__(BucketRows)
        other.__dict__.update(self.__dict__)
        other._ahead = _ReadAhead(other._read)
        return other

    def _read(self, begin: int, end: int) -> np.ndarray:
        """Returns consecutive rows, read by several requests at a time if they are large."""
        out = np.empty((end - begin, *self._row_shape), self._dtype)
        if not out.size:
            return out
        rows = max(1, RANGE_BYTES // self._row_bytes)
        parts = [(at, min(at + rows, end)) for at in range(begin, end, rows)]
        for group in range(0, len(parts), _AT_ONCE):
            some = parts[group : group + _AT_ONCE]
            for (first, last), block in zip(some, self._ranges(some), strict=True):
                out[first - begin : last - begin] = block
        return out

    def _gathered(self, wanted: np.ndarray) -> np.ndarray:
        """Returns rows of sorted, distinct numbers; those near each other take one request."""
        out = np.empty((len(wanted), *self._row_shape), self._dtype)
        far = np.flatnonzero((np.diff(wanted) - 1) * self._row_bytes > _NEAR_BYTES) + 1
        most = max(1, RANGE_BYTES // self._row_bytes)
        runs, done = [], 0
        for run in np.split(wanted, far):
            # A run of many rows is read in pieces of bounded size.
            cuts = np.searchsorted(run, np.arange(run[0] + most, run[-1] + 1, most))
            runs += [piece for piece in np.split(run, cuts) if len(piece)]
        for group in range(0, len(runs), _AT_ONCE):
            some = runs[group : group + _AT_ONCE]
            blocks = self._ranges([(int(run[0]), int(run[-1]) + 1) for run in some])
            for run, block in zip(some, blocks, strict=True):
                out[done : done + len(run)] = block[run - run[0]]
                done += len(run)
        return out

    def _ranges(self, parts: list[tuple[int, int]]) -> list[np.ndarray]:
        """Returns the rows of some ranges, read at the same time."""
        width = self._row_bytes
        starts = [self._offset + begin * width for begin, _ in parts]
        ends = [self._offset + end * width for _, end in parts]
        with errors(self._path):
            found = self._fs.cat_ranges([self._name] * len(parts), starts, ends, on_error="raise")
        blocks = []
        for data, start, end in zip(found, starts, ends, strict=True):
            if len(data) != end - start:
                raise InputError(f"{self._path} became shorter while it was read")
            blocks.append(np.frombuffer(data, self._dtype).reshape(-1, *self._row_shape))
        return blocks


class _ReadAhead:
    """Reader of consecutive rows that already reads those that are likely to be next.

    Reading ahead begins with the second of two slices that follow each other, and holds one slice
    at a time.
    """

    def __init__(self, read: Any) -> None:
        self._read, self._lock = read, threading.Lock()
        self._end = -1
        self._next: tuple[tuple[int, int], Future] | None = None
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, begin: int, end: int, last: int) -> np.ndarray:
        with self._lock:
            known, self._next = self._next, None
            in_order, self._end = begin == self._end, end
        if known is not None and known[0] == (begin, end):
            rows = known[1].result()
        else:
            rows = self._read(begin, end)
        if in_order and last > end:
            with self._lock:
                self._pool = self._pool or ThreadPoolExecutor(1, "read-ahead")
                if self._next is None:
                    self._next = (end, last), self._pool.submit(self._read, end, last)
        return rows


def header_of(path: epath.Path) -> tuple[tuple[int, ...], np.dtype, int, int]:
    """Returns sizes of the axes after the first, type, offset of the first row, number of rows.

    Raises:
        ValueError: the object is no complete ``.npy`` file of rows.
        InputError: there is no such object, or the store cannot be reached.
    """
    with errors(path):
        fs = bucket.system(path)
        data = io.BytesIO(fs.cat_file(str(path), start=0, end=_HEADER_BYTES))
        n_bytes = fs.info(str(path))["size"]
    release = np.lib.format.read_magic(data)
    if release not in ((1, 0), (2, 0)):
        raise ValueError(f"its format {release} is unknown")
    np_format: Any = np.lib.format
    read = np_format.read_array_header_1_0 if release[0] == 1 else np_format.read_array_header_2_0
    shape, by_columns, dtype = read(data)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if not shape or (by_columns and len(shape) > 1):
        raise ValueError("it does not hold rows one after another")
    size = data.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size != n_bytes:
        raise ValueError(f"{n_bytes} bytes, not {size}")
    return tuple(shape[1:]), dtype, data.tell(), shape[0]


def load(path: epath.Path, *, lazily: bool) -> "np.ndarray | BucketRows":
    """Reads a ``.npy`` object, or returns its rows to be read when they are indexed.

    Args:
        path: path of the object.
        lazily: leave large rows in the bucket.

    Raises:
        ValueError: the object is no complete ``.npy`` file of rows.
    """
    found = bucket.info(path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    n_bytes = int(found["size"])
    if lazily and n_bytes >= LEAST_BYTES:
        rows = BucketRows(path)
        if rows.ndim > 1:
            return rows
    with errors(path):
        return np.load(io.BytesIO(bucket.read_all(path, n_bytes)), allow_pickle=False)
