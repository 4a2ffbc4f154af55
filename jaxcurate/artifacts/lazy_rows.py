"""Rows that are read from files when they are indexed, and never as a whole by accident."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from etils import epath

from jaxcurate.artifacts.files import DamagedError, load_array
from jaxcurate.artifacts.row_base import LazyRows
from jaxcurate.artifacts.verified import check_file
from jaxcurate.checks import InputError, as_real
from jaxcurate.runtime.devices import RowsLike

PART_BYTES = 2**32
"""Largest size of a part in bytes, unless settings say otherwise."""
_MOST_OPEN = 64
"""Largest number of files that are open as memory maps at a time."""


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
        numbers = self._numbers(rows)
        if isinstance(numbers, slice):
            return self._run(self._begin + numbers.start, self._begin + numbers.stop)
        if numbers.size == 0:
            return np.empty((*numbers.shape, *self._row_shape), self.dtype)
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
