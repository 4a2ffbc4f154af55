"""Rows on the devices, padded to what the kernels take."""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax

from jaxcurate.runtime.devices import Devices, RowsLike

SMALLEST_BLOCK = 256
"""Rows to a block where there are few."""
_SMALL = 2**20
"""Numbers in the rows up to which kernels take longer to compile than to run."""


class Rows(NamedTuple):
    """Rows on the devices, padded to a shape that the kernels can split."""

    x: jax.Array
    """float32 ``[m, d]``, in a :class:`~jaxcurate.kmeans.normalize.Normalizer`."""
    weights: jax.Array
    """float32 ``[m]``: 1 for a row, 0 for padding."""
    n: int
    """The rows that are real; they come first."""
    devices: Devices
    block: int
    """Rows that a kernel takes at a time; each device holds a multiple of it."""

    def spmd(
        self,
        kernel: Callable[..., Any],
        in_specs: tuple[Any, ...],
        out_specs: Any,
        **static: Hashable,
    ) -> Callable[..., Any]:
        """Compiles a kernel for these rows and their block: :meth:`Devices.spmd`."""
        quick = self.x.size <= _SMALL
        return self.devices.spmd(
            kernel, in_specs, out_specs, quick=quick, block=self.block, **static
        )


def place(x: RowsLike, devices: Devices, at_least: int = 0, block: int | None = None) -> Rows:
    """Puts normalized rows ``[n, d]`` on devices.

    Args:
        x: float32 ``[n, d]``, an array or :class:`~jaxcurate.kmeans.row_view.RowView`. Over several
            processes each reads the rows of its own devices.
        devices: the devices to use.
        at_least: pad to so many rows, so that calls of varying ``n`` share a compilation.
        block: rows to a block; by default what fits the backend, less for few rows.
    """
    if block is None:
        a_device = -(-max(len(x), at_least) // devices.count)
        block = min(block_rows(), max(SMALLEST_BLOCK, 1 << (a_device - 1).bit_length()))
    placed, weights = devices.put_rows(x, block, at_least)
    return Rows(placed, weights, len(x), devices, block)


def block_rows() -> int:
    """Returns rows to a block: a CPU core's cache holds the scores of 1024; an accelerator wants
    more."""
    return {"cpu": 1024, "tpu": 4096}.get(jax.default_backend(), 8192)


def fits(n: int, d: int, memory_limit: int | None) -> bool:
    """Tells whether ``n`` rows of ``d`` numbers take at most so many bytes; None is no limit."""
    return memory_limit is None or 4 * n * d <= memory_limit
