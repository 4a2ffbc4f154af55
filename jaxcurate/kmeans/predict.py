"""Rows that took no part in a fit: assigned to its centroids a chunk at a time."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.kmeans.lloyd import assigned
from jaxcurate.kmeans.row_stream import RowStream, stream_rows
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.runtime.devices import ROWS, SAME, Devices, fetch

_CHUNK_BYTES = 2**26
_LEAST = 256
"""Rows that a device gets at a time at least."""


def chunked(x: RowView, devices: Devices, memory_limit: int | None = None) -> RowStream:
    """Returns rows ``[n, d]`` in chunks of some tens of megabytes, or fewer where there are fewer.

    Args:
        x: normalized rows.
        devices: the devices to use.
        memory_limit: bytes that the few chunks which are alive at a time may take together.
    """
    shards = devices.count
    n_bytes = _CHUNK_BYTES if memory_limit is None else min(_CHUNK_BYTES, memory_limit // 4)
    fitting = n_bytes // (4 * x.shape[1]) // shards
    return stream_rows(x, devices, max(_LEAST, min(fitting, -(-len(x) // shards))))


def assign_to_parts(
    chunks: RowStream,
    centroids: np.ndarray,
    n_parts: np.ndarray,
    parts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest cluster that has parts, and the nearest of these, for every row.

    Args:
        chunks: the rows, from :func:`chunked`.
        centroids: float32 ``[k, d]``, of the clusters before their split, normalized as the rows.
        n_parts: int ``[k]``, in how many parts each was split; 0 for one that was empty.
        parts: float32 ``[sum(n_parts), d]``, the parts' centroids, cluster after cluster.

    Returns:
        Labels int32 ``[n]`` among the parts, and squared distances float32 ``[n]``, of normalized
        rows.
    """
    centroids, n_parts = centroids[n_parts > 0], n_parts[n_parts > 0]
    first = np.cumsum(n_parts) - n_parts
    kernel = chunks.devices.spmd(
        _nearest_part,
        (ROWS, SAME, SAME, SAME, SAME),
        (ROWS, ROWS),
        most=int(n_parts.max()),
        block=chunks.block,
    )
    labels = np.empty(len(chunks.x), np.int32)
    distances = np.empty(len(chunks.x), np.float32)
    for part, rows in chunks:
        own, squared = kernel(
            rows.x, centroids, first.astype(np.int32), n_parts.astype(np.int32), parts
        )
        labels[part] = fetch(own)[: rows.n]
        distances[part] = fetch(squared)[: rows.n]
    return labels, distances


def _nearest_part(
    x: jax.Array,
    centroids: jax.Array,
    first: jax.Array,
    n_parts: jax.Array,
    parts: jax.Array,
    *,
    most: int,
    block: int,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array]:
    """Works as :func:`assign_to_parts` for the rows ``[n, d]`` of one device."""
    clusters, _ = assigned(x, centroids, block=block, axis_name=axis_name)

    def one_block(given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rows, own = given
        # A cluster of few parts names its last one again, which changes nothing.
        within = jnp.minimum(jnp.arange(most, dtype=jnp.int32)[None, :], n_parts[own][:, None] - 1)
        candidates = first[own][:, None] + within
        squared = jnp.sum((rows[:, None, :] - parts[candidates]) ** 2, axis=2)
        best = jnp.argmin(squared, axis=1)[:, None]
        take = lambda of: jnp.take_along_axis(of, best, axis=1)[:, 0]
        return take(candidates), take(squared)

    blocks = x.reshape(-1, block, x.shape[1]), clusters.reshape(-1, block)
    labels, distances = jax.lax.map(one_block, blocks)
    return labels.reshape(-1), distances.reshape(-1)
