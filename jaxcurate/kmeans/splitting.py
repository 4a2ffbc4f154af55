"""Splits of clusters, by many small k-means at once on stacks of clusters of similar size."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.kmeans.lloyd import lloyd
from jaxcurate.kmeans.normalize import fit_normalizer
from jaxcurate.kmeans.row_stream import stream_within
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.kmeans.seeding.plus_plus import greedy_kmeans_plus_plus
from jaxcurate.kmeans.streaming import iterate_chunks, seed_chunks
from jaxcurate.runtime.devices import ONE_DEVICE, ROWS, SAME, Devices
from jaxcurate.runtime.sharing import share

_SMALLEST_WIDTH = 16
_STACK_ROWS = 2**16
_STACKS_A_TURN = 4
"""Least number of stacks that each of several processes splits before all exchange results."""


class Splits(NamedTuple):
    """State of unfinished splits, from which they continue bit for bit."""

    n_stacks: int
    """Number of finished stacks of clusters."""
    centroids: np.ndarray
    """Centroids of the parts, float32 ``[k, d]``; zeros for the other stacks."""
    labels: np.ndarray
    """Part of each row, int32 ``[n]``; -1 in the other stacks."""


class _Stack(NamedTuple):
    """Stack of clusters of similar size that are split at once."""

    clusters: np.ndarray
    """Cluster numbers, int ``[b]``."""
    width: int
    """Number of rows that each cluster is padded to."""
    padding: int
    """Number of empty clusters to add, so that all stacks of the same width have the same shape."""


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
    done: Splits | None = None,
    on_splits: Callable[[Splits, int], None] = lambda splits, n_stacks: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits each cluster by a k-means of its own rows.

    Clusters of similar size are padded to the same power of two and fitted at once under vmap. Each
    device fits stacks of its own, by the program that a single device runs, so that the bits of the
    result do not depend on the number of devices. A cluster of at most ``n_splits`` rows becomes
    one cluster for each row.

    Args:
        x: Normalized rows, float32 ``[n, d]``, read for a stack of clusters at a time.
        labels: Cluster of each row, int32 ``[n]``.
        n_splits: Number of parts of a cluster.
        key: Random key of jax.
        max_iter: Largest number of Lloyd's iterations.
        devices: Devices that share the clusters.
        unit: True for spherical k-means.
        memory_limit: Bytes that the stacks of a process may take; a larger cluster is read in
            chunks. A process uses one device if it has no room for a stack on each.
        done: State to continue from, given to ``on_splits`` by a call with the same arguments.
        on_splits: Called with the state after each turn, whose arrays the next turn changes, and
            with the number of all stacks.

    Returns:
        Centroids float32 ``[k, d]``, labels int32 ``[n]`` and squared distances float32 ``[n]``
        of the rows to their centroids. The parts of a cluster are contiguous, and clusters keep
        their order.

    Raises:
        InputError: ``done`` is the state of other splits.
    """
    n, d = x.shape
    room = np.inf if memory_limit is None else memory_limit // _bytes_a_row(d, n_splits)
    at_once = int(min(_STACK_ROWS, max(_SMALLEST_WIDTH, room)))
    local = devices.local if room >= devices.local.count * at_once else ONE_DEVICE
    fit = local.spmd(
        _fit_stack,
        (ROWS, ROWS, ROWS, SAME),
        (ROWS, ROWS),
        n_splits=n_splits,
        max_iter=max_iter,
        unit=unit,
    )
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    n_parts = np.minimum(counts, n_splits)
    first_part = np.cumsum(n_parts) - n_parts
    centroids = np.zeros((int(n_parts.sum()), d), np.float32)
    new_labels = np.full(n, -1, np.int32)
    if done is not None:
        if done.centroids.shape != centroids.shape or done.labels.shape != new_labels.shape:
            raise InputError("state is of another hierarchical k-means: its splits do not fit")
        centroids[:], new_labels[:] = done.centroids, done.labels
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
        all_centroids = [np.empty((0, n_splits, d), np.float32)]
        all_labels = [np.empty(0, np.int32)]
        for group in _groups(stacks, local.count):
            if memory_limit is not None and group[0].width > room:
                for stack in group:
                    cluster_key = jax.random.fold_in(key, stack.clusters[0])
                    part_centroids, part_labels = _fit_streamed(
                        x.select(rows_of(stack)[0]),
                        n_splits,
                        cluster_key,
                        max_iter,
                        memory_limit,
                        unit,
                    )
                    all_centroids.append(part_centroids[None])
                    all_labels.append(part_labels)
                continue
            size = len(group[0].clusters) + group[0].padding
            # Devices for which there is no stack get an empty one.
            real = np.zeros((local.count * size, group[0].width), bool)
            clusters = np.zeros(len(real), np.int32)
            places = [i * size + np.arange(len(it.clusters)) for i, it in enumerate(group)]
            for stack, place in zip(group, places, strict=True):
                real[place], clusters[place] = rows_of(stack)[1], stack.clusters
            rows = np.concatenate([rows_of(stack)[0] for stack in group])
            xs = np.zeros((*real.shape, d), np.float32)
            by = np.argsort(rows)  # so that a file is read from its beginning to its end
            xs.reshape(-1, d)[np.flatnonzero(real)[by]] = x[rows[by]]
            stacked = (xs, real.astype(np.float32), clusters)
            part_centroids, part_labels = fit(*(local.put_rows(it)[0] for it in stacked), key)
            all_centroids.append(np.asarray(part_centroids)[np.concatenate(places)])
            all_labels.append(np.asarray(part_labels)[real])
        return np.concatenate(all_centroids), np.concatenate(all_labels)

    stacks = list(_stacks(counts, n_splits, at_once))
    n_processes = len(devices.owners)
    a_turn = local.count
    if n_processes > 1:
        a_turn = n_processes * max(_STACKS_A_TURN, local.count)
    for begin in range(0 if done is None else done.n_stacks, len(stacks), a_turn):
        turn = stacks[begin : begin + a_turn]
        part_centroids, part_labels = share(turn, split, devices)
        for stack in turn:
            first = first_part[stack.clusters][:, None]
            rows, real = rows_of(stack)
            centroids[first + np.arange(n_splits)[None, :]] = part_centroids[: len(real)]
            new_labels[rows] = np.broadcast_to(first, real.shape)[real] + part_labels[: len(rows)]
            part_centroids, part_labels = part_centroids[len(real) :], part_labels[len(rows) :]
        on_splits(Splits(begin + len(turn), centroids, new_labels), len(stacks))

    def measured(begins: Sequence[int]) -> tuple[np.ndarray]:
        """Returns squared distances of rows to their centroids, given the first row of slices."""
        squared = [np.empty(0, np.float32)]
        for begin in begins:
            part = slice(begin, begin + at_once)
            squared.append(np.sum((x[part] - centroids[new_labels[part]]) ** 2, axis=1))
        return (np.concatenate(squared),)

    (distances,) = share(range(0, n, at_once), measured, devices)
    return centroids, new_labels, distances


