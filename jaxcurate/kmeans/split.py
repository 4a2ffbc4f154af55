"""Splits: many small k-means at once, batched in padded buckets."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcurate import parallel
from jaxcurate.kmeans.lloyd import lloyd
from jaxcurate.kmeans.seeding import greedy_kmeans_plus_plus
from jaxcurate.parallel import RowsLike

_SMALLEST_BUCKET = 16
_BATCH_ROWS = 2**16


class _Batch(NamedTuple):
    """Clusters of like size that are split side by side."""

    clusters: np.ndarray
    """int ``[b]``."""
    width: int
    """To how many rows each of them is padded."""
    padding: int
    """How many empty clusters fill the batch up, so that all of one width share a shape."""


def split_clusters(
    x: RowsLike,
    labels: np.ndarray,
    n_splits: int,
    key: jax.Array,
    max_iter: int,
    mesh: Mesh | None = None,
    *,
    unit: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits every cluster by a k-means among its own rows.

    Clusters of like size share a bucket, padded to a power of two, and run side by side under
    vmap. A cluster of at most ``n_splits`` rows becomes one cluster for each row.

    Args:
        x: float32 ``[n, d]``, in their frame.
        labels: int32 ``[n]``.
        n_splits: parts to a cluster.
        key: a jax random key.
        max_iter: Lloyd's iterations at most.
        mesh: whose processes split a part of the clusters each, on one device.
        unit: spherical k-means.

    Returns:
        Centroids float32 ``[k, d]``, labels int32 ``[n]`` and squared distances float32 ``[n]``
        to the own centroid. The parts of a cluster stand together, in the order of ``labels``.
    """
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    n_parts = np.minimum(counts, n_splits)
    first_part = np.cumsum(n_parts) - n_parts
    centroids = np.empty((int(n_parts.sum()), x.shape[1]), np.float32)
    new_labels = np.empty(len(x), np.int32)
    # As if every row were a cluster, which holds where there are no more rows than parts.
    place = np.arange(len(x)) - starts[labels[order]]
    few = counts[labels[order]] <= n_splits
    new_labels[order[few]] = (first_part[labels[order]] + place)[few]
    centroids[new_labels[order[few]]] = x[order[few]]

    def rows_of(batch: _Batch) -> tuple[np.ndarray, np.ndarray]:
        """The rows ``[b, width]`` of the clusters, and which of these are real."""
        slots = np.arange(batch.width)[None, :]
        real = slots < counts[batch.clusters][:, None]
        return order[np.where(real, starts[batch.clusters][:, None] + slots, 0)], real

    def split(batches: Sequence[_Batch]) -> tuple[np.ndarray, np.ndarray]:
        """The centroids of the parts, and the part of each row among those of its cluster."""
        found = [np.empty((0, n_splits, x.shape[1]), np.float32)], [np.empty(0, np.int32)]
        for batch in batches:
            rows, real = rows_of(batch)
            weights = np.pad(real.astype(np.float32), ((0, batch.padding), (0, 0)))
            xs = x[rows.ravel()].reshape(*rows.shape, -1) * real[..., None]
            xs = np.pad(xs, ((0, batch.padding), (0, 0), (0, 0)))
            ids = jnp.asarray(np.pad(batch.clusters, (0, batch.padding)))
            parts, own = _fit_batch(
                xs, weights, ids, key, n_splits=n_splits, max_iter=max_iter, unit=unit
            )
            found[0].append(np.asarray(parts)[: len(rows)])
            found[1].append(np.asarray(own)[: len(rows)][real])
        return np.concatenate(found[0]), np.concatenate(found[1])

    batches = list(_batches(counts, n_splits))
    parts, own = parallel.share(batches, split, mesh)
    for batch in batches:
        first = first_part[batch.clusters][:, None]
        rows, real = rows_of(batch)
        n_rows = np.count_nonzero(real)
        centroids[first + np.arange(n_splits)[None, :]] = parts[: len(rows)]
        new_labels[rows[real]] = np.broadcast_to(first, real.shape)[real] + own[:n_rows]
        parts, own = parts[len(rows) :], own[n_rows:]

    def measured(begins: Sequence[int]) -> tuple[np.ndarray]:
        found = [np.empty(0, np.float32)]
        for begin in begins:
            part = slice(begin, begin + _BATCH_ROWS)
            found.append(np.sum((x[part] - centroids[new_labels[part]]) ** 2, axis=1))
        return (np.concatenate(found),)

    (distances,) = parallel.share(range(0, len(x), _BATCH_ROWS), measured, mesh)
    return centroids, new_labels, distances


def _batches(counts: np.ndarray, n_splits: int) -> Iterator[_Batch]:
    """The clusters that have more rows than parts, in batches of one width."""
    large = np.flatnonzero(counts > n_splits)
    widths = np.maximum(2 ** np.ceil(np.log2(counts[large])).astype(int), _SMALLEST_BUCKET)
    for width in np.unique(widths).tolist():
        bucket = large[widths == width]
        size = max(1, _BATCH_ROWS // width)
        for begin in range(0, len(bucket), size):
            clusters = bucket[begin : begin + size]
            yield _Batch(clusters, width, min(size, len(bucket)) - len(clusters))


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
    """Centroids ``[b, n_splits, d]`` and labels ``[b, m]`` of clusters ``[b, m, d]``."""
    width = xs.shape[1]

    def one(x: jax.Array, w: jax.Array, cluster: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Distances between a cluster's rows are small beside their distance from the centre of
        # the data: their own centre keeps the digits.
        centre = jnp.sum(x * w[:, None], axis=0) / jnp.maximum(jnp.sum(w), 1)
        centre = jnp.zeros_like(centre) if unit else centre
        x = (x - centre[None, :]) * w[:, None]
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
        return state.centroids + centre[None, :], state.best.labels

    return jax.vmap(one)(xs, weights, clusters)
