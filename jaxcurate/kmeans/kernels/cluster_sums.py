"""Cluster sums: what the rows of each cluster add up to, by the way that fits the backend.

A float32 that everything is added to one by one loses the digits of each addend as it grows, and
counts no further than 2**24. So rows are added up in short runs, the runs with a second float32
that keeps what the first one rounds off, and counts are whole numbers. What XLA could merge into
one long run (it folds ``a + scatter(0, b)`` into ``scatter(a, b)``) stands behind a barrier.

References:
    Knuth, The Art of Computer Programming, volume 2, section 4.2.2 (the exact sum of two).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcurate.kmeans.kernels.compact import flagged
from jaxcurate.kmeans.kernels.scores import HIGHEST
from jaxcurate.runtime import collectives

_FEW = 256
"""Clusters for which a product with one-hot labels of all rows is cheap."""
_PIECE = 1024
"""Rows at a time, in the order of their labels."""
_AT_ONCE = 4096
"""Rows at most that are gathered at a time on a CPU, of few rows a sixteenth."""
_RUN = 1024
"""Rows of one cluster after which a running sum is put away."""
Run = tuple[jax.Array, jax.Array, jax.Array]
"""Number of blocks that are done, and the running sums and counts since the last were put away."""


class Total(NamedTuple):
    """Sums in two parts: ``high`` as float32 holds them, and what was rounded off on the way."""

    high: jax.Array
    low: jax.Array

    def plus(self, more: jax.Array) -> "Total":
        """Returns the sums with an addend; what rounding takes from ``high`` is added to
        ``low``."""
        high = self.high + more
        back = high - self.high
        return Total(high, self.low + ((self.high - (high - back)) + (more - back)))


def sums_of_differences(
    x: jax.Array,
    weights: jax.Array,
    labels: jax.Array,
    centroids: jax.Array,
    touched: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Sums the rows' differences from their centroids, and counts the rows, by cluster.

    Differences from a centroid close to the mean are small and nearly cancel, so that their
    float32 sum keeps digits that the sum of a large cluster's rows would lose.

    Args:
        x: float32 ``[n, d]``.
        weights: float32 ``[n]``; rows of weight 0 are left out, all others count as one.
        labels: int32 ``[n]``; below 0 for none.
        centroids: float32 ``[k, d]``.
        touched: bool ``[k]``, the clusters that are wanted; all by default.

    Returns:
        Sums float32 ``[k, d]`` and counts int32 ``[k]``, in the same order of addition
        whenever the arguments are the same.
    """
    wanted = (weights > 0) & (labels >= 0)
    if touched is not None:
        wanted &= touched[labels]
    weights = jnp.where(wanted, weights, 0)
    # XLA's scatter is good on CPUs, slow on TPUs, and in some releases a compare-and-swap loop
    # on GPUs; matrix products are what their units are for.
    on_cpu = by_segments if touched is None else by_gathered_segments
    elsewhere = by_one_hot if len(centroids) <= _FEW else by_windows
    return jax.lax.platform_dependent(x, weights, labels, centroids, cpu=on_cpu, default=elsewhere)


def halves(counts: jax.Array) -> jax.Array:
    """Counts int32 ``[k]`` as int32 ``[2, k]``, which add up over any number of devices."""
    return jnp.stack([counts >> 16, counts & 0xFFFF])


def whole(halves: jax.Array) -> jax.Array:
    """Returns the way back from a sum of :func:`halves`, float32 ``[k]``."""
    return halves[0].astype(jnp.float32) * 2.0**16 + halves[1].astype(jnp.float32)


