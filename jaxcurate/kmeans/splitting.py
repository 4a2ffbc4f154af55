"""Splits: many small k-means at once, batched in padded buckets."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.kmeans.lloyd import lloyd
from jaxcurate.kmeans.normalize import fit_normalizer
from jaxcurate.kmeans.row_stream import stream_within
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.kmeans.seeding.plus_plus import greedy_kmeans_plus_plus
from jaxcurate.kmeans.streaming import iterate_chunks, seed_chunks
from jaxcurate.runtime.devices import ONE_DEVICE, Devices
from jaxcurate.runtime.sharing import share

_SMALLEST_BUCKET = 16
_BATCH_ROWS = 2**16


class _Batch(NamedTuple):
    """Clusters of like size that are split side by side."""

    clusters: np.ndarray
    """int ``[b]``."""
    width: int
    """Number of rows that each of them is padded to."""
    padding: int
    """Number of empty clusters that fill the batch up, so that all of one width share a shape."""


def split_clusters(
    x: RowView,
    labels: np.ndarray,
    n_splits: int,
    key: jax.Array,
    max_iter: int,
    devices: Devices = ONE_DEVICE,
    *,
    unit: bool = False,
    memory_limit: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits every cluster by a k-means among its own rows.

    Clusters of like size share a bucket, padded to a power of two, and run side by side under
    vmap. A cluster of at most ``n_splits`` rows becomes one cluster for each row.

    Args:
        x: float32 ``[n, d]``, normalized; read a batch of clusters at a time.
        labels: int32 ``[n]``.
        n_splits: parts to a cluster.
        key: a jax random key.
        max_iter: Lloyd's iterations at most.
        devices: whose processes split a part of the clusters each, on one device.
        unit: spherical k-means.
        memory_limit: bytes that a batch may take; a cluster that takes more streams.

    Returns:
        Centroids float32 ``[k, d]``, labels int32 ``[n]`` and squared distances float32 ``[n]``
        to the own centroid. The parts of a cluster stand together, in the order of ``labels``.
    """
    n, d = x.shape
    room = np.inf if memory_limit is None else memory_limit // _bytes_a_row(d, n_splits)
    at_once = int(min(_BATCH_ROWS, max(_SMALLEST_BUCKET, room)))
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    n_parts = np.minimum(counts, n_splits)
    first_part = np.cumsum(n_parts) - n_parts
    centroids = np.empty((int(n_parts.sum()), d), np.float32)
    new_labels = np.empty(n, np.int32)
    # Where there are no more rows than parts every row is a cluster.
    alone = np.flatnonzero(np.repeat(counts <= n_splits, counts))
    for begin in range(0, len(alone), at_once):
        places = alone[begin : begin + at_once]
        rows = order[places]
        new_labels[rows] = first_part[labels[rows]] + places - starts[labels[rows]]
        centroids[new_labels[rows]] = x[rows]

    def rows_of(batch: _Batch) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows of the clusters, one cluster after another, and where ``[b, width]``
        they go."""
        slots = np.arange(batch.width)[None, :]
        real = slots < counts[batch.clusters][:, None]
        return order[(starts[batch.clusters][:, None] + slots)[real]], real

    def split(batches: Sequence[_Batch]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the centroids of the parts, and the part of each row among those of its
        cluster."""
        found = [np.empty((0, n_splits, d), np.float32)], [np.empty(0, np.int32)]
        for batch in batches:
            rows, real = rows_of(batch)
            if memory_limit is not None and batch.width > room:
                own_key = jax.random.fold_in(key, batch.clusters[0])
                parts, own = _fit_streamed(
                    x.select(rows), n_splits, own_key, max_iter, memory_limit, unit
                )
                found[0].append(parts[None])
                found[1].append(own)
                continue
            weights = np.pad(real.astype(np.float32), ((0, batch.padding), (0, 0)))
            xs = np.zeros((*weights.shape, d), np.float32)
            by = np.argsort(rows)  # a file is read from its beginning to its end
            xs.reshape(-1, d)[np.flatnonzero(real)[by]] = x[rows[by]]
            ids = jnp.asarray(np.pad(batch.clusters, (0, batch.padding)))
            parts, own = _fit_batch(
                xs, weights, ids, key, n_splits=n_splits, max_iter=max_iter, unit=unit
            )
            found[0].append(np.asarray(parts)[: len(real)])
            found[1].append(np.asarray(own)[: len(real)][real])
        return np.concatenate(found[0]), np.concatenate(found[1])

    batches = list(_batches(counts, n_splits, at_once))
    parts, own = share(batches, split, devices)
    for batch in batches:
        first = first_part[batch.clusters][:, None]
        rows, real = rows_of(batch)
        centroids[first + np.arange(n_splits)[None, :]] = parts[: len(real)]
        new_labels[rows] = np.broadcast_to(first, real.shape)[real] + own[: len(rows)]
        parts, own = parts[len(real) :], own[len(rows) :]

    def measured(begins: Sequence[int]) -> tuple[np.ndarray]:
        found = [np.empty(0, np.float32)]
        for begin in begins:
            part = slice(begin, begin + at_once)
            found.append(np.sum((x[part] - centroids[new_labels[part]]) ** 2, axis=1))
        return (np.concatenate(found),)

    (distances,) = share(range(0, n, at_once), measured, devices)
    return centroids, new_labels, distances


