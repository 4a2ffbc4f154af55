"""Assignment of rows that took no part in a fit to its centroids, chunk by chunk."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.kmeans.lloyd import assigned
from jaxcurate.kmeans.row_stream import RowStream, stream_rows
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.runtime.devices import ROWS, SAME, Devices, fetch

_CHUNK_BYTES = 2**26
_LEAST = 256
"""Smallest number of rows of a device in a chunk."""


def chunked(x: RowView, devices: Devices, memory_limit: int | None = None) -> RowStream:
    """Returns rows in chunks of at most 64 MiB, or less if ``memory_limit`` asks for it.

    Args:
        x: Normalized rows ``[n, d]``.
        devices: Devices that each chunk is split over.
        memory_limit: Bytes that the four chunks which are held at a time may take together.
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
    """Assigns each row to its nearest split cluster, and there to the nearest part of it.

    Args:
        chunks: Rows from :func:`chunked`.
        centroids: Centroids of the clusters before the split, float32 ``[k, d]``, normalized as
            the rows are.
        n_parts: Number of parts of each cluster, int ``[k]``; 0 for an empty cluster.
        parts: Centroids of the parts, cluster after cluster, float32 ``[sum(n_parts), d]``.

    Returns:
        Labels int32 ``[n]`` among the parts, and squared distances float32 ``[n]`` of the
        normalized rows.
    """
    centroids, n_parts = centroids[n_parts > 0], n_parts[n_parts > 0]
    first = np.cumsum(n_parts) - n_parts
    kernel = chunks.spmd(
        _nearest_part,
        len(parts),
        (ROWS, SAME, SAME, SAME, SAME),
        (ROWS, ROWS),
        most=int(n_parts.max()),
    )
    labels = np.empty(len(chunks.x), np.int32)
    distances = np.empty(len(chunks.x), np.float32)
    for chunk, rows in chunks:
        nearest, squared = kernel(
            rows.x, centroids, first.astype(np.int32), n_parts.astype(np.int32), parts
        )
        labels[chunk] = fetch(nearest)[: rows.n]
        distances[chunk] = fetch(squared)[: rows.n]
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
    """Returns the result of :func:`assign_to_parts` for the rows ``[n, d]`` of one device."""
    clusters, _ = assigned(x, centroids, block=block, axis_name=axis_name)

    def one_block(given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rows, cluster = given
        # A cluster of fewer parts repeats its last part, which changes no minimum.
        index = jnp.arange(most, dtype=jnp.int32)[None, :]
        candidates = first[cluster][:, None] + jnp.minimum(index, n_parts[cluster][:, None] - 1)
        squared = jnp.sum((rows[:, None, :] - parts[candidates]) ** 2, axis=2)
        best = jnp.argmin(squared, axis=1)[:, None]
        take = lambda values: jnp.take_along_axis(values, best, axis=1)[:, 0]
        return take(candidates), take(squared)

    blocks = x.reshape(-1, block, x.shape[1]), clusters.reshape(-1, block)
    labels, distances = jax.lax.map(one_block, blocks)
    return labels.reshape(-1), distances.reshape(-1)