def over_devices(
    sums: jax.Array, counts: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Adds up what :func:`sums_of_differences` gives on each device; counts become float32."""
    sums, counts = collectives.psum((sums, halves(counts)), axis_name)
    return sums, whole(counts)


def by_segments(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns all rows are scattered to their sums at once, if they are few."""
    if len(x) > _RUN:
        return by_gathered_segments(x, weights, labels, centroids)
    zeros = jnp.zeros_like(centroids)
    sums = _scattered(zeros, x, weights > 0, labels, centroids, lanes=1)
    return sums, jnp.zeros(len(centroids), jnp.int32).at[labels].add(weights > 0)


def by_gathered_segments(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns wanted rows are gathered in blocks and scattered to running sums.

    These are put away when a cluster has got so many rows that they begin to lose digits: seldom
    where clusters are many.
    """
    (n, d), k = x.shape, len(centroids)
    block = min(_AT_ONCE, max(1, n // 16))
    lanes = _lanes(k, block)
    numbers = jnp.concatenate([flagged(weights > 0), jnp.full(-n % block, n, jnp.int32)])
    n_blocks = -(-jnp.sum(weights > 0, dtype=jnp.int32) // block)

    def one_block(run: Run) -> Run:
        i, sums, counts = run
        rows = jax.lax.dynamic_slice(numbers, (i * block,), (block,))
        real = rows < n
        own = labels.at[rows].get(mode="clip")
        sums = _scattered(sums, x.at[rows].get(mode="clip"), real, own, centroids, lanes)
        return i + 1, sums, counts.at[own].add(real)

    def short(run: Run) -> jax.Array:
        return (run[0] < n_blocks) & (jnp.max(run[2]) <= _RUN)

    def one_run(state: tuple[jax.Array, Total, jax.Array]) -> tuple[jax.Array, Total, jax.Array]:
        i, total, counts = state
        begin = i, jnp.zeros((lanes * k, d), x.dtype), jnp.zeros(k, jnp.int32)
        run = jax.lax.while_loop(short, one_block, begin) if lanes == 1 else one_block(begin)
        return run[0], total.plus(_joined(run[1], lanes)), counts + run[2]

    begin = jnp.int32(0), *_nothing(k, d, x.dtype)
    _, total, counts = jax.lax.while_loop(lambda state: state[0] < n_blocks, one_run, begin)
    return total.high + total.low, counts


def _lanes(k: int, block: int) -> int:
    """Returns how many running sums each of ``k`` clusters has in a block of rows, a power of two.

    Of few clusters many, so that a run is short; all of them together take less than the rows.
    """
    return 1 << (max(1, block // max(16, 4 * k)).bit_length() - 1)


def _scattered(
    sums: jax.Array,
    rows: jax.Array,
    real: jax.Array,
    own: jax.Array,
    centroids: jax.Array,
    lanes: int,
) -> jax.Array:
    """Returns the sums ``[lanes k, d]`` with a block's differences; each lane takes rows in
    succession."""
    block, k = len(rows), len(centroids)
    differences = jnp.where(real[:, None], rows - centroids.at[own].get(mode="clip"), 0)
    lane = jnp.arange(block, dtype=jnp.int32) * lanes // block
    return sums.at[own + k * lane].add(differences)


def _joined(sums: jax.Array, lanes: int) -> jax.Array:
    """Returns the sums ``[k, d]`` of all lanes, in pairs."""
    sums = jax.lax.optimization_barrier(sums)
    while lanes > 1:
        lanes //= 2
        one, other = jnp.split(sums, 2)
        sums = one + other
    return sums


def _nothing(k: int, d: int, dtype: jnp.dtype) -> tuple[Total, jax.Array]:
    zeros = jnp.zeros((k, d), dtype)
    return Total(zeros, zeros), jnp.zeros(k, jnp.int32)


def by_one_hot(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns a product of the one-hot labels with the rows, a piece at a time."""
    (n, d), k = x.shape, len(centroids)
    piece = min(_PIECE, n)

    def add(
        carry: tuple[Total, jax.Array], part: tuple[jax.Array, ...]
    ) -> tuple[tuple[Total, jax.Array], None]:
        rows, real, own = part
        differences = rows - centroids.at[own].get(mode="clip")
        one_hot = jax.nn.one_hot(own, k, dtype=bool) & real[:, None]
        sums = jnp.dot(one_hot.T.astype(x.dtype), differences, precision=HIGHEST)
        return (carry[0].plus(sums), carry[1] + jnp.sum(one_hot, axis=0, dtype=jnp.int32)), None

    fill = -n % piece
    parts = (
        jnp.pad(x, ((0, fill), (0, 0))).reshape(-1, piece, d),
        jnp.pad(weights > 0, (0, fill)).reshape(-1, piece),
        jnp.pad(labels, (0, fill)).reshape(-1, piece),
    )
    (total, counts), _ = jax.lax.scan(add, _nothing(k, d, x.dtype), parts)
    return total.high + total.low, counts


def by_windows(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns rows in the order of their labels meet windows of clusters in small matrix products.

    Each turn takes the next rows in order, those of them whose labels fall in the window that
    begins with the first label, and adds to the sums of that window, which stand side by side.
    There are at most ``n / piece + k / window`` turns.
    """
    k, d = centroids.shape
    own = jnp.where(weights > 0, labels, k)
    order = jnp.argsort(own, stable=True).astype(jnp.int32)
    own = jnp.pad(own[order], (0, _PIECE), constant_values=k)
    order = jnp.pad(order, (0, _PIECE))
    centroids = jnp.pad(centroids, ((0, _FEW), (0, 0)))
    within = jnp.arange(_FEW, dtype=jnp.int32)

    def turn(state: tuple[jax.Array, Total, jax.Array]) -> tuple[jax.Array, Total, jax.Array]:
        begin, total, counts = state
        rows = jax.lax.dynamic_slice(order, (begin,), (_PIECE,))
        local = jax.lax.dynamic_slice(own, (begin,), (_PIECE,))
        first = local[0]
        here = (local < k) & (local - first < _FEW)
        local = jnp.where(here, local - first, _FEW)  # _FEW has no place in the one-hot product
        window = jax.lax.dynamic_slice(centroids, (first, 0), (_FEW, d))
        differences = x[rows] - window.at[local].get(mode="clip")
        one_hot = local[:, None] == within[None, :]
        part = jnp.dot(one_hot.T.astype(x.dtype), differences, precision=HIGHEST)
        old = (jax.lax.dynamic_slice(sums, (first, 0), (_FEW, d)) for sums in total)
        total = Total(
            *(
                jax.lax.dynamic_update_slice(sums, new, (first, 0))
                for sums, new in zip(total, Total(*old).plus(part), strict=True)
            )
        )
        more = jax.lax.dynamic_slice(counts, (first,), (_FEW,))
        more += jnp.sum(one_hot, axis=0, dtype=jnp.int32)
        counts = jax.lax.dynamic_update_slice(counts, more, (first,))
        return begin + jnp.sum(here, dtype=jnp.int32), total, counts

    def unfinished(state: tuple[jax.Array, Total, jax.Array]) -> jax.Array:
        return own[state[0]] < k

    begin = jnp.int32(0), *_nothing(k + _FEW, d, x.dtype)
    _, total, counts = jax.lax.while_loop(unfinished, turn, begin)
    return (total.high + total.low)[:k], counts[:k]
