"""Hierarchical k-means with resampling: clusters of points, then of centroids, level by level."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import jax
import numpy as np

from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree, Metric, TreeLevel, warn_of_surplus
from jaxcurate.checks import (
    InputError,
    as_real,
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
from jaxcurate.kmeans.splitting import split_clusters
from jaxcurate.kmeans.streaming import assign_chunks
from jaxcurate.runtime import processes
from jaxcurate.runtime.devices import Devices

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many steps of it are done, and of how many."""


def hierarchical_kmeans(
    x: np.ndarray | Pool,
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
    """Clusters points, then the centroids, and so on up.

    At each level k-means runs once on all its input, then ``n_resamples`` times on the
    ``n_per_cluster`` input rows closest to each centroid (or any of its cluster's:
    :attr:`Level.resample`), seeding included; after each time all of the input is assigned anew.
    This spreads the centroids evenly over the data's support.

    A level can be made from some of its input rows: those that are valid (``rows``), or so many
    of them (:attr:`Level.n_fit`). They alone are clustered and resampled, as if there were no
    others; then every other row is assigned, in chunks. The tree is over all of ``x`` in any
    case, and memory for the embeddings is taken by what is fitted alone, or by as much of it as
    ``memory_limit`` has room for.

    Over several processes (:func:`jaxcurate.runtime.processes.initialize`) all call it with the
    same arguments, and all get the whole tree; each reads the rows of its own devices.

    Args:
        x: ``[n, d]`` of real numbers, or a :class:`Pool`; most likely a memory map.
        levels: bottom up; none may have more clusters than the one below has, or level 1 more
            than there are rows to fit it on.
        seed: of everything random, within [0, 2**32).
        rows: the valid rows, distinct whole numbers, such as those that deduplication kept; all
            by default. Give them to :func:`jaxcurate.sample` as well.
        max_iter: Lloyd's iterations at most, each time.
        init: ``"k-means++"``, ``"k-means||"`` (a few passes over the rows, where the former takes
            one for each cluster) or ``"random"``.
        metric: ``"euclidean"``, or ``"cosine"`` for rows and centroids of length 1.
        memory_limit: bytes of host and device memory that a level's input rows may take; where
            they and those of a round take more they are read in chunks, as :func:`jaxcurate.kmeans`
            does, a pass for each iteration. The result is the same up to the order of float32
            sums. A few numbers for each row, and the centroids, are held besides.
        precision: ``"float32"``, or ``"bfloat16"`` for matrix units that are faster in it, with
            the same labels, as :func:`jaxcurate.kmeans` has it.
        shard_centroids: split the centroids over the devices, for more than one of them can hold,
            as :func:`jaxcurate.kmeans` does. States are then told after whole k-means runs alone.
        devices: the devices to use; all by default.
        progress: told the level, and how many of its k-means runs are done; then how many rows
            are assigned, where it was fitted to a part of them. Without it, a
            :class:`~jaxcurate.artifacts.tree.SurplusWarning` tells of levels with fewer distinct
            rows than clusters; :meth:`ClusterTree.surplus_lines` does in any case.
        state: where to go on, from ``on_state``, with the other arguments as they were. The
            result has the bits of a run without interruption.
        on_state: called now and then with what has to be kept to go on.
        state_every: iterations of a k-means, or as much of its seeding, between two states.
        state_due: whether to make a state then; the same in every process.

    Raises:
        ValueError: naming the argument that cannot be used.

    References:
        Vo et al., Automatic Data Curation for Self-Supervised Learning, 2024, section 3.2.
        https://arxiv.org/abs/2405.15613

    Example:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> x = np.random.default_rng(0).normal(size=(200, 4))
        >>> tree = jc.hierarchical_kmeans(x, [jc.Level(20, 1, 3), jc.Level(4)])
        >>> [len(level.centroids) for level in tree.levels]
        [20, 4]
    """
    z, pool = (x.embeddings, x.fingerprint) if isinstance(x, Pool) else (x, "")
    z = as_real(z)
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
    how = _How(max_iter, init, metric, memory_limit, precision, shard_centroids, devices)
    watch = Watch(state, on_state, state_every, state_due)
    _check_state(watch.state, levels, len(z))
    made = list(watch.state.levels)
    z = made[-1].centroids if made else z
    for number, level in enumerate(levels[len(made) :], len(made) + 1):
        report = _Report(progress, number, level)
        key = jax.random.fold_in(jax.random.key(seed), number)
        chosen = _rows_to_fit(valid if number == 1 else None, len(z), level, [seed, number, 1])
        made.append(_fit_level(z, chosen, level, key, how, report, watch))
        watch.level_done(made[-1])
        z = made[-1].centroids
    tree = ClusterTree(tuple(made), pool, metric)
    if progress is None:
        warn_of_surplus(tree.surplus)
    return tree


def _rows_to_fit(
    valid: np.ndarray | None, n: int, level: Level, seed: list[int]
) -> np.ndarray | None:
    """Returns the rows that a level's centroids are made from, int64, sorted; None for all
    ``n``."""
    n_valid = n if valid is None else len(valid)
    if level.n_fit is not None and level.n_fit < n_valid:
        drawn = np.random.default_rng(seed).choice(n_valid, level.n_fit, replace=False)
        valid = np.sort(drawn) if valid is None else valid[np.sort(drawn)]
    return None if valid is None or len(valid) == n else valid


@dataclass(frozen=True)
class _How:
    """Options that are the same at every level."""

    max_iter: int
    init: str
    metric: Metric
    memory_limit: int | None
    precision: Precision
    shard_centroids: bool
    devices: Devices


def _fit_level(
    z: np.ndarray,
    chosen: np.ndarray | None,
    level: Level,
    key: jax.Array,
    how: _How,
    report: "_Report",
    watch: Watch,
) -> TreeLevel:
    """Returns one level over the rows ``[m, d]`` of the level below, made from the chosen ones."""
    given = RowView(z, chosen)
    if chosen is not None:
        # Checks the rows that are only assigned.
        fit_normalizer(z, devices=how.devices, metric=how.metric)
    normalizer = fit_normalizer(given, devices=how.devices, metric=how.metric)
    if not fits(len(given) + _rows_of_a_round(level, len(given)), z.shape[1], how.memory_limit):
        normalizer = normalizer.rounded()  # rows enter it in every pass
    inside = given.with_normalizer(normalizer)
    if how.memory_limit is None and not how.devices.span_processes:
        inside = RowView(inside[:])  # many processes never hold all rows, one reads them once
    coarse, labels, distances = _clustered(inside, level, key, how, normalizer.unit, report, watch)
    centroids, n_parts = coarse, np.bincount(labels, minlength=len(coarse))
    n_parts = np.minimum(n_parts, level.n_splits)
    if level.n_splits > 1:
        centroids, labels, distances = split_clusters(
            inside,
            labels,
            level.n_splits,
            jax.random.fold_in(key, 1),
            how.max_iter,
            how.devices,
            unit=normalizer.unit,
            memory_limit=how.memory_limit,
        )
    if chosen is not None:
        fitted = labels, distances
        chunks = chunked(RowView(z, normalizer=normalizer), how.devices, how.memory_limit)
        chunks = _Told(**vars(chunks), told=report.rows)
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


def _clustered(
    inside: RowView,
    level: Level,
    key: jax.Array,
    how: _How,
    unit: bool,
    report: "_Report",
    watch: Watch,
) -> TreeLevel:
    """Returns centroids after all rounds, and every row's label and squared distance to its own.

    Args:
        inside: normalized rows ``[m, d]``.
        level: of which the splits are still to be made.
        key: a jax random key.
        how: what is the same at every level.
        unit: spherical k-means.
        report: told how many of the k-means runs are done.
        watch: told how far each is.
    """
    in_a_round = _rows_of_a_round(level, len(inside))

    def within_limit(rows: RowView, at_least: int = 0, beside: int = 0) -> Rows | RowStream:
        held = max(len(rows), at_least) + beside
        if fits(held, rows.shape[1], how.memory_limit):
            return place(rows, how.devices, at_least)
        assert how.memory_limit is not None
        return stream_within(rows, how.devices, how.memory_limit, level.n_clusters)

    def fit(rows: Rows | RowStream, round_: int) -> np.ndarray:
        n = len(rows.x) if isinstance(rows, RowStream) else rows.n
        k, start, stops = min(level.n_clusters, n), None, watch.stops()
        if stops.phase != "iterating":
            start = seeded(rows, k, how.init, jax.random.fold_in(key, round_), stops)
        options: dict[str, Any] = dict(unit=unit, shard_centroids=how.shard_centroids, stops=stops)
        return np.asarray(iterate(rows, start, k, how.max_iter, how.precision, **options))

    everything = within_limit(inside, beside=in_a_round)
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
            # All rounds are padded to the most rows that one can have, to share one compilation.
            rows = within_limit(inside.select(first), in_a_round)
        centroids = fit(rows, round_)
        watch.run_done(TreeLevel(centroids, *assign(everything, centroids)))
        report(round_ + 1)
    assert watch.state.run is not None
    return watch.state.run


def _rows_of_a_round(level: Level, n: int) -> int:
    """Returns the most rows, of ``n``, that a round of resampling can have."""
    return min(level.n_clusters * level.n_per_cluster, n) if level.resampled else 0


def closest_rows(labels: np.ndarray, distances: np.ndarray, n_per_cluster: int) -> np.ndarray:
    """Returns the rows closest to their centroid, so many of each cluster, or all of a smaller one.

    Args:
        labels: int32 ``[n]``.
        distances: float32 ``[n]``; of equal ones the first row wins.
        n_per_cluster: ``r``.

    Returns:
        int64, sorted.
    """
    order = np.lexsort((distances, labels))
    counts = np.bincount(labels)
    ranks = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    return np.sort(order[ranks < n_per_cluster])


def _check_state(state: TreeState, levels: Sequence[Level], n: int) -> None:
    """Refuses a state of other rows or levels, as far as its sizes tell."""
    if len(state.levels) > len(levels):
        raise InputError(f"state has {len(state.levels)} levels, but {len(levels)} are asked for")
    below = n
    for number, (made, level) in enumerate(zip(state.levels, levels, strict=False), 1):
        if len(made.labels) != below or len(made.centroids) > level.n_clusters * level.n_splits:
            raise InputError(f"state is of another hierarchical k-means at level {number}")
        below = len(made.centroids)


class _Report:
    """Tells how far one level is."""

    def __init__(self, progress: Progress | None, number: int, level: Level) -> None:
        self._progress, self._name = progress, f"level {number}"
        self._total = 1 + (level.n_resamples if level.resampled else 0)

    def __call__(self, done: int) -> None:
        """Tells how many of the k-means runs are done."""
        if self._progress is not None:
            self._progress(self._name, done, self._total)

    def rows(self, done: int, total: int) -> None:
        """Tells how many of the rows are assigned to what was fitted."""
        if self._progress is not None:
            self._progress(f"{self._name}: rows assigned", done, total)


@dataclass(frozen=True, kw_only=True)
class _Told(RowStream):
    """Chunks that say how many of their rows are done with."""

    told: Callable[[int, int], None]

    def __iter__(self) -> Iterator[tuple[slice, Rows]]:
        self.told(0, len(self.x))
        for part, rows in super().__iter__():
            yield part, rows
            self.told(part.stop, len(self.x))
