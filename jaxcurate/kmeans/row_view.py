"""Rows that are read, and put in their frame, when they are asked for."""

from dataclasses import dataclass, replace

import numpy as np

from jaxcurate.kmeans.normalize import Frame
from jaxcurate.runtime.devices import RowsLike


@dataclass(frozen=True)
class Lazy:
    """Some rows ``[n, d]`` of a store; slices and arrays of numbers take from them."""

    store: "RowsLike | Lazy"
    """``[m, d]``, most likely a memory map; or rows that are lazy themselves."""
    chosen: np.ndarray | None = None
    """int64 ``[n]``: which rows of the store; None for all."""
    frame: Frame | None = None
    """What the rows are put in; None leaves them as they are."""

    @property
    def shape(self) -> tuple[int, int]:
        """As of an array."""
        return len(self), self.store.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """As of an array."""
        return self.store.dtype if self.frame is None else np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.store if self.chosen is None else self.chosen)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        taken = self.store[rows if self.chosen is None else self.chosen[rows]]
        return taken if self.frame is None else self.frame.enter(taken)

    def part(self, rows: slice | np.ndarray) -> "Lazy":
        """Some of these rows, not read yet."""
        if self.chosen is not None:
            return replace(self, chosen=self.chosen[rows])
        if isinstance(rows, slice):
            part = self.store.part if isinstance(self.store, Lazy) else self.store.__getitem__
            return replace(self, store=part(rows))  # a slice of a memory map is not read yet
        return replace(self, chosen=rows)

    def inside(self, frame: Frame) -> "Lazy":
        """The same rows, put in the frame when they are asked for."""
        return replace(self, frame=frame)
