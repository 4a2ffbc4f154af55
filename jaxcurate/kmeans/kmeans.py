"""k-means from an array to labels: checks, normalizes, and fits in memory or streamed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import jax
import numpy as np

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
from jaxcurate.runtime.devices import Devices

Init = InitName | np.ndarray


def kmeans(
    x: np.ndarray | Pool,
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
    """Returns k-means in squared Euclidean distance, exact in float32, on all devices.

    Over several processes (:func:`jaxcurate.runtime.processes.initialize`) all call it with the
    same arguments, and all get the whole result; each reads the rows of its own devices.

    Args:
        x: ``[n, d]`` of real numbers of any type that float32 can hold, or a :class:`Pool`. For
            several processes, a memory map of a file that all of them see.
        n_clusters: ``k``, at most ``n``. Where fewer rows are distinct some clusters are empty,
            and a :class:`~jaxcurate.artifacts.tree.SurplusWarning` says so.
        init: ``"k-means++"`` (greedy), ``"k-means||"`` (fewer passes over the rows),
            ``"random"`` (distinct rows), or centroids ``[k, d]``.
        max_iter: Lloyd's iterations at most; they stop once no label changes.
        seed: of the seeding, within [0, 2**32). The same seed and number of devices give the
            same bits.
        memory_limit: bytes of host and device memory to stay within; where ``x`` takes more it is
            read in chunks, a pass for each iteration. A quarter of it goes to the rows at least,
            even where a few numbers for each row, and the centroids, leave less. Several
            processes share it.
        metric: ``"euclidean"``, or ``"cosine"`` for spherical k-means: rows and centroids have
            length 1, and distances are ``2 - 2 cos``.
        precision: ``"float32"``, or ``"bfloat16"`` for matrix units that are faster in it. Rows
            whose best two centroids lie within the proven error bound are searched again in
            float32, so that the labels are the same.
        shard_centroids: split the centroids over the devices too, for more than one of them can
            hold. All distances are worked out then. In memory, and without states.
        devices: the devices to use; all by default.
        state: where to go on, from ``on_state``, with the other arguments as they were. The
            result has the bits of a run without interruption.
        on_state: called now and then with what has to be kept to go on.
        state_every: iterations, or as much of the seeding, between two calls of ``on_state``.

    Raises:
        ValueError: naming the argument that cannot be used.

    References:
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 3.
        https://arxiv.org/abs/2405.15613

    Example:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> x = np.array([[0.0, 0], [0, 1], [9, 9], [9, 8]])
        >>> found = jc.kmeans(x, 2)
        >>> bool(found.labels[0] == found.labels[1] != found.labels[2]), found.inertia
        (True, 1.0)
    """
    x = as_real(x.embeddings if isinstance(x, Pool) else x)
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
        normalizer = normalizer.rounded()  # rows enter it in every pass
    start = None if isinstance(init, str) else _checked_init(init, n_clusters, x.shape[1])
    start = None if start is None else _entered(start, normalizer)
    if shard_centroids and (streamed or state is not None or on_state is not None):
        raise InputError(NO_SHARDS)
    stops = Stops(state, on_state, state_every)
    options: dict[str, Any] = dict(precision=precision, unit=normalizer.unit, stops=stops)
    inside = RowView(x, normalizer=normalizer)
    if memory_limit is not None and streamed:
        rows = stream_within(inside, devices, memory_limit, n_clusters)
    else:
        rows = place(inside, devices)
    if isinstance(init, str) and stops.phase != "iterating":
        start = seeded(rows, n_clusters, init, key, stops)
    if isinstance(rows, RowStream):
        start = None if start is None else np.asarray(start)
        found = KMeansResult(*iterate_chunks(rows, start, n_clusters, max_iter, **options))
    elif shard_centroids and start is not None:
        found = fitted_in_a_ring(rows, start, max_iter, precision, normalizer.unit)
    else:
        found = fitted(rows, start, n_clusters, max_iter, **options)
    found = replace(
        found,
        centroids=normalizer.inverse_transform(found.centroids),
        distances=normalizer.inverse_transform_squared(found.distances),
    )
    warn_of_surplus({"k-means": (found.n_surplus, n_clusters)})
    return found


def _checked_init(init: np.ndarray, n_clusters: int, n_columns: int) -> np.ndarray:
    init = as_real(init, "init")
    if init.shape != (n_clusters, n_columns):
        raise InputError(
            f"init has shape {init.shape}, but n_clusters and x ask for {(n_clusters, n_columns)}"
        )
    refuse([faults_of(init, range(len(init)))], "init")
    return init


def _entered(init: np.ndarray, normalizer: Normalizer) -> np.ndarray:
    """Returns given centroids normalized as the rows are, which may be far from them."""
    with np.errstate(over="ignore"):
        start = normalizer.transform(init)
    if not np.isfinite(start).all():
        raise InputError("init lies too far from x, compared with how far x extends")
    return start