def _bytes_a_row(d: int, n_splits: int) -> int:
    """Returns what a row of a batch takes: itself and the parts' centroids some times, and its
    scores."""
    return 4 * (12 * d + 4 * n_splits)


def _batches(counts: np.ndarray, n_splits: int, at_once: int) -> Iterator[_Batch]:
    """Yields the clusters that have more rows than parts, in batches of one width."""
    large = np.flatnonzero(counts > n_splits)
    widths = np.maximum(2 ** np.ceil(np.log2(counts[large])).astype(int), _SMALLEST_BUCKET)
    for width in np.unique(widths).tolist():
        bucket = large[widths == width]
        size = max(1, at_once // width)
        for begin in range(0, len(bucket), size):
            clusters = bucket[begin : begin + size]
            yield _Batch(clusters, width, min(size, len(bucket)) - len(clusters))


def _fit_streamed(
    x: RowView, n_splits: int, key: jax.Array, max_iter: int, memory_limit: int, unit: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns centroids ``[n_splits, d]`` and labels ``[m]`` of one cluster's rows, read in
    chunks."""
    normalizer = fit_normalizer(x, metric="cosine" if unit else "euclidean").rounded()
    chunks = stream_within(RowView(x, normalizer=normalizer), ONE_DEVICE, memory_limit, n_splits)
    start = seed_chunks(chunks, n_splits, key)
    found = iterate_chunks(chunks, start, n_splits, max_iter, unit=unit)
    return normalizer.inverse_transform(found.centroids), found.labels


@functools.partial(jax.jit, static_argnames=("n_splits", "max_iter", "unit"))
def _fit_batch(
    xs: jax.Array,
    weights: jax.Array,
    clusters: jax.Array,
    key: jax.Array,
    *,
    n_splits: int,
    max_iter: int,
    unit: bool,
) -> tuple[jax.Array, jax.Array]:
    """Returns centroids ``[b, n_splits, d]`` and labels ``[b, m]`` of clusters ``[b, m, d]``."""
    width = xs.shape[1]

    def one(x: jax.Array, w: jax.Array, cluster: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Distances between a cluster's rows are small beside their distance from the center of
        # the data: their own center keeps the digits.
        center = jnp.sum(x * w[:, None], axis=0) / jnp.maximum(jnp.sum(w), 1)
        center = jnp.zeros_like(center) if unit else center
        x = (x - center[None, :]) * w[:, None]
        start = greedy_kmeans_plus_plus(
            x,
            w,
            jax.random.fold_in(key, cluster),
            n_clusters=n_splits,
            block=min(width, 256),
            axis_name=None,
            plain=True,
        )
        state = lloyd(
            x,
            w,
            start,
            max_iter=max_iter,
            block=min(width, 256),
            axis_name=None,
            plain=True,
            unit=unit,
        )
        return state.centroids + center[None, :], state.best.labels

    return jax.vmap(one)(xs, weights, clusters)
