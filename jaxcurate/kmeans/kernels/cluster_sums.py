"""Sums of the rows of each cluster, by the method that fits the backend.

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
"""Largest number of clusters for which products with one-hot labels of all rows are cheap."""
_BLOCK = 1024
"""Number of rows in a block, in the order of their labels."""
_AT_ONCE = 4096
"""Largest number of rows that are gathered at a time on a CPU; of few rows, a sixteenth."""
_RUN = 1024
"""Number of rows of a cluster after which its running sum is added to the total."""
Run = tuple[jax.Array, jax.Array, jax.Array]
"""Number of finished blocks, and running sums and counts that the total does not have yet."""


class Total(NamedTuple):
    """Sums in two parts: ``high``, and ``low`` with the digits that rounding took from it."""

    high: jax.Array
    low: jax.Array

    def plus(self, more: jax.Array) -> "Total":
        """Returns the sums plus ``more``; digits that ``high`` loses go to ``low``."""
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
        touched: Flags of the clusters to sum, bool ``[k]``; all by default.

    Returns:
        Sums float32 ``[k, d]`` and counts int32 ``[k]``. Equal arguments are added up in the same
        order.
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
    """Returns counts ``[k]`` as int32 ``[2, k]``, whose sum over devices cannot overflow."""
    return jnp.stack([counts >> 16, counts & 0xFFFF])


def whole(halves: jax.Array) -> jax.Array:
    """Returns the counts, float32 ``[k]``, from a sum of :func:`halves`."""
    return halves[0].astype(jnp.float32) * 2.0**16 + halves[1].astype(jnp.float32)


def over_devices(
    sums: jax.Array, counts: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Adds up the sums and counts of all devices; counts become float32."""
    sums, counts = collectives.psum((sums, halves(counts)), axis_name)
    return sums, whole(counts)


def by_segments(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns sums and counts of all rows, scattered at once if the rows are few."""
    if len(x) > _RUN:
        return by_gathered_segments(x, weights, labels, centroids)
    zeros = jnp.zeros_like(centroids)
    sums = _scattered(zeros, x, weights > 0, labels, centroids, lanes=1)
    return sums, jnp.zeros(len(centroids), jnp.int32).at[labels].add(weights > 0)


def by_gathered_segments(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns sums and counts of rows that are gathered in blocks and scattered to running sums.

    Running sums are added to the total before they lose digits, when a cluster has many rows. With
    many clusters this is rare.
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
    """Returns the number of running sums of each of ``k`` clusters in a block, a power of two.

    Few clusters get many sums, so that each adds up few rows. All sums together take less memory
    than the rows.
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
    """Returns the sums ``[lanes k, d]`` plus a block; each lane takes successive rows."""
    block, k = len(rows), len(centroids)
    differences = jnp.where(real[:, None], rows - centroids.at[own].get(mode="clip"), 0)
    lane = jnp.arange(block, dtype=jnp.int32) * lanes // block
    return sums.at[own + k * lane].add(differences)


def _joined(sums: jax.Array, lanes: int) -> jax.Array:
    """Returns the sums ``[k, d]`` of all lanes, in pairs."""
    sums = jax.lax.optimization_barrier(sums)
    while lanes > 1:
        lanes //= 2
        left, right = jnp.split(sums, 2)
        sums = left + right
    return sums


def _nothing(k: int, d: int, dtype: jnp.dtype) -> tuple[Total, jax.Array]:
    zeros = jnp.zeros((k, d), dtype)
    return Total(zeros, zeros), jnp.zeros(k, jnp.int32)


def by_one_hot(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns sums and counts by products of one-hot labels with the rows, block by block."""
    (n, d), k = x.shape, len(centroids)
    block = min(_BLOCK, n)

    def add(
        carry: tuple[Total, jax.Array], inputs: tuple[jax.Array, ...]
    ) -> tuple[tuple[Total, jax.Array], None]:
        rows, real, own = inputs
        differences = rows - centroids.at[own].get(mode="clip")
        one_hot = jax.nn.one_hot(own, k, dtype=bool) & real[:, None]
        sums = jnp.dot(one_hot.T.astype(x.dtype), differences, precision=HIGHEST)
        return (carry[0].plus(sums), carry[1] + jnp.sum(one_hot, axis=0, dtype=jnp.int32)), None

    fill = -n % block
    parts = (
        jnp.pad(x, ((0, fill), (0, 0))).reshape(-1, block, d),
        jnp.pad(weights > 0, (0, fill)).reshape(-1, block),
        jnp.pad(labels, (0, fill)).reshape(-1, block),
    )
    (total, counts), _ = jax.lax.scan(add, _nothing(k, d, x.dtype), parts)
    return total.high + total.low, counts


def by_windows(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns sums and counts by small matrix products of sorted rows with windows of clusters.

    Rows are sorted by label. Each turn takes the next rows whose labels lie in the window that
    begins at the first label, and adds them to the sums of that window, which are contiguous.
    There are at most ``n / block + k / window`` turns.
    """
    k, d = centroids.shape
    own = jnp.where(weights > 0, labels, k)
    order = jnp.argsort(own, stable=True).astype(jnp.int32)
    own = jnp.pad(own[order], (0, _BLOCK), constant_values=k)
    order = jnp.pad(order, (0, _BLOCK))
    centroids = jnp.pad(centroids, ((0, _FEW), (0, 0)))
    within = jnp.arange(_FEW, dtype=jnp.int32)

    def turn(state: tuple[jax.Array, Total, jax.Array]) -> tuple[jax.Array, Total, jax.Array]:
        begin, total, counts = state
        rows = jax.lax.dynamic_slice(order, (begin,), (_BLOCK,))
        local = jax.lax.dynamic_slice(own, (begin,), (_BLOCK,))
        first = local[0]
        inside = (local < k) & (local - first < _FEW)
        local = jnp.where(inside, local - first, _FEW)  # _FEW has no place in the one-hot product
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
        return begin + jnp.sum(inside, dtype=jnp.int32), total, counts

    def unfinished(state: tuple[jax.Array, Total, jax.Array]) -> jax.Array:
        return own[state[0]] < k

    begin = jnp.int32(0), *_nothing(k + _FEW, d, x.dtype)
    _, total, counts = jax.lax.while_loop(unfinished, turn, begin)
    return (total.high + total.low)[:k], counts[:k]
