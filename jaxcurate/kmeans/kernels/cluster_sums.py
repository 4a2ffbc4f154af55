"""Sums of the rows of each cluster, by the method that fits the backend.

If many rows are added one by one to a float32 sum, the sum grows and each row loses digits; a
float32 count stops at 2**24. Therefore rows are added up in short runs, and the sums of the runs
are added to a total of two float32 numbers, of which the second keeps the digits that the first
loses. Counts are whole numbers. XLA could merge several runs into a long one, since it folds
``a + scatter(0, b)`` into ``scatter(a, b)``; an optimization barrier prevents that.

References:
    Knuth, The Art of Computer Programming, volume 2, section 4.2.2 (exact sum of two numbers).
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
"""Largest number of rows that are gathered at a time on a CPU, and at most 1/16 of all rows."""
_RUN = 1024
"""Number of rows of a cluster after which its running sum is added to the total."""
Run = tuple[jax.Array, jax.Array, jax.Array]
"""Number of finished blocks, and the running sums and counts that are not in the total yet."""


class Total(NamedTuple):
    """Sums of clusters, each in two float32 numbers."""

    high: jax.Array
    """Sums, float32 ``[k, d]``."""
    low: jax.Array
    """Digits that rounding took from ``high``, float32 ``[k, d]``."""

    def plus(self, more: jax.Array) -> "Total":
        """Returns the sums plus ``more``, with the digits that ``high`` loses in ``low``."""
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
    """Returns the sum of the differences of rows from their centroid, and the count, by cluster.

    If the centroid is close to the mean, the differences are small and nearly cancel, so that their
    float32 sum keeps digits that the sum of the rows of a large cluster would lose.

    Args:
        x: float32 ``[n, d]``.
        weights: float32 ``[n]``; rows of weight 0 are left out, and all others have weight 1.
        labels: Cluster of each row, int32 ``[n]``; below 0 for rows without a cluster.
        centroids: float32 ``[k, d]``.
        touched: Flags of the clusters to sum, bool ``[k]``; all by default.

    Returns:
        Sums float32 ``[k, d]`` and counts int32 ``[k]``. The order of the additions depends on
        nothing but the arguments.
    """
    wanted = (weights > 0) & (labels >= 0)
    if touched is not None:
        wanted &= touched[labels]
    weights = jnp.where(wanted, weights, 0)
    # XLA's scatter is fast on CPUs, slow on TPUs, and on GPUs in some releases a loop of
    # compare-and-swap. TPUs and GPUs are fastest at matrix products.
    on_cpu = by_segments if touched is None else by_gathered_segments
    elsewhere = by_one_hot if len(centroids) <= _FEW else by_windows
    return jax.lax.platform_dependent(x, weights, labels, centroids, cpu=on_cpu, default=elsewhere)


def halves(counts: jax.Array) -> jax.Array:
    """Returns the upper and lower 16 bits of counts ``[k]``, int32 ``[2, k]``.

    Their sum over devices cannot overflow.
    """
    return jnp.stack([counts >> 16, counts & 0xFFFF])


def whole(halves: jax.Array) -> jax.Array:
    """Returns the counts, float32 ``[k]``, from the sum of :func:`halves` over devices."""
    return halves[0].astype(jnp.float32) * 2.0**16 + halves[1].astype(jnp.float32)


def over_devices(
    sums: jax.Array, counts: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Returns the sums of all devices, and their counts as float32."""
    sums, counts = collectives.psum((sums, halves(counts)), axis_name)
    return sums, whole(counts)


def by_segments(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns sums and counts of all rows, by a single scatter if there are few rows."""
    if len(x) > _RUN:
        return by_gathered_segments(x, weights, labels, centroids)
    zeros = jnp.zeros_like(centroids)
    sums = _scattered(zeros, x, weights > 0, labels, centroids, lanes=1)
    return sums, jnp.zeros(len(centroids), jnp.int32).at[labels].add(weights > 0)


def by_gathered_segments(
    x: jax.Array, weights: jax.Array, labels: jax.Array, centroids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns sums and counts of rows, gathered in blocks and scattered to running sums.

    Running sums are added to the total once a cluster has many rows in them, before they lose
    digits. With many clusters this is rare.
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
        block_labels = labels.at[rows].get(mode="clip")
        sums = _scattered(sums, x.at[rows].get(mode="clip"), real, block_labels, centroids, lanes)
        return i + 1, sums, counts.at[block_labels].add(real)

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

    The fewer clusters, the more sums for each, so that each sum adds up few rows. All sums together
    take less memory than the rows.
    """
    return 1 << (max(1, block // max(16, 4 * k)).bit_length() - 1)


def _scattered(
    sums: jax.Array,
    rows: jax.Array,
    real: jax.Array,
    labels: jax.Array,
    centroids: jax.Array,
    lanes: int,
) -> jax.Array:
    """Returns the sums ``[lanes k, d]`` plus a block, of which each lane takes successive rows."""
    block, k = len(rows), len(centroids)
    differences = jnp.where(real[:, None], rows - centroids.at[labels].get(mode="clip"), 0)
    lane = jnp.arange(block, dtype=jnp.int32) * lanes // block
    return sums.at[labels + k * lane].add(differences)


def _joined(sums: jax.Array, lanes: int) -> jax.Array:
    """Returns the sums ``[k, d]`` over all lanes, added up in pairs."""
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
        rows, real, block_labels = inputs
        differences = rows - centroids.at[block_labels].get(mode="clip")
        one_hot = jax.nn.one_hot(block_labels, k, dtype=bool) & real[:, None]
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

    Rows are sorted by label. Each turn takes a block of the next rows. A window of clusters begins
    at the first label of the block; rows of the block whose labels lie in the window are added to
    its sums, which are contiguous. There are at most ``n / block + k / window`` turns.
    """
    k, d = centroids.shape
    labels = jnp.where(weights > 0, labels, k)
    order = jnp.argsort(labels, stable=True).astype(jnp.int32)
    sorted_labels = jnp.pad(labels[order], (0, _BLOCK), constant_values=k)
    order = jnp.pad(order, (0, _BLOCK))
    centroids = jnp.pad(centroids, ((0, _FEW), (0, 0)))
    within = jnp.arange(_FEW, dtype=jnp.int32)

    def turn(state: tuple[jax.Array, Total, jax.Array]) -> tuple[jax.Array, Total, jax.Array]:
        begin, total, counts = state
        rows = jax.lax.dynamic_slice(order, (begin,), (_BLOCK,))
        local = jax.lax.dynamic_slice(sorted_labels, (begin,), (_BLOCK,))
        first = local[0]
        inside = (local < k) & (local - first < _FEW)
        local = jnp.where(inside, local - first, _FEW)  # _FEW matches no column of one_hot
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
        return sorted_labels[state[0]] < k

    begin = jnp.int32(0), *_nothing(k + _FEW, d, x.dtype)
    _, total, counts = jax.lax.while_loop(unfinished, turn, begin)
    return (total.high + total.low)[:k], counts[:k]
