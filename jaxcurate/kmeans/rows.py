"""Rows on the devices, padded to whole blocks."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import jax

from jaxcurate.runtime.devices import Devices, RowsLike

SMALLEST_BLOCK = 256
"""Smallest number of rows in a block."""
SMALL = 2**20, 2**22
"""Largest numbers of entries of the rows and of scores in an assignment for which the kernels
compile longer than they run."""


class BlockedRows:
    """Base of rows that kernels take in blocks, at once or chunk by chunk."""

    x: Any
    devices: Devices
    block: int

    def spmd(
        self,
        kernel: Callable[..., Any],
        k: int,
        in_specs: tuple[Any, ...],
        out_specs: Any,
        **static: Hashable,
    ) -> Callable[..., Any]:
        """Compiles a kernel for these rows and ``k`` centroids: :meth:`Devices.spmd`.

        Whether it is compiled with less effort depends on all rows: many small chunks take their
        time.
        """
        n, d = self.x.shape
        quick = is_small(n, d, k)
        return self.devices.spmd(
            kernel, in_specs, out_specs, quick=quick, block=self.block, **static
        )


@dataclass(frozen=True)
class Rows(BlockedRows):
    """Rows on the devices, padded to a shape that the kernels can split."""

    x: jax.Array
    """Normalized rows, float32 ``[m, d]``."""
    weights: jax.Array
    """Weights, float32 ``[m]``: 1 for a row, 0 for padding."""
    n: int
    """Number of rows without padding; they come first."""
    devices: Devices
    """Devices that the rows are split over."""
    block: int
    """Number of rows in a block of a kernel; each device holds a multiple of it."""


def place(x: RowsLike, devices: Devices, at_least: int = 0, block: int | None = None) -> Rows:
    """Puts normalized rows ``[n, d]`` on devices.

    Args:
        x: float32 ``[n, d]``, an array or :class:`~jaxcurate.kmeans.row_view.RowView`. Each of
            several processes reads the rows of its devices.
        devices: Devices to use.
        at_least: Number of rows to pad to, so that calls of different ``n`` share a compilation.
        block: Number of rows in a block; by default chosen by the backend, and less for few rows.
    """
    if block is None:
        a_device = -(-max(len(x), at_least) // devices.count)
        block = min(block_rows(), max(SMALLEST_BLOCK, 1 << (a_device - 1).bit_length()))
    placed, weights = devices.put_rows(x, block, at_least)
    return Rows(placed, weights, len(x), devices, block)


def block_rows() -> int:
    """Returns the number of rows in a block.

    The cache of a CPU core holds the scores of 1024 rows; accelerators need more rows.
    """
    return {"cpu": 1024, "tpu": 4096}.get(jax.default_backend(), 8192)


def is_small(n: int, d: int, k: int) -> bool:
    """Returns whether k-means of ``n`` rows of ``d`` numbers compiles longer than it runs."""
    return n * d <= SMALL[0] and n * k <= SMALL[1]


def fits(n: int, d: int, memory_limit: int | None) -> bool:
    """Returns whether ``n`` float32 rows of ``d`` numbers are within a limit in bytes, if any.

    Examples:
        >>> from jaxcurate.kmeans.rows import fits
        >>> fits(1000, 64, memory_limit=100_000), fits(1000, 64, memory_limit=None)
        (False, True)
    """
    return memory_limit is None or 4 * n * d <= memory_limit
