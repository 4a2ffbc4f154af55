"""Normalizes rows: shifted and scaled so that float32 keeps its digits, or to length 1."""

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
"""Numbers at a time that stay in a core's cache as float64."""


@dataclass(frozen=True)
class Normalizer:
    """Shift and power of two: ``(x - mean) / scale`` has mean 0 and its largest entry near 1.

    Far-off data lose their digits in ``|x|^2 - 2 x c + |c|^2``, and squares of very large or very
    small entries leave the range of float32; of normalized rows neither is true. The power of two
    makes the scaling exact.
    """

    mean: np.ndarray
    """float64 ``[d]``."""
    scale: float
    unit: bool = False
    """Brings rows to length 1 instead, where their directions are all that counts."""

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Returns rows ``[n, d]`` normalized, float32.

        Differences are taken in float64, unless rows and mean are float32 already: then they are
        correctly rounded all the same, and three times as fast.
        """
        out = np.empty(x.shape, np.float32)
        rows = max(1, _CACHED // x.shape[1])
        single = x.dtype in (np.float16, np.float32, jnp.bfloat16) and self.is_single
        mean, scale = self.mean, 1 / self.scale
        if single:
            mean, scale = mean.astype(np.float32), np.float32(scale)
        for begin in range(0, len(x), rows):
            part = x[begin : begin + rows]
            if self.unit:
                part = part.astype(np.float64)  # of int8, -128 has no absolute value
                moved = part / np.max(np.abs(part), axis=1, keepdims=True)
                factor = 1 / np.linalg.norm(moved, axis=1, keepdims=True)
            else:
                moved, factor = np.subtract(part, mean, dtype=mean.dtype), scale
            np.multiply(moved, factor, out=out[begin : begin + rows], casting="same_kind")
        return out

    def rounded(self) -> "Normalizer":
        """Returns one as good that is faster for float32 rows: any point near the mean will do."""
        with np.errstate(over="ignore"):
            mean = self.mean.astype(np.float32).astype(np.float64)
        return replace(self, mean=mean) if np.isfinite(mean).all() else self

    @cached_property
    def is_single(self) -> bool:
        """Whether float32 holds the mean, and differences from it, to the last bit."""
        within = 2.0**-100 < self.scale < 2.0**100 and np.abs(self.mean).max() < 2.0**100
        return within and np.array_equal(self.mean, self.mean.astype(np.float32))

    def inverse_transform(self, x: np.ndarray) -> np.ndarray:
        """Returns normalized points ``[k, d]`` as they were before, float32."""
        points = np.asarray(x, np.float64) * self.scale + self.mean
        # The mean of numbers that float32 holds is one: beyond it there is rounding alone.
        return np.clip(points, -LARGEST, LARGEST).astype(np.float32)

    def inverse_transform_squared(self, squared: np.ndarray) -> np.ndarray:
        """Returns squared distances ``[n]`` of normalized points as they were before, float32."""
        with np.errstate(over="ignore"):  # beyond float32 a squared distance is infinite
            return (np.asarray(squared, np.float64) * self.scale**2).astype(np.float32)


def fit_normalizer(
    x: RowsLike, name: str = "x", devices: Devices = ONE_DEVICE, metric: Metric = "euclidean"
) -> Normalizer:
    """Returns the normalizer of the rows ``[n, d]``, and checks them, in one pass.

    Args:
        x: the rows.
        name: what an error calls them.
        devices: whose processes read a part each, with the same result to the last bit.
        metric: ``"euclidean"``, or ``"cosine"`` for rows of length 1.

    Raises:
        ValueError: ``x`` is not a matrix of at least one number, or has rows with a NaN, an
            infinity, numbers that float32 cannot hold, or (for ``"cosine"``) no direction; how
            many there are, and the first few.
    """
    checked_shape(x, name)
    unit, step = metric == "cosine", max(1, _CACHED // x.shape[1])

    def moments(begins: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = np.empty((len(begins), 3, x.shape[1]))
        found[:] = np.array([0, np.inf, -np.inf])[None, :, None]
        faults = []
        for first, (total, low, high) in zip(begins, found, strict=True):
            for begin in range(first, min(first + _CHUNK, len(x)), step):
                part = np.asarray(x[begin : min(begin + step, first + _CHUNK)], np.float64)
                least, most = part.min(axis=0), part.max(axis=0)
                within = least.min() >= -LARGEST and most.max() <= LARGEST  # a NaN is not
                if not within or (unit and not part.any(axis=1).all()):
                    rows = range(begin, begin + len(part))
                    faults.append(faults_of(part, rows, beyond=not unit, zeros=unit))
                    continue
                total += part.sum(axis=0)
                np.minimum(low, least, out=low)
                np.maximum(high, most, out=high)
        return found, joined(faults)[None], np.array([len(x)])

    found, faults, seen = share(range(0, len(x), _CHUNK), moments, devices)
    if len(set(seen.tolist())) > 1:
        raise InputError(f"{name} is not the same in all processes: {seen.tolist()} rows")
    refuse(faults, name)
    if metric == "cosine":
        return Normalizer(np.zeros(x.shape[1]), 1.0, unit=True)
    total = np.zeros(x.shape[1])
    for part in found[:, 0]:  # one after another, however many processes there are
        total += part
    low, high = found[:, 1].min(axis=0), found[:, 2].max(axis=0)
    mean = np.clip(total / len(x), low, high)  # rounding must not shift a constant column
    reach = float(np.max(np.maximum(high - mean, mean - low)))
    # The reciprocal of a smaller power would be infinite.
    return Normalizer(mean, float(2.0 ** max(np.ceil(np.log2(reach)), -1000)) if reach > 0 else 1.0)


def checked_shape(x: RowsLike, name: str) -> None:
    """Refuses what is not a numeric matrix with rows and columns, by its name."""
    if len(x.shape) != 2:
        raise InputError(f"{name} must have two axes [n, d], not shape {x.shape}")
    if not is_real(x.dtype):
        raise InputError(f"{name} must hold real numbers, not {x.dtype}")
    if 0 in x.shape:
        raise InputError(f"{name} is empty: shape {x.shape}")
