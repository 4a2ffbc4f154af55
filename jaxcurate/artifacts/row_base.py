"""Base of rows that are read when they are indexed, and never as a whole by accident."""

from typing import Any

import numpy as np

from jaxcurate.checks import InputError

_MOST_BYTES = 2**28
"""Largest size of rows that numpy may make an array of without being asked by `rows[:]`."""


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

    def _numbers(self, rows: Any) -> slice | np.ndarray:
        """Returns what an index asks for: a slice of consecutive rows, or numbers of rows.

        Args:
            rows: a number, a slice, an array of numbers, or an array of a bool for each row.

        Returns:
            A slice from ``start`` to ``stop``, both within the rows, or int64 numbers from 0.
        """
        if isinstance(rows, tuple) and len(rows) == 1:
            rows = rows[0]
        if isinstance(rows, slice):
            begin, end, step = rows.indices(len(self))
            if step == 1:
                return slice(begin, max(begin, end))
            rows = np.arange(begin, end, step)
        if isinstance(rows, tuple) or rows is None or rows is Ellipsis:
            raise TypeError(f"rows that are read lazily are indexed by rows alone, not by {rows!r}")
        numbers = np.asarray(rows)
        if numbers.dtype == bool:
            if numbers.shape != (len(self),):
                raise IndexError(f"bools of shape {numbers.shape} for {len(self)} rows")
            numbers = np.flatnonzero(numbers)
        if numbers.size == 0:
            return numbers.astype(np.int64)
        if numbers.dtype.kind not in "iu":
            raise IndexError(f"rows are indexed by whole numbers, not by {numbers.dtype}")
        numbers = numbers.astype(np.int64)
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        if not 0 <= numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"a row is not among the {len(self)} rows")
        return numbers

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
