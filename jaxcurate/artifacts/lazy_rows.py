"""Rows that are read from files when they are indexed, and never as a whole by accident."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from etils import epath

from jaxcurate.artifacts.files import DamagedError, load_array
from jaxcurate.artifacts.verified import check_file
from jaxcurate.checks import InputError, as_real
from jaxcurate.runtime.devices import RowsLike

PART_BYTES = 2**32
"""Largest size of a part in bytes, unless settings say otherwise."""
_MOST_BYTES = 2**28
"""Largest size of rows that numpy may make an array of without being asked by `rows[:]`."""
_MOST_OPEN = 64
"""Largest number of files that are open as memory maps at a time."""


class LazyRows:
    """Base of rows ``[n, ...]`` that are read when they are indexed.

    A subclass has ``shape``, ``dtype`` and ``__getitem__``. A function that takes rows block by
    block accepts such an object in the place of an array (:func:`as_rows`).
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes, rows first."""
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> Any:
        """Returns the rows of a slice, or of an array of numbers, as an array."""
        raise NotImplementedError

    def select(self, rows: slice) -> "LazyRows":
        """Returns the rows of a slice without reading them."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of all rows in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Returns all rows, if they are small.

        Raises:
            InputError: the rows are large, so that their reader has to say that all are needed.
        """
        if self.nbytes > _MOST_BYTES:
            raise InputError(
                f"{self.nbytes} bytes of rows {list(self.shape)} would be read at once: read them "
                "block by block, or all by [:]"
            )
        if copy is False:
            raise ValueError("rows of files cannot become an array without a copy")
        return np.array(self[:], dtype)


def as_rows(x: Any, name: str = "x") -> RowsLike:
    """Returns rows that are read when they are indexed, or else an array of real numbers.

    Args:
        x: :class:`LazyRows`, or what :func:`jaxcurate.checks.as_real` takes.
        name: name of ``x`` in errors.

    Raises:
        InputError: ``x`` does not hold real numbers.

    Examples:
        >>> as_rows([[0, 1], [2, 3]]).shape
        (2, 2)
    """
    return x if isinstance(x, LazyRows) else as_real(x, name)


class RowsInFile(NamedTuple):
    """Consecutive rows in a ``.npy`` file."""

    path: epath.Path
    """Path of the file."""
    n_rows: int
    """Number of rows."""
    entry: dict[str, Any] | None = None
    """Size and SHA-256 of the file, as in a card. None if it was checked before."""


class JoinedRows(LazyRows):
    """Rows ``[n, ...]`` of several ``.npy`` files, one after another.

    A file is opened as a memory map when one of its rows is read for the first time, after a
    comparison with its checksum. At most 64 files are open at a time.

    Args:
        files: files of at least one row each, in order.
        row_shape: sizes of the other axes.
        dtype: type that all rows are returned in. The files have this type, or narrower strings,
            or uint16 for bfloat16.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     paths = [epath.Path(work) / f"{name}.npy" for name in "ab"]
        ...     for i, path in enumerate(paths):
        ...         np.save(path, np.full((2, 3), i, np.float32))
        ...     files = [RowsInFile(path, 2) for path in paths]
        ...     rows = JoinedRows(files, (3,), np.dtype(np.float32))
        ...     rows.shape, rows[1:3][:, 0].tolist(), rows[np.array([3, 0])][:, 0].tolist()
        ((4, 3), [0.0, 1.0], [1.0, 0.0])
    """

    def __init__(
        self, files: Sequence[RowsInFile], row_shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self._files, self._row_shape, self._dtype = tuple(files), row_shape, np.dtype(dtype)
        self._ends = np.cumsum([file.n_rows for file in files], dtype=np.int64)
        self._begin, self._end = 0, int(self._ends[-1]) if len(self._ends) else 0
        self._open = _OpenFiles(self._opened)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes, rows first."""
        return (self._end - self._begin, *self._row_shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""
        return self._dtype

    @property
    def sizes(self) -> list[int]:
        """Number of rows of each file."""
        return [file.n_rows for file in self._files]

    def part(self, index: int) -> np.ndarray:
        """Returns all rows of a file as a memory map, in the type that the file has."""
        return self._open(index)

    def select(self, rows: slice) -> "JoinedRows":
        """Returns consecutive rows without reading them."""
        begin, end, step = rows.indices(len(self))
        if step != 1:
            raise InputError(f"only consecutive rows can be selected, not each {step}th")
        view = object.__new__(JoinedRows)
        view.__dict__.update(self.__dict__)
        view._begin, view._end = self._begin + begin, self._begin + max(begin, end)
        return view

    def __getitem__(self, rows: Any, /) -> Any:
        """Returns a row, or the rows of a slice or of an array of numbers or bools.

        The rows of a slice within a file are a part of its memory map. Others are copied.
        """
        if isinstance(rows, tuple) and len(rows) == 1:
            rows = rows[0]
        if isinstance(rows, slice):
            begin, end, step = rows.indices(len(self))
            if step == 1:
                return self._run(self._begin + begin, self._begin + max(begin, end))
            rows = np.arange(begin, end, step)
        if isinstance(rows, tuple) or rows is None or rows is Ellipsis:
            raise TypeError(f"rows in files are indexed by rows alone, not by {rows!r}")
        numbers = np.asarray(rows)
        if numbers.dtype == bool:
            if numbers.shape != (len(self),):
                raise IndexError(f"bools of shape {numbers.shape} for {len(self)} rows")
            numbers = np.flatnonzero(numbers)
        if numbers.size == 0:
            return np.empty((*numbers.shape, *self._row_shape), self.dtype)
        if numbers.dtype.kind not in "iu":
            raise IndexError(f"rows are indexed by whole numbers, not by {numbers.dtype}")
        numbers = numbers.astype(np.int64)
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        if not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"a row is not among the {len(self)} rows")
        if numbers.ndim == 0:
            return self._run(self._begin + int(numbers), self._begin + int(numbers) + 1)[0]
        return self._gathered(self._begin + numbers)

    def _run(self, begin: int, end: int) -> np.ndarray:
        """Returns consecutive rows."""
        first = int(np.searchsorted(self._ends, begin, side="right"))
        pieces = []
        while begin < end:
            start = int(self._ends[first]) - self._files[first].n_rows
            stop = min(end, int(self._ends[first]))
            pieces.append(self._open(first)[begin - start : stop - start])
            begin, first = stop, first + 1
        if not pieces:
            return np.empty((0, *self._row_shape), self.dtype)
        if len(pieces) == 1:
            return pieces[0].astype(self.dtype, copy=False)
        return np.concatenate(pieces).astype(self.dtype, copy=False)

    def _gathered(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows of the given numbers."""
        places = np.searchsorted(self._ends, rows, side="right")
        out = np.empty((*rows.shape, *self._row_shape), self.dtype)
        for place in np.unique(places):
            chosen = places == place
            start = int(self._ends[place]) - self._files[place].n_rows
            out[chosen] = self._open(int(place))[rows[chosen] - start]
        return out

    def _opened(self, index: int) -> np.ndarray:
        file = self._files[index]
        if file.entry is not None:
            check_file(file.path, file.entry)
        rows = load_array(file.path, mmap=True)
        if self._dtype == ml_dtypes.bfloat16 and rows.dtype == np.uint16:
            rows = rows.view(ml_dtypes.bfloat16)
        if rows.shape != (file.n_rows, *self._row_shape):
            raise DamagedError(
                f"{file.path} has rows {list(rows.shape)}, and the card of its folder lists "
                f"{[file.n_rows, *self._row_shape]}"
            )
        if rows.dtype != self._dtype and not (rows.dtype.kind == self._dtype.kind == "U"):
            raise DamagedError(f"{file.path} holds {rows.dtype}, and not {self._dtype}")
        return rows


class _OpenFiles:
    """Memory maps of files, of which those that were used last stay open."""

    def __init__(self, opened: Any) -> None:
        self._opened, self._lock = opened, threading.Lock()
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()

    def __call__(self, index: int) -> np.ndarray:
        with self._lock:
            if index not in self._maps:
                self._maps[index] = self._opened(index)
                if len(self._maps) > _MOST_OPEN:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(index)
            return self._maps[index]
