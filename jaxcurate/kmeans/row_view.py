"""Views of rows that are read, and normalized, when they are asked for."""

from dataclasses import dataclass, replace

import numpy as np

from jaxcurate.kmeans.normalize import Normalizer
from jaxcurate.runtime.devices import RowsLike


@dataclass(frozen=True)
class RowView:
    """View of some rows ``[n, d]`` of a store, from which slices and arrays of numbers take."""

    store: "RowsLike | RowView"
    """``[m, d]``, most likely a memory map; or another view."""
    chosen: np.ndarray | None = None
    """int64 ``[n]``: which rows of the store; None for all."""
    normalizer: Normalizer | None = None
    """Normalizes the rows; None leaves them as they are."""

    @property
    def shape(self) -> tuple[int, int]:
        """Sizes of the axes ``(n, d)``."""
        return len(self), self.store.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""
        return self.store.dtype if self.normalizer is None else np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.store if self.chosen is None else self.chosen)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        taken = self.store[rows if self.chosen is None else self.chosen[rows]]
        return taken if self.normalizer is None else self.normalizer.transform(taken)

    def select(self, rows: slice | np.ndarray) -> "RowView":
        """Returns some of these rows, not read yet."""
        if self.chosen is not None:
            return replace(self, chosen=self.chosen[rows])
        if isinstance(rows, slice):
            part = self.store.select if isinstance(self.store, RowView) else self.store.__getitem__
            return replace(self, store=part(rows))  # a slice of a memory map is not read yet
        return replace(self, chosen=rows)

    def with_normalizer(self, normalizer: Normalizer) -> "RowView":
        """Returns the same rows, normalized when they are asked for."""
        return replace(self, normalizer=normalizer)
