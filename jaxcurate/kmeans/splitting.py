"""Splits of clusters: many small k-means at once, in stacks of clusters of similar size."""

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

_SMALLEST_WIDTH = 16
_STACK_ROWS = 2**16


class _Stack(NamedTuple):
    """Clusters of similar size that are split at once."""

    clusters: np.ndarray
    """Cluster numbers, int ``[b]``."""
    width: int
    """Number of rows that each cluster is padded to."""
    padding: int
    """Number of empty clusters to add, so that all stacks of this width have the same shape."""


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
    """Splits each cluster by a k-means of its own rows.

    Clusters of similar size are padded to the same power of two and fitted at once under vmap. A
    cluster of at most ``n_splits`` rows becomes one cluster for each row.

    Args:
        x: Normalized rows, float32 ``[n, d]``, read for a stack of clusters at a time.
        labels: Cluster of each row, int32 ``[n]``.
        n_splits: Number of parts of a cluster.
        key: Random key of jax.
        max_iter: Largest number of Lloyd's iterations.
        devices: Devices whose processes share the clusters; each process uses one device.
        unit: True for spherical k-means.
        memory_limit: Bytes that a stack may take; a larger cluster is read in chunks.

    Returns:
        Centroids float32 ``[k, d]``, labels int32 ``[n]`` and squared distances float32 ``[n]``
        of the rows to their centroids. The parts of a cluster are contiguous, and clusters keep
        their order.
    """
    n, d = x.shape
    room = np.inf if memory_limit is None else memory_limit // _bytes_a_row(d, n_splits)
    at_once = int(min(_STACK_ROWS, max(_SMALLEST_WIDTH, room)))
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    n_parts = np.minimum(counts, n_splits)
    first_part = np.cumsum(n_parts) - n_parts
    centroids = np.empty((int(n_parts.sum()), d), np.float32)
    new_labels = np.empty(n, np.int32)
    # In clusters with no more rows than parts, each row becomes a cluster.
    alone = np.flatnonzero(np.repeat(counts <= n_splits, counts))
    for begin in range(0, len(alone), at_once):
        places = alone[begin : begin + at_once]
        rows = order[places]
        new_labels[rows] = first_part[labels[rows]] + places - starts[labels[rows]]
        centroids[new_labels[rows]] = x[rows]

    def rows_of(stack: _Stack) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows, cluster after cluster, and flags ``[b, width]`` of their places."""
        slots = np.arange(stack.width)[None, :]
        real = slots < counts[stack.clusters][:, None]
        return order[(starts[stack.clusters][:, None] + slots)[real]], real

    def split(stacks: Sequence[_Stack]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the centroids of the parts, and the part of each row within its cluster."""
        found = [np.empty((0, n_splits, d), np.float32)], [np.empty(0, np.int32)]
        for stack in stacks:
            rows, real = rows_of(stack)
            if memory_limit is not None and stack.width > room:
                own_key = jax.random.fold_in(key, stack.clusters[0])
                parts, own = _fit_streamed(
                    x.select(rows), n_splits, own_key, max_iter, memory_limit, unit
                )
                found[0].append(parts[None])
                found[1].append(own)
                continue
            weights = np.pad(real.astype(np.float32), ((0, stack.padding), (0, 0)))
            xs = np.zeros((*weights.shape, d), np.float32)
            by = np.argsort(rows)  # reads a file from its beginning to its end
            xs.reshape(-1, d)[np.flatnonzero(real)[by]] = x[rows[by]]
            ids = jnp.asarray(np.pad(stack.clusters, (0, stack.padding)))
            parts, own = _fit_stack(
                xs, weights, ids, key, n_splits=n_splits, max_iter=max_iter, unit=unit
            )
            found[0].append(np.asarray(parts)[: len(real)])
            found[1].append(np.asarray(own)[: len(real)][real])
        return np.concatenate(found[0]), np.concatenate(found[1])

    stacks = list(_stacks(counts, n_splits, at_once))
    parts, own = share(stacks, split, devices)
    for stack in stacks:
        first = first_part[stack.clusters][:, None]
        rows, real = rows_of(stack)
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
    """Returns the bytes for a row of a stack: copies of it and of centroids, and scores."""
    return 4 * (12 * d + 4 * n_splits)


def _stacks(counts: np.ndarray, n_splits: int, at_once: int) -> Iterator[_Stack]:
    """Yields stacks of the clusters that have more rows than parts."""
    large = np.flatnonzero(counts > n_splits)
    widths = np.maximum(2 ** np.ceil(np.log2(counts[large])).astype(int), _SMALLEST_WIDTH)
    for width in np.unique(widths).tolist():
        alike = large[widths == width]
        size = max(1, at_once // width)
        for begin in range(0, len(alike), size):
            clusters = alike[begin : begin + size]
            yield _Stack(clusters, width, min(size, len(alike)) - len(clusters))


def _fit_streamed(
    x: RowView, n_splits: int, key: jax.Array, max_iter: int, memory_limit: int, unit: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns centroids ``[n_splits, d]`` and labels ``[m]`` of one cluster, read in chunks."""
    normalizer = fit_normalizer(x, metric="cosine" if unit else "euclidean").rounded()
    chunks = stream_within(RowView(x, normalizer=normalizer), ONE_DEVICE, memory_limit, n_splits)
    start = seed_chunks(chunks, n_splits, key)
    found = iterate_chunks(chunks, start, n_splits, max_iter, unit=unit)
    return normalizer.inverse_transform(found.centroids), found.labels


@functools.partial(jax.jit, static_argnames=("n_splits", "max_iter", "unit"))
def _fit_stack(
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

    def fit(x: jax.Array, w: jax.Array, cluster: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Distances between the rows of a cluster are small beside their distance from the origin:
        # differences from the mean of the cluster keep the digits.
        mean = jnp.sum(x * w[:, None], axis=0) / jnp.maximum(jnp.sum(w), 1)
        mean = jnp.zeros_like(mean) if unit else mean
        x = (x - mean[None, :]) * w[:, None]
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
        return state.centroids + mean[None, :], state.best.labels

    return jax.vmap(fit)(xs, weights, clusters)
