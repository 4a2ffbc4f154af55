"""k-means from an array to labels: checks, normalization, and a fit in memory or in chunks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import jax
import numpy as np

from jaxcurate.artifacts.lazy_rows import as_rows
from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import Metric, warn_of_surplus
from jaxcurate.checks import (
    InputError,
    as_real,
    check_choice,
    check_seed,
    check_whole,
    faults_of,
    refuse,
)
from jaxcurate.kmeans.checkpoint import KMeansState, Stops
from jaxcurate.kmeans.fit import NO_SHARDS, InitName, KMeansResult, fitted, fitted_in_a_ring, seeded
from jaxcurate.kmeans.kernels.scores import Precision
from jaxcurate.kmeans.normalize import Normalizer, fit_normalizer
from jaxcurate.kmeans.row_stream import RowStream, stream_within
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.kmeans.rows import fits, place
from jaxcurate.kmeans.streaming import iterate_chunks
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import Devices, RowsLike

Init = InitName | np.ndarray


def kmeans(
    x: RowsLike | Pool,
    n_clusters: int,
    init: Init = "k-means++",
    max_iter: int = 50,
    seed: int = 0,
    memory_limit: int | None = None,
    *,
    metric: Metric = "euclidean",
    precision: Precision = "float32",
    shard_centroids: bool = False,
    devices: Devices | None = None,
    state: KMeansState | None = None,
    on_state: Callable[[KMeansState], None] | None = None,
    state_every: int = 10,
) -> KMeansResult:
    """Fits k-means by Lloyd's iterations on all devices; each label is the exact nearest centroid.

    With several processes (:func:`jaxcurate.runtime.processes.initialize`), each calls this
    function with the same arguments and gets the whole result. A process reads only the rows of
    its devices.

    Args:
        x: Rows ``[n, d]`` of any real type whose values float32 can hold, or a :class:`Pool`. With
            several processes, a memory map of a file that all of them can read.
        n_clusters: Number of clusters ``k``, at most ``n``. If fewer rows are distinct, some
            clusters are empty, and a :class:`~jaxcurate.artifacts.tree.SurplusWarning` is given.
        init: ``"k-means++"`` (greedy), ``"k-means||"`` (fewer passes over the rows),
            ``"random"`` (distinct rows), or initial centroids ``[k, d]``.
        max_iter: Largest number of iterations; they stop earlier once no label changes.
        seed: Seed of the initial centroids, within [0, 2**32). The same seed and number of devices
            give the same result, bit for bit.
        memory_limit: Bytes of host and device memory to use; None for no limit. If ``x`` takes
            more, it is read in chunks, once for each iteration. At least a quarter of the limit is
            used for rows, even if labels, distances and centroids need the rest and more. Several
            processes share the limit.
        metric: ``"euclidean"`` for squared Euclidean distance, or ``"cosine"`` for spherical
            k-means: rows and centroids have length 1, and distances are ``2 - 2 cos``.
        precision: ``"float32"``, or ``"bfloat16"`` for matrix units that are faster with it. Rows
            whose two nearest centroids are closer than the proven error bound are rechecked in
            float32, so that both give the same labels.
        shard_centroids: If True, splits the centroids over the devices too, for more centroids
            than one device can hold. All distances are then computed. Every seeding still holds all
            centroids on each device: for more, give an array as ``init``. Neither ``memory_limit``
            below the size of ``x`` nor states can be combined with it.
        devices: Devices to use; all by default.
        state: State from ``on_state`` to resume from, with the other arguments unchanged. The
            result is that of an uninterrupted run, bit for bit.
        on_state: Called with a state to resume from, every ``state_every`` iterations.
        state_every: Number of iterations, or of steps of the seeding that cost as much, between
            two calls of ``on_state``.

    Returns:
        Centroids, labels and squared distances of the rows.

    Raises:
        InputError: An argument cannot be used; the message names it.

    References:
        Lloyd, Least squares quantization in PCM, 1982.
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 3.
        https://arxiv.org/abs/2405.15613

    Examples:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> x = np.array([[0.0, 0], [0, 1], [9, 9], [9, 8]])
        >>> result = jc.kmeans(x, 2)
        >>> bool(result.labels[0] == result.labels[1] != result.labels[2]), result.inertia
        (True, 1.0)
    """
    x = as_rows(x.embeddings if isinstance(x, Pool) else x)
    devices = Devices.all() if devices is None else devices
    processes.agree(
        "kmeans",
        devices,
        x=x,
        n_clusters=n_clusters,
        init=init,
        max_iter=max_iter,
        seed=seed,
        memory_limit=memory_limit,
        metric=metric,
        precision=precision,
        shard_centroids=shard_centroids,
        state=state,
        on_state=on_state,
        state_every=state_every,
    )
    check_choice("metric", metric, get_args(Metric))
    check_choice("precision", precision, get_args(Precision))
    check_seed(seed)
    for name, value, least in (
        ("n_clusters", n_clusters, 1),
        ("max_iter", max_iter, 0),
        ("memory_limit", 0 if memory_limit is None else memory_limit, 0),
        ("state_every", state_every, 1),
    ):
        check_whole(name, value, least)
    normalizer = fit_normalizer(x, devices=devices, metric=metric)
    if n_clusters > len(x):
        raise InputError(f"n_clusters={n_clusters}, but x has {len(x)} row(s)")
    key = jax.random.key(seed)
    streamed = not fits(len(x), x.shape[1], memory_limit)
    if streamed and x.dtype == np.float32:
        normalizer = normalizer.rounded()  # every pass normalizes the rows
    start = None if isinstance(init, str) else _checked_init(init, n_clusters, x.shape[1])
    start = None if start is None else _normalized_init(start, normalizer)
    if shard_centroids and (streamed or state is not None or on_state is not None):
        raise InputError(NO_SHARDS)
    stops = Stops(state, on_state, state_every)
    options: dict[str, Any] = dict(precision=precision, unit=normalizer.unit, stops=stops)
    view = RowView(x, normalizer=normalizer)
    if memory_limit is not None and streamed:
        rows = stream_within(view, devices, memory_limit, n_clusters)
    else:
        rows = place(view, devices)
    if isinstance(init, str) and stops.phase != "iterating":
        start = seeded(rows, n_clusters, init, key, stops)
    if isinstance(rows, RowStream):
        start = None if start is None else np.asarray(start)
        result = KMeansResult(*iterate_chunks(rows, start, n_clusters, max_iter, **options))
    elif shard_centroids and start is not None:
        result = fitted_in_a_ring(rows, start, max_iter, precision, normalizer.unit)
    else:
        result = fitted(rows, start, n_clusters, max_iter, **options)
    result = replace(
        result,
        centroids=normalizer.inverse_transform(result.centroids),
        distances=normalizer.inverse_transform_squared(result.distances),
    )
    warn_of_surplus({"k-means": (result.n_surplus, n_clusters)})
    return result


def _checked_init(init: np.ndarray, n_clusters: int, n_columns: int) -> np.ndarray:
    init = as_real(init, "init")
    if init.shape != (n_clusters, n_columns):
        raise InputError(
            f"init has shape {init.shape}, but n_clusters and x ask for {(n_clusters, n_columns)}"
        )
    refuse([faults_of(init, range(len(init)))], "init")
    return init


def _normalized_init(init: np.ndarray, normalizer: Normalizer) -> np.ndarray:
    """Returns the given centroids, which may be far from the rows, normalized as the rows are."""
    with np.errstate(over="ignore"):
        start = normalizer.transform(init)
    if not np.isfinite(start).all():
        raise InputError("init lies too far from x, compared with how far x extends")
    return start
