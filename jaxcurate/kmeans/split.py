"""Splits: many small k-means at once, batched in padded buckets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.kmeans.lloyd import lloyd
from jaxcurate.kmeans.seeding import greedy_kmeans_plus_plus

_SMALLEST_BUCKET = 16
_BATCH_ROWS = 2**16


def split_clusters(
    x: np.ndarray, labels: np.ndarray, n_splits: int, key: jax.Array, max_iter: int
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
    large = np.flatnonzero(counts > n_splits)
    widths = np.maximum(2 ** np.ceil(np.log2(counts[large])).astype(int), _SMALLEST_BUCKET)
    for width in np.unique(widths):
        bucket = large[widths == width]
        batch = max(1, _BATCH_ROWS // int(width))
        for begin in range(0, len(bucket), batch):
            clusters = bucket[begin : begin + batch]
            slots = np.arange(width)[None, :]
            real = slots < counts[clusters][:, None]
            rows = order[np.where(real, starts[clusters][:, None] + slots, 0)]
            padding = min(batch, len(bucket)) - len(clusters)  # one shape for all batches
            weights = np.pad(real.astype(np.float32), ((0, padding), (0, 0)))
            xs = np.pad(x[rows] * real[..., None], ((0, padding), (0, 0), (0, 0)))
            ids = jnp.asarray(np.pad(clusters, (0, padding)))
            parts, own = _fit_batch(xs, weights, ids, key, n_splits=n_splits, max_iter=max_iter)
            parts, own = np.asarray(parts)[: len(clusters)], np.asarray(own)[: len(clusters)]
            centroids[first_part[clusters][:, None] + np.arange(n_splits)[None, :]] = parts
            new_labels[rows[real]] = (first_part[clusters][:, None] + own)[real]
    distances = np.empty(len(x), np.float32)
    for begin in range(0, len(x), _BATCH_ROWS):
        part = slice(begin, begin + _BATCH_ROWS)
        distances[part] = np.sum((x[part] - centroids[new_labels[part]]) ** 2, axis=1)
    return centroids, new_labels, distances


@functools.partial(jax.jit, static_argnames=("n_splits", "max_iter"))
def _fit_batch(
    xs: jax.Array,
    weights: jax.Array,
    clusters: jax.Array,
    key: jax.Array,
    *,
    n_splits: int,
    max_iter: int,
) -> tuple[jax.Array, jax.Array]:
    """Centroids ``[b, n_splits, d]`` and labels ``[b, m]`` of clusters ``[b, m, d]``."""
    width = xs.shape[1]

    def one(x: jax.Array, w: jax.Array, cluster: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Distances between a cluster's rows are small beside their distance from the centre of
        # the data: their own centre keeps the digits.
        centre = jnp.sum(x * w[:, None], axis=0) / jnp.maximum(jnp.sum(w), 1)
        x = (x - centre[None, :]) * w[:, None]
        start = greedy_kmeans_plus_plus(
            x,
            w,
            jax.random.fold_in(key, cluster),
            n_clusters=n_splits,
            block=min(width, 256),
            axis_name=None,
            prune=False,
        )
        state = lloyd(
            x, w, start, max_iter=max_iter, block=min(width, 256), axis_name=None, plain=True
        )
        return state.centroids + centre[None, :], state.best.labels

    return jax.vmap(one)(xs, weights, clusters)