def _bytes_a_row(d: int, n_splits: int) -> int:
    """Returns the bytes that a row of a stack takes: copies of rows and centroids, and scores."""
    return 4 * (12 * d + 4 * n_splits)


def _stacks(counts: np.ndarray, n_splits: int, at_once: int) -> Iterator[_Stack]:
    """Yields stacks of the clusters that have more than ``n_splits`` rows."""
    large = np.flatnonzero(counts > n_splits)
    widths = np.maximum(2 ** np.ceil(np.log2(counts[large])).astype(int), _SMALLEST_WIDTH)
    for width in np.unique(widths).tolist():
        alike = large[widths == width]
        size = max(1, at_once // width)
        for begin in range(0, len(alike), size):
            clusters = alike[begin : begin + size]
            yield _Stack(clusters, width, min(size, len(alike)) - len(clusters))


def _groups(stacks: Sequence[_Stack], n: int) -> Iterator[list[_Stack]]:
    """Yields runs of at most ``n`` stacks of the same shape."""
    for _, alike in itertools.groupby(stacks, lambda stack: stack.width):
        while group := list(itertools.islice(alike, n)):
            yield group


def _fit_streamed(
    x: RowView, n_splits: int, key: jax.Array, max_iter: int, memory_limit: int, unit: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns centroids ``[n_splits, d]`` and labels ``[m]`` of one cluster, read in chunks."""
    normalizer = fit_normalizer(x, metric="cosine" if unit else "euclidean").rounded()
    chunks = stream_within(RowView(x, normalizer=normalizer), ONE_DEVICE, memory_limit, n_splits)
    start = seed_chunks(chunks, n_splits, key)
    fitted = iterate_chunks(chunks, start, n_splits, max_iter, unit=unit)
    return normalizer.inverse_transform(fitted.centroids), fitted.labels


def _fit_stack(
    xs: jax.Array,
    weights: jax.Array,
    clusters: jax.Array,
    key: jax.Array,
    *,
    n_splits: int,
    max_iter: int,
    unit: bool,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array]:
    """Returns centroids ``[b, n_splits, d]`` and labels ``[b, m]`` of clusters ``[b, m, d]``."""
    del axis_name  # the devices have nothing to tell each other
    width = xs.shape[1]

    def fit(x: jax.Array, w: jax.Array, cluster: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The rows of a cluster are much closer to each other than to the origin, so that their
        # differences from the mean of the cluster keep more digits.
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
