"""Normalization of rows: shifted and scaled so that float32 keeps its digits, or to length 1."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import jax.numpy as jnp
import numpy as np

from jaxcurate.artifacts.tree import Metric
from jaxcurate.checks import LARGEST, InputError, faults_of, is_real, joined, refuse
from jaxcurate.runtime.devices import ONE_DEVICE, Devices, RowsLike
from jaxcurate.runtime.sharing import share

_CHUNK = 65536
_CACHED = 2**16
"""Count of float64 numbers that stay in a core's cache."""


@dataclass(frozen=True)
class Normalizer:
    """Shift and power of two: ``(x - mean) / scale`` has mean 0 and its largest entry near 1.

    Rows far from the origin lose digits in ``|x|^2 - 2 x c + |c|^2``, and the squares of very large
    or very small entries leave the range of float32. Normalized rows avoid both. Scaling by a power
    of two is exact.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.kmeans.normalize import Normalizer
        >>> normalizer = Normalizer(np.array([1000.0, 0.0]), scale=2.0)
        >>> rows = normalizer.transform(np.array([[1001.0, 1.0], [999.0, -1.0]]))
        >>> rows.tolist(), normalizer.inverse_transform(rows).tolist()
        ([[0.5, 0.5], [-0.5, -0.5]], [[1001.0, 1.0], [999.0, -1.0]])
    """

    mean: np.ndarray
    """Mean of the rows, float64 ``[d]``."""
    scale: float
    """Power of two that the differences from the mean are divided by."""
    unit: bool = False
    """True to scale each row to length 1 instead, for the cosine metric."""

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Returns normalized rows ``[n, d]``, float32.

        Differences are taken in float64, unless float32 holds the rows and the mean: float32
        differences are then correctly rounded as well, and three times as fast.
        """
        out = np.empty(x.shape, np.float32)
        rows = max(1, _CACHED // x.shape[1])
        single = x.dtype in (np.float16, np.float32, jnp.bfloat16) and self.is_single
        mean, scale = self.mean, 1 / self.scale
        if single:
            mean, scale = mean.astype(np.float32), np.float32(scale)
        for begin in range(0, len(x), rows):
            block = x[begin : begin + rows]
            if self.unit:
                block = block.astype(np.float64)  # in int8, -128 has no absolute value
                moved = block / np.max(np.abs(block), axis=1, keepdims=True)
                factor = 1 / np.linalg.norm(moved, axis=1, keepdims=True)
            else:
                moved, factor = np.subtract(block, mean, dtype=mean.dtype), scale
            np.multiply(moved, factor, out=out[begin : begin + rows], casting="same_kind")
        return out

    def rounded(self) -> "Normalizer":
        """Returns a normalizer whose mean is rounded to float32, which is faster for such rows.

        Any point near the mean serves as well as the mean.
        """
        with np.errstate(over="ignore"):
            mean = self.mean.astype(np.float32).astype(np.float64)
        return replace(self, mean=mean) if np.isfinite(mean).all() else self

    @cached_property
    def is_single(self) -> bool:
        """True if float32 holds the mean exactly, and differences from it do not overflow."""
        within = 2.0**-100 < self.scale < 2.0**100 and np.abs(self.mean).max() < 2.0**100
        return within and np.array_equal(self.mean, self.mean.astype(np.float32))

    def inverse_transform(self, x: np.ndarray) -> np.ndarray:
        """Returns points ``[k, d]`` without normalization, float32."""
        points = np.asarray(x, np.float64) * self.scale + self.mean
        # A mean of float32 numbers is within their range; only rounding can exceed it.
        return np.clip(points, -LARGEST, LARGEST).astype(np.float32)

    def inverse_transform_squared(self, squared: np.ndarray) -> np.ndarray:
        """Returns squared distances ``[n]`` between points without normalization, float32."""
        with np.errstate(over="ignore"):  # a distance beyond float32 is infinite
            return (np.asarray(squared, np.float64) * self.scale**2).astype(np.float32)


def fit_normalizer(
    x: RowsLike, name: str = "x", devices: Devices = ONE_DEVICE, metric: Metric = "euclidean"
) -> Normalizer:
    """Returns the normalizer of rows, and checks the rows in the same pass.

    Args:
        x: Rows, real numbers ``[n, d]``.
        name: Name of the rows in errors.
        devices: Devices whose processes share the reading; the result is the same for any number.
        metric: ``"euclidean"``, or ``"cosine"`` for rows of length 1.

    Raises:
        InputError: ``x`` is not a matrix with at least one number, or has rows with a NaN, an
            infinity, numbers beyond float32, or (for ``"cosine"``) all zeros. The message counts
            these rows and names the first ones.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.kmeans.normalize import fit_normalizer
        >>> normalizer = fit_normalizer(np.array([[1001.0, 1.0], [999.0, -1.0]]))
        >>> normalizer.mean.tolist(), normalizer.scale
        ([1000.0, 0.0], 1.0)
    """
    checked_shape(x, name)
    unit, step = metric == "cosine", max(1, _CACHED // x.shape[1])

    def moments(begins: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        columns = np.empty((len(begins), 3, x.shape[1]))
        columns[:] = np.array([0, np.inf, -np.inf])[None, :, None]
        faults = []
        for first, (total, low, high) in zip(begins, columns, strict=True):
            for begin in range(first, min(first + _CHUNK, len(x)), step):
                block = np.asarray(x[begin : min(begin + step, first + _CHUNK)], np.float64)
                least, most = block.min(axis=0), block.max(axis=0)
                within = least.min() >= -LARGEST and most.max() <= LARGEST  # False for a NaN
                if not within or (unit and not block.any(axis=1).all()):
                    rows = range(begin, begin + len(block))
                    faults.append(faults_of(block, rows, beyond=not unit, zeros=unit))
                    continue
                total += block.sum(axis=0)
                np.minimum(low, least, out=low)
                np.maximum(high, most, out=high)
        return columns, joined(faults)[None], np.array([len(x)])

    columns, faults, seen = share(range(0, len(x), _CHUNK), moments, devices)
    if len(set(seen.tolist())) > 1:
        raise InputError(f"{name} is not the same in all processes: {seen.tolist()} rows")
    refuse(faults, name)
    if metric == "cosine":
        return Normalizer(np.zeros(x.shape[1]), 1.0, unit=True)
    total = np.zeros(x.shape[1])
    for chunk in columns[:, 0]:  # in the same order for any number of processes
        total += chunk
    low, high = columns[:, 1].min(axis=0), columns[:, 2].max(axis=0)
    mean = np.clip(total / len(x), low, high)  # rounding must not shift a constant column
    reach = float(np.max(np.maximum(high - mean, mean - low)))
    # The reciprocal of a power below 2**-1000 could be infinite.
    return Normalizer(mean, float(2.0 ** max(np.ceil(np.log2(reach)), -1000)) if reach > 0 else 1.0)


def checked_shape(x: RowsLike, name: str) -> None:
    """Refuses an array that is not a numeric matrix with rows and columns.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.kmeans.normalize import checked_shape
        >>> checked_shape(np.zeros(3), "x")
        Traceback (most recent call last):
        jaxcurate.checks.InputError: x must have two axes [n, d], not shape (3,)
    """
    if len(x.shape) != 2:
        raise InputError(f"{name} must have two axes [n, d], not shape {x.shape}")
    if not is_real(x.dtype):
        raise InputError(f"{name} must hold real numbers, not {x.dtype}")
    if 0 in x.shape:
        raise InputError(f"{name} is empty: shape {x.shape}")
