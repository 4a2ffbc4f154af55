"""Rows that do not fit in memory: read, normalized and put on devices chunk by chunk."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.kmeans.rows import SMALLEST_BLOCK, BlockedRows, Rows, block_rows, place
from jaxcurate.runtime.devices import Devices

_BLOCKS = 64
"""Number of blocks in a device's part of a chunk, unless they would be too small."""
_MOST_ROWS = 2**31 - 2**16
"""Largest number of rows in a chunk, for rows are counted in int32."""
_SMALLEST_STEP = 16
"""Smallest number of rows of a device in a chunk; the seeding takes as many at once."""


@dataclass(frozen=True)
class RowStream(BlockedRows):
    """Rows that are read, normalized and put on devices chunk by chunk, one chunk ahead."""

    x: RowView
    """Normalized rows ``[n, d]``, often of a memory map."""
    devices: Devices
    """Devices that each chunk is split over."""
    n_rows: int
    """Number of rows in a chunk, a multiple of the block times the number of devices."""
    block: int
    """Number of rows in a block of a kernel."""
    spare: int = 0
    """Bytes of host memory that bounds which save work may take."""

    def __iter__(self) -> Iterator[tuple[slice, Rows]]:
        """Yields the slice of each chunk in ``x``, and its rows on the devices."""
        chunks = [
            slice(begin, min(begin + self.n_rows, len(self.x)))
            for begin in range(0, len(self.x), self.n_rows)
        ]
        ahead = self._reader.submit(self._placed, chunks[0])
        for chunk, after in zip(chunks, [*chunks[1:], None], strict=True):
            rows = ahead.result()
            if after is not None:
                ahead = self._reader.submit(self._placed, after)
            yield chunk, rows

    def __len__(self) -> int:
        """Returns the number of chunks."""
        return -(-len(self.x) // self.n_rows)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows ``[m, d]`` of the given numbers."""
        return self.x[rows]

    @cached_property
    def _reader(self) -> ThreadPoolExecutor:
        # One thread for all passes, for another thread may not reuse the memory that one frees.
        return ThreadPoolExecutor(1, thread_name_prefix="chunk")

    def _placed(self, chunk: slice) -> Rows:
        return place(self.x.select(chunk), self.devices, self.n_rows, self.block)


def stream_within(x: RowView, devices: Devices, memory_limit: int, n_clusters: int) -> RowStream:
    """Returns normalized rows in chunks so small that k-means stays within a memory limit.

    Args:
        x: Normalized rows ``[n, d]``.
        devices: Devices that each chunk is split over.
        memory_limit: Bytes of host and device memory for all that is held at a time.
        n_clusters: Number of clusters of the k-means.

    Raises:
        InputError: Not even the smallest chunk fits.
    """
    (n, d), shards = x.shape, devices.count
    # Two chunks are on the devices and one is on its way; the fourth is room for copies of parts.
    bytes_a_row = 4 * d * 4
    # If the other arrays leave less, rows get a quarter of the memory.
    spare = memory_limit // 4
    aside = (
        min(spare, 4 * n_clusters * n // SMALLEST_BLOCK)  # lower bounds for blocks
        + 20 * n  # a few numbers for each row
        + 80 * n_clusters * d  # twenty arrays of centroids, on the host and in the kernel
        + 32768 * d  # rows that the kernel gathers
    )
    a_device = max(memory_limit - aside, memory_limit // 4) // bytes_a_row // shards
    if a_device < _SMALLEST_STEP:
        least = 4 * _SMALLEST_STEP * shards * bytes_a_row
        raise InputError(
            f"memory_limit={memory_limit} is too small: {least} bytes are the least for rows of "
            f"{d} numbers on {shards} device(s)"
        )
    most = 1 << (-(-n // shards) - 1).bit_length()  # few rows are not padded to more
    return replace(stream_rows(x, devices, min(a_device, max(_SMALLEST_STEP, most))), spare=spare)


def stream_rows(x: RowView, devices: Devices, a_device: int) -> RowStream:
    """Returns rows in chunks of ``a_device`` rows for each device, rounded down to whole blocks."""
    below = lambda rows: 1 << (rows.bit_length() - 1) if rows else 0
    # Many small blocks prune better than few large ones, for bounds are kept for each block.
    block = max(below(a_device // _BLOCKS), min(SMALLEST_BLOCK, below(a_device)))
    block = min(block, block_rows())
    a_device = min(a_device, _MOST_ROWS // devices.count)
    return RowStream(x, devices, devices.count * (a_device // block * block), block)
