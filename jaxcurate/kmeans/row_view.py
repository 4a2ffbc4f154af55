"""Views of rows that are read, and normalized, only when they are indexed."""

from dataclasses import dataclass, replace

import numpy as np

from jaxcurate.artifacts.lazy_rows import LazyRows
from jaxcurate.kmeans.normalize import Normalizer
from jaxcurate.runtime.devices import RowsLike


@dataclass(frozen=True)
class RowView(LazyRows):
    """View of some rows ``[n, d]`` of a store, indexed by slices or arrays of row numbers.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.kmeans.row_view import RowView
        >>> view = RowView(np.arange(10.0).reshape(5, 2)).select(np.array([4, 1]))
        >>> view.shape, view[:1].tolist()
        ((2, 2), [[8.0, 9.0]])
    """

    store: "RowsLike | RowView"
    """Rows ``[m, d]``, often a memory map, or another view."""
    chosen: np.ndarray | None = None
    """Row numbers in the store, int64 ``[n]``; None for all rows."""
    normalizer: Normalizer | None = None
    """Normalizer that is applied to the rows; None for none."""

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
        """Returns a view of some of these rows, without reading them."""
        if self.chosen is not None:
            return replace(self, chosen=self.chosen[rows])
        if isinstance(rows, slice):
            take = self.store.select if isinstance(self.store, LazyRows) else self.store.__getitem__
            return replace(self, store=take(rows))  # slicing a memory map reads nothing
        return replace(self, chosen=rows)

    def with_normalizer(self, normalizer: Normalizer) -> "RowView":
        """Returns a view of the same rows that normalizes them."""
        return replace(self, normalizer=normalizer)
