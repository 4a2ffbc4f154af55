"""Rows that do not fit in memory, read, normalized and placed a chunk at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.kmeans.rows import SMALLEST_BLOCK, Rows, block_rows, place
from jaxcurate.runtime.devices import Devices

_BLOCKS = 64
"""Blocks to a device's part of a chunk, where that leaves them large enough."""
_MOST_ROWS = 2**31 - 2**16
"""Rows to a chunk at most: they are counted in int32."""
_SMALLEST_STEP = 16
"""Rows that a device gets at a time where memory is short; the seeding takes so many at once."""


@dataclass(frozen=True)
class RowStream:
    """Rows that are read, normalized and placed a chunk at a time, one chunk ahead."""

    x: RowView
    """``[n, d]``, normalized, most likely of a memory map."""
    devices: Devices
    n_rows: int
    """Rows to a chunk, a multiple of what the devices' blocks hold."""
    block: int
    """Rows that a kernel takes at a time."""
    spare: int = 0
    """Bytes of the host that may be taken by what saves work."""

    def __iter__(self) -> Iterator[tuple[slice, Rows]]:
        """Yields where each chunk lies in ``x``, and its rows."""
        parts = [
            slice(begin, min(begin + self.n_rows, len(self.x)))
            for begin in range(0, len(self.x), self.n_rows)
        ]
        ahead = self._reader.submit(self._placed, parts[0])
        for part, after in zip(parts, [*parts[1:], None], strict=True):
            rows = ahead.result()
            if after is not None:
                ahead = self._reader.submit(self._placed, after)
            yield part, rows

    def __len__(self) -> int:
        """Returns how many chunks there are."""
        return -(-len(self.x) // self.n_rows)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows ``[m, d]`` of the given numbers."""
        return self.x[rows]

    @cached_property
    def _reader(self) -> ThreadPoolExecutor:
        # One for all passes: what a thread frees, the next one may not find.
        return ThreadPoolExecutor(1, thread_name_prefix="chunk")

    def _placed(self, part: slice) -> Rows:
        return place(self.x.select(part), self.devices, self.n_rows, self.block)


def stream_within(x: RowView, devices: Devices, memory_limit: int, n_clusters: int) -> RowStream:
    """Returns chunks of normalized rows that fit in so many bytes, all that are alive at a time.

    Raises:
        ValueError: not even the smallest chunk fits.
    """
    (n, d), shards = x.shape, devices.count
    # Two chunks are on the devices and one on its way there; and some room for pieces of them.
    bytes_a_row = 4 * d * 4
    # Where there is no room for all that goes aside, rows get a quarter.
    spare = memory_limit // 4
    aside = (
        min(spare, 4 * n_clusters * n // SMALLEST_BLOCK)  # gaps by blocks
        + 20 * n  # a few numbers for each row
        + 80 * n_clusters * d  # the centroids twenty times, on the host and in the kernel
        + 32768 * d  # rows that the kernel brings together
    )
    a_device = max(memory_limit - aside, memory_limit // 4) // bytes_a_row // shards
    if a_device < _SMALLEST_STEP:
        least = 4 * _SMALLEST_STEP * shards * bytes_a_row
        raise InputError(
            f"memory_limit={memory_limit} is too small: {least} bytes are the least for rows of "
            f"{d} numbers on {shards} device(s)"
        )
    most = 1 << (-(-n // shards) - 1).bit_length()  # few rows need not be padded to more
    return replace(stream_rows(x, devices, min(a_device, max(_SMALLEST_STEP, most))), spare=spare)


def stream_rows(x: RowView, devices: Devices, a_device: int) -> RowStream:
    """Chunks that give each device so many rows, at least 16, or a little fewer."""
    below = lambda rows: 1 << (rows.bit_length() - 1) if rows else 0
    # Rather many blocks than large ones: what rows are near to is known for each block.
    block = max(below(a_device // _BLOCKS), min(SMALLEST_BLOCK, below(a_device)))
    block = min(block, block_rows())
    a_device = min(a_device, _MOST_ROWS // devices.count)
    return RowStream(x, devices, devices.count * (a_device // block * block), block)
