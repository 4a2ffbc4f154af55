"""Hierarchical k-means with resampling: clusters of points, then of centroids, level by level."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import jax
import numpy as np

from jaxcurate.artifacts.lazy_rows import as_rows
from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree, Metric, TreeLevel, warn_of_surplus
from jaxcurate.checks import (
    InputError,
    check_choice,
    check_seed,
    check_whole,
    checked_rows,
)
from jaxcurate.curation.checkpoint import TreeState, Watch
from jaxcurate.curation.level import Level, check_levels
from jaxcurate.kmeans.fit import InitName, assign, iterate, seeded
from jaxcurate.kmeans.kernels.scores import Precision
from jaxcurate.kmeans.normalize import checked_shape, fit_normalizer
from jaxcurate.kmeans.predict import assign_to_parts, chunked
from jaxcurate.kmeans.row_stream import RowStream, stream_within
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.kmeans.rows import Rows, fits, place
from jaxcurate.kmeans.splitting import Splits, split_clusters
from jaxcurate.kmeans.streaming import assign_chunks
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import Devices, RowsLike

Progress = Callable[[str, int, int], None]
"""Callback with a name, the number of steps that are done, and the number of all steps."""


def hierarchical_kmeans(
    x: RowsLike | Pool,
    levels: Sequence[Level],
    seed: int = 0,
    *,
    rows: np.ndarray | None = None,
    max_iter: int = 50,
    init: InitName = "k-means++",
    metric: Metric = "euclidean",
    memory_limit: int | None = None,
    precision: Precision = "float32",
    shard_centroids: bool = False,
    devices: Devices | None = None,
    progress: Progress | None = None,
    state: TreeState | None = None,
    on_state: Callable[[TreeState], None] | None = None,
    state_every: int = 10,
    state_due: Callable[[], bool] = lambda: True,
) -> ClusterTree:
    """Clusters points, then their centroids, and so on, level by level.

    At each level, k-means runs once on all input rows of the level. Then it runs ``n_resamples``
    times, seeding included, on the ``n_per_cluster`` rows of each cluster closest to its centroid
    (or on any of its rows: :attr:`Level.resample`). After each run all input rows are assigned
    anew. Resampling spreads the centroids evenly over the support of the data.

    A level can be fitted to some of its input rows: to the valid rows (``rows``), or to a random
    choice of them (:attr:`Level.n_fit`). These alone are clustered and resampled, then every other
    row is assigned, in chunks. The tree is over all rows of ``x`` in any case. Embeddings take
    memory for the fitted rows alone, or for as many of them as ``memory_limit`` has room for.

    With several processes (:func:`jaxcurate.runtime.processes.initialize`), all call this function
    with the same arguments, and all get the whole tree. Each reads the rows of its devices alone.

    Args:
        x: ``[n, d]`` of real numbers, possibly a memory map, or a :class:`Pool`.
        levels: settings of the levels, bottom up. A level has at most as many clusters as the
            level below, and level 1 at most as many as rows to fit.
        seed: seed of all random numbers, within [0, 2**32).
        rows: distinct numbers of the valid rows, such as those that deduplication kept. All by
            default. Give them to :func:`jaxcurate.sample` as well.
        max_iter: largest number of Lloyd's iterations of each k-means.
        init: ``"k-means++"``, which takes a pass over the rows for each cluster, ``"k-means||"``,
            which takes a few passes, or ``"random"``.
        metric: ``"euclidean"``, or ``"cosine"`` for rows and centroids of length 1.
        memory_limit: bytes of host and device memory that the input rows of a level may take. If
            these and the rows of a round take more, they are read in chunks, a pass for each
            iteration, as in :func:`jaxcurate.kmeans`. The result is the same up to the order of
            float32 sums. In addition, a few numbers for each row and the centroids stay in memory.
        precision: ``"float32"``, or ``"bfloat16"`` for matrix units that are faster in it, with
            the same labels, as in :func:`jaxcurate.kmeans`.
        shard_centroids: split the centroids over the devices, as in :func:`jaxcurate.kmeans`, once
            the seeding, which holds all of them on each device, is over. States are then made after
            whole k-means runs alone.
        devices: the devices to use. All by default.
        progress: called with the level and the number of its finished k-means runs. If the level
            is fitted to some of the rows, also with the number of rows that are assigned. Without
            it, a :class:`~jaxcurate.artifacts.tree.SurplusWarning` names levels with fewer distinct
            rows than clusters, as :meth:`ClusterTree.surplus_lines` does.
        state: state to continue from, given to ``on_state`` by a call with otherwise the same
            arguments. The result is that of an uninterrupted run, bit for bit.
        on_state: called now and then with the state to continue from.
        state_every: number of iterations of a k-means, or as much of its seeding, between states.
        state_due: returns whether to make a state then, the same in every process.

    Returns:
        The tree over all rows of ``x``.

    Raises:
        InputError: an argument cannot be used; the message names it.

    References:
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 3.2.
        https://arxiv.org/abs/2405.15613

    Examples:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> x = np.random.default_rng(0).normal(size=(200, 4))
        >>> tree = jc.hierarchical_kmeans(x, [jc.Level(20, 1, 3), jc.Level(4)])
        >>> [len(level.centroids) for level in tree.levels]
        [20, 4]
    """
    z, pool = (x.embeddings, x.fingerprint) if isinstance(x, Pool) else (x, "")
    z = as_rows(z)
    devices = Devices.all() if devices is None else devices
    processes.agree(
        "hierarchical_kmeans",
        devices,
        x=z,
        levels=levels,
        seed=seed,
        rows=rows,
        max_iter=max_iter,
        init=init,
        metric=metric,
        memory_limit=memory_limit,
        precision=precision,
        shard_centroids=shard_centroids,
        state=state,
        on_state=on_state,
        state_every=state_every,
    )
    check_seed(seed)
    check_choice("precision", precision, get_args(Precision))
    check_whole("state_every", state_every, 1)
    check_whole("max_iter", max_iter, 0)
    check_choice("metric", metric, get_args(Metric))
    check_choice("init", init, get_args(InitName))
    if memory_limit is not None:
        check_whole("memory_limit", memory_limit)
    checked_shape(z, "x")
    valid = None if rows is None else checked_rows(rows, len(z))
    check_levels(levels, len(z) if valid is None else len(valid))
    options = _Options(max_iter, init, metric, memory_limit, precision, shard_centroids, devices)
    watch = Watch(state, on_state, state_every, state_due)
    _check_state(watch.state, levels, len(z))
    made = list(watch.state.levels)
    z = made[-1].centroids if made else z
    for number, level in enumerate(levels[len(made) :], len(made) + 1):
        report = _Report(progress, number, level)
        key = jax.random.fold_in(jax.random.key(seed), number)
        chosen = _rows_to_fit(valid if number == 1 else None, len(z), level, [seed, number, 1])
        made.append(_fit_level(z, chosen, level, key, options, report, watch))
        watch.level_done(made[-1])
        z = made[-1].centroids
    tree = ClusterTree(tuple(made), pool, metric)
    if progress is None:
        warn_of_surplus(tree.surplus)
    return tree


def _rows_to_fit(
    valid: np.ndarray | None, n: int, level: Level, seed: list[int]
) -> np.ndarray | None:
    """Returns the rows that a level is fitted to, int64, sorted. None for all ``n`` rows."""
    n_valid = n if valid is None else len(valid)
    if level.n_fit is not None and level.n_fit < n_valid:
        drawn = np.random.default_rng(seed).choice(n_valid, level.n_fit, replace=False)
        valid = np.sort(drawn) if valid is None else valid[np.sort(drawn)]
    return None if valid is None or len(valid) == n else valid


@dataclass(frozen=True)
class _Options:
    """Options that are the same at every level."""

    max_iter: int
    init: str
    metric: Metric
    memory_limit: int | None
    precision: Precision
    shard_centroids: bool
    devices: Devices


def _fit_level(
    z: RowsLike,
    chosen: np.ndarray | None,
    level: Level,
    key: jax.Array,
    options: _Options,
    report: "_Report",
    watch: Watch,
) -> TreeLevel:
    """Returns a level over the rows ``[m, d]`` of the level below, fitted to the chosen rows."""
    given = RowView(z, chosen)
    if chosen is not None:
        # Checks the rows that are only assigned.
        fit_normalizer(z, devices=options.devices, metric=options.metric)
    normalizer = fit_normalizer(given, devices=options.devices, metric=options.metric)
    if not fits(len(given) + _rows_of_a_round(level, len(given)), z.shape[1], options.memory_limit):
        normalizer = normalizer.rounded()  # rows are normalized anew in every pass
    normalized = given.with_normalizer(normalizer)
    if options.memory_limit is None and not options.devices.span_processes:
        # A single process reads the rows once. Several processes never hold all of them.
        normalized = RowView(normalized[:])
    coarse, labels, distances = _fit_rounds(
        normalized, level, key, options, normalizer.unit, report, watch
    )
    centroids, n_parts = coarse, np.bincount(labels, minlength=len(coarse))
    n_parts = np.minimum(n_parts, level.n_splits)

    def splits_done(splits: Splits, n_stacks: int) -> None:
        report.splits(splits.n_stacks, n_stacks)
        watch.splits_done(splits)

    if level.n_splits > 1:
        centroids, labels, distances = split_clusters(
            normalized,
            labels,
            level.n_splits,
            jax.random.fold_in(key, 1),
            options.max_iter,
            options.devices,
            unit=normalizer.unit,
            memory_limit=options.memory_limit,
            done=watch.state.splits,
            on_splits=splits_done,
        )
    if chosen is not None:
        fitted = labels, distances
        chunks = chunked(RowView(z, normalizer=normalizer), options.devices, options.memory_limit)
        chunks = _ReportingStream(**vars(chunks), report=report.rows)
        if level.n_splits > 1:
            labels, distances = assign_to_parts(chunks, coarse, n_parts, centroids)
        else:
            labels, distances = assign_chunks(chunks, centroids)
        labels[chosen], distances[chosen] = fitted
    return TreeLevel(
        normalizer.inverse_transform(centroids),
        labels,
        normalizer.inverse_transform_squared(distances),
    )


def _fit_rounds(
    normalized: RowView,
    level: Level,
    key: jax.Array,
    options: _Options,
    unit: bool,
    report: "_Report",
    watch: Watch,
) -> TreeLevel:
    """Returns centroids after all rounds, and the label and squared distance of every row.

    Args:
        normalized: normalized rows ``[m, d]``.
        level: settings of the level. Its splits are made later.
        key: a jax random key.
        options: options that are the same at every level.
        unit: normalize the centroids, for spherical k-means.
        report: called with the number of finished k-means runs.
        watch: keeper of the state of the runs.
    """
    in_a_round = _rows_of_a_round(level, len(normalized))

    def within_limit(rows: RowView, at_least: int = 0, beside: int = 0) -> Rows | RowStream:
        held = max(len(rows), at_least) + beside
        if fits(held, rows.shape[1], options.memory_limit):
            return place(rows, options.devices, at_least)
        assert options.memory_limit is not None
        return stream_within(rows, options.devices, options.memory_limit, level.n_clusters)

    def fit(rows: Rows | RowStream, round_: int) -> np.ndarray:
        n = len(rows.x) if isinstance(rows, RowStream) else rows.n
        k, start, stops = min(level.n_clusters, n), None, watch.stops()
        if stops.phase != "iterating":
            start = seeded(rows, k, options.init, jax.random.fold_in(key, round_), stops)
        more: dict[str, Any] = dict(unit=unit, shard_centroids=options.shard_centroids, stops=stops)
        return np.asarray(iterate(rows, start, k, options.max_iter, options.precision, **more))

    everything = within_limit(normalized, beside=in_a_round)
    n_runs = 1 + (level.n_resamples if level.resampled else 0)
    report(watch.state.n_runs)
    for round_ in range(watch.state.n_runs, n_runs):
        rows = everything
        if round_:
            assert watch.state.run is not None
            _, labels, order = watch.state.run
            if level.resample == "random":
                words = jax.random.key_data(key).tolist()
                order = np.random.default_rng([*words, round_]).random(len(labels))
            first = closest_rows(labels, order, level.n_per_cluster)
            # All rounds are padded to the largest possible round, to share one compilation.
            rows = within_limit(normalized.select(first), in_a_round)
        centroids = fit(rows, round_)
        watch.run_done(TreeLevel(centroids, *assign(everything, centroids)))
        report(round_ + 1)
    assert watch.state.run is not None
    return watch.state.run


def _rows_of_a_round(level: Level, n: int) -> int:
    """Returns the largest number of rows, out of ``n``, that a round of resampling can have."""
    return min(level.n_clusters * level.n_per_cluster, n) if level.resampled else 0


def closest_rows(labels: np.ndarray, distances: np.ndarray, n_per_cluster: int) -> np.ndarray:
    """Returns the rows of each cluster that are closest to its centroid.

    Args:
        labels: int32 ``[n]``, cluster of each row.
        distances: float32 ``[n]``. Among equally close rows, the first are taken.
        n_per_cluster: largest number ``r`` of rows of a cluster.

    Returns:
        int64, sorted.

    Examples:
        >>> labels, distances = np.array([0, 1, 0, 0]), np.array([3.0, 1, 2, 1])
        >>> closest_rows(labels, distances, 2)
        array([1, 2, 3])
    """
    order = np.lexsort((distances, labels))
    counts = np.bincount(labels)
    ranks = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    return np.sort(order[ranks < n_per_cluster])


def _check_state(state: TreeState, levels: Sequence[Level], n: int) -> None:
    """Refuses a state whose sizes show that it belongs to other rows or levels."""
    if len(state.levels) > len(levels):
        raise InputError(f"state has {len(state.levels)} levels, but {len(levels)} are asked for")
    below = n
    for number, (made, level) in enumerate(zip(state.levels, levels, strict=False), 1):
        if len(made.labels) != below or len(made.centroids) > level.n_clusters * level.n_splits:
            raise InputError(f"state is of another hierarchical k-means at level {number}")
        below = len(made.centroids)


class _Report:
    """Reports of the progress of one level."""

    def __init__(self, progress: Progress | None, number: int, level: Level) -> None:
        self._progress, self._name = progress, f"level {number}"
        self._total = 1 + (level.n_resamples if level.resampled else 0)

    def __call__(self, done: int) -> None:
        """Reports the number of finished k-means runs."""
        if self._progress is not None:
            self._progress(self._name, done, self._total)

    def splits(self, done: int, total: int) -> None:
        """Reports the number of stacks of clusters that are split."""
        if self._progress is not None:
            self._progress(f"{self._name}: splits", done, total)

    def rows(self, done: int, total: int) -> None:
        """Reports the number of rows that are assigned to the fitted centroids."""
        if self._progress is not None:
            self._progress(f"{self._name}: rows assigned", done, total)


@dataclass(frozen=True, kw_only=True)
class _ReportingStream(RowStream):
    """Row stream that reports the number of rows of its finished chunks."""

    report: Callable[[int, int], None]

    def __iter__(self) -> Iterator[tuple[slice, Rows]]:
        self.report(0, len(self.x))
        for chunk, rows in super().__iter__():
            yield chunk, rows
            self.report(chunk.stop, len(self.x))
