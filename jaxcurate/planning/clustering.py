"""Plan of hierarchical k-means: time, memory and traffic of each level, counted or compiled.

Numbers of iterations and the fraction of the distances that pruning leaves are not known before a
run. They are taken from runs over mixtures of Gaussians: iterations from the number of rows of a
cluster, and with pruning three whole passes and 6 % of one in each further iteration.
"""

import dataclasses
from typing import Any, NamedTuple

from jaxcurate.curation.hierarchy import _rows_of_a_round
from jaxcurate.curation.level import Level
from jaxcurate.kmeans.assignment.pruned import pays
from jaxcurate.kmeans.rows import SMALLEST_BLOCK, fits, is_small
from jaxcurate.kmeans.seeding.parallel import N_ROUNDS
from jaxcurate.kmeans.seeding.plus_plus import n_ahead, n_candidates
from jaxcurate.planning.steps import Ask, Step
from jaxcurate.runtime.devices import padded_size

_BLOCKS = {"cpu": 1024, "tpu": 4096, "gpu": 8192}
"""Number of rows in a block by kind of device."""
_KERNELS = {"seeding": 1.7, "iterations": 2.3, "assignment": 1.0}
"""Time of compilations, as multiples of that of the kernel of an assignment."""
_QUICK = 0.6
"""Fraction of that time that kernels of few rows take, which are compiled with less effort."""
_ROW_BYTES = 80
"""Bytes of temporaries that iterations take for each row, as compilers report them."""
_CENTROID_COPIES = 4.5
"""Number of arrays of all centroids that iterations hold, as compilers report them."""
_RING_COPIES = 9
"""Number of arrays of a device's centroids that iterations over split centroids hold."""
_LATENCY = 1e-4
"""Time of the collectives and kernels of a step of the seeding on an accelerator."""
_HOST_ROW_BYTES = 20
"""Bytes of labels, distances and the like that a host holds for each row."""


class Fit(NamedTuple):
    """Rows and clusters of a k-means."""

    n: int
    """Number of rows."""
    k: int
    """Number of clusters."""
    d: int
    """Number of columns."""


def n_iterations(fit: Fit, max_iter: int) -> int:
    """Returns the expected number of iterations of Lloyd's algorithm.

    Examples:
        >>> n_iterations(Fit(1000, 100, 16), 50), n_iterations(Fit(10**6, 100, 16), 50)
        (10, 50)
    """
    return min(max_iter, round(2.5 * (fit.n / fit.k) ** 0.6))


def n_passes(fit: Fit, max_iter: int, block: int, shards: int, *, ring: bool = False) -> float:
    """Returns the expected number of computed distances of the iterations, as passes over ``n k``.

    Args:
        fit: rows and clusters.
        max_iter: largest number of iterations.
        block: number of rows in a block.
        shards: number of devices.
        ring: True for centroids split over the devices, where no distance is left out.
    """
    iterations = n_iterations(fit, max_iter)
    if ring:
        return iterations + 1.0
    moved = min(iterations + 1.0, 1 + 0.9 * (fit.n / fit.k) ** 0.52)
    if not pays(fit.n // shards, fit.d, fit.k, block):
        return moved
    return min(moved, 3 + 0.06 * max(0, iterations - 2))


def level_steps(ask: Ask, number: int, level: Level, n: int) -> list[Step]:
    """Returns the steps of a level.

    Args:
        ask: the question.
        number: number of the level, from 1.
        level: settings of the level.
        n: number of rows of the level.
    """
    settings, machine, d = ask.settings, ask.machine, ask.n_columns
    m = n if level.n_fit is None else min(level.n_fit, n)
    fit, in_a_round = Fit(m, level.n_clusters, d), _rows_of_a_round(level, m)
    streamed = not fits(m + in_a_round, d, settings.memory_limit)
    name = f"level {number}: "
    n_rounds = level.n_resamples if in_a_round else 0
    host = _host_bytes(ask, fit, n, streamed)
    held = (Fit(in_a_round, fit.k, d),) if n_rounds else ()
    chip = chip_bytes(ask, fit, in_a_round, streamed)
    shared: dict[str, Any] = dict(chip_bytes=chip, host_bytes=host)
    read = 4.0 * n * d if number == 1 else 0.0
    steps = [
        Step(
            f"{name}read and normalize",
            max(ask.moved(2 * read), 2 * 4 * n * d / (ask.host_rate * machine.n_hosts)),
            "host",
            host_bytes=host,
            read=2 * read,
        )
    ]
    for what, rows, times in (
        ("all rows", fit, 1),
        *((f"{n_rounds} rounds", f, n_rounds) for f in held),
    ):
        on_disk = streamed and rows is fit
        for step in (
            _seeding(ask, rows, on_disk),
            _iterations(ask, rows, on_disk),
            _assign(ask, fit, streamed),
        ):
            steps.append(
                step._replace(
                    name=f"{name}{step.name}, {what}",
                    seconds=step.seconds * times,
                    read=step.read * times,
                    exchanged=step.exchanged * times,
                    **shared,
                )
            )
    if level.n_splits > 1:
        steps.append(_splits(ask, fit, level.n_splits)._replace(name=f"{name}splits", **shared))
    if m < n:
        rest = Fit(n - m, fit.k, d)
        steps.append(_assign(ask, rest, True)._replace(name=f"{name}rows not fitted", **shared))
    if ask.compile_seconds:
        shapes = 1 + bool(n_rounds)
        times = shapes * (_KERNELS["seeding"] + _KERNELS["iterations"]) + _KERNELS["assignment"]
        times *= _QUICK if is_small(m, d, fit.k) else 1
        steps.append(
            Step(f"{name}compilation", times * ask.compile_seconds, "host", ask.compile_source)
        )
    return steps


def _seeding(ask: Ask, fit: Fit, streamed: bool) -> Step:
    """Returns the step that chooses the first centroids."""
    (n, k, d), init, a_row = fit, ask.settings.cluster.init, 4.0 * fit.d
    if init == "random":
        return Step("seeding", 0.0)
    if init == "k-means||":
        some = 2 * k
        passes = ask.assigning(2.0 * n * d * some, a_row * n) * (N_ROUNDS + 1)
        drawn = min(n, some * N_ROUNDS)
        again, _ = _plus_plus(ask, Fit(drawn, k, d))
        return Step(
            "seeding",
            passes + again,
            "matrix products",
            read=(N_ROUNDS + 1) * a_row * n if streamed else 0.0,
        )
    seconds, by_memory = _plus_plus(ask, fit)
    read = a_row * n * k if streamed else 0.0
    seconds = max(seconds, ask.moved(read))
    return Step("seeding", seconds, "memory" if by_memory else "matrix products", read=read)


def _plus_plus(ask: Ask, fit: Fit) -> tuple[float, bool]:
    """Returns the time of greedy k-means++, and whether memory limits it."""
    n, k, d = fit
    trials, draws = n_candidates(k), n_ahead(k, d)
    steps = max(1.0, 0.8 * draws / trials)  # some draws are thinned out
    sets = k / steps
    products = ask.products(2.0 * n * d * draws * sets, 4.0 * n * d * sets)
    # Distances are written and read by a few passes, and each step reads those of its candidates.
    memory = ask.passing(4.0 * n * (3 * draws * sets + (2 * trials + 4) * k))
    waiting = 0.0 if ask.machine.chip.kind == "cpu" else _LATENCY * k
    return products + memory + waiting, memory + waiting > products


def _iterations(ask: Ask, fit: Fit, streamed: bool) -> Step:
    """Returns the step of Lloyd's iterations."""
    settings, machine = ask.settings, ask.machine
    n, k, d = fit
    max_iter, ring = settings.cluster.max_iter, settings.shard_centroids
    block = _BLOCKS[machine.chip.kind]
    passes = n_passes(fit, max_iter, block, machine.n_chips, ring=ring)
    iterations = n_iterations(fit, max_iter)
    search = ask.assigning(2.0 * n * d * k * passes, 0, settings.precision)
    # Rows are gathered for the sums and for their own scores.
    rows = ask.passing(4.0 * n * d * (passes + 3 * iterations))
    exchanged = 3 * 4.0 * k * d * iterations
    if ring:
        exchanged = 4.0 * 4 * k * d * (iterations + 1)
    links = machine.exchange(exchanged)
    read = 4.0 * n * d * (iterations + 1) if streamed else 0.0
    parts = {"matrix products": search, "memory": rows, "links": links}
    seconds, limit = search + rows + links, max(parts, key=lambda part: parts[part])
    if ask.moved(read) > seconds:
        seconds, limit = ask.moved(read), "reading"
    return Step("iterations", seconds, limit, read=read, exchanged=exchanged)


def _assign(ask: Ask, fit: Fit, streamed: bool) -> Step:
    """Returns the step that assigns all rows of the level."""
    n, k, d = fit
    seconds = ask.assigning(2.0 * n * d * k, 4.0 * n * d)
    read = 4.0 * n * d if streamed else 0.0
    limit = "reading" if ask.moved(read) > seconds else "matrix products"
    return Step("assignment", max(seconds, ask.moved(read)), limit, read=read)


def _splits(ask: Ask, fit: Fit, n_splits: int) -> Step:
    """Returns the step that splits each cluster."""
    n, k, d = fit
    own = Fit(max(1, n // k), n_splits, d)
    work = n_iterations(own, ask.settings.cluster.max_iter) + 1 + n_candidates(n_splits)
    seconds = ask.products(2.0 * n * d * n_splits * work, 4.0 * n * d * work)
    return Step("splits", seconds, "matrix products", read=4.0 * n * d)


def chip_bytes(ask: Ask, fit: Fit, in_a_round: int = 0, streamed: bool = False) -> float:
    """Returns the bytes of a chip at the peak of a k-means, as counted.

    Args:
        ask: the question.
        fit: rows and clusters.
        in_a_round: number of rows of a round of resampling, which are held besides.
        streamed: True if rows are read in chunks.
    """
    machine, d = ask.machine, fit.d
    if streamed:
        assert ask.settings.memory_limit is not None
        return ask.settings.memory_limit / machine.n_chips * 0.75
    block = _block(ask, fit.n)
    rows = padded_size(fit.n, machine.n_chips * block) / machine.n_chips
    rounds = 2 * in_a_round / machine.n_chips  # those of a round, while the next are chosen
    centroids = 4.0 * fit.k * d
    bounds = 4.0 * fit.k * rows / block if pays(int(rows), d, fit.k, block) else 0.0
    if ask.settings.shard_centroids:
        turning = _RING_COPIES * centroids / machine.n_chips + _ROW_BYTES * rows
    else:
        turning = _CENTROID_COPIES * centroids + _ROW_BYTES * rows + 2.5 * bounds
    seeding = 0.0
    if ask.settings.cluster.init == "k-means++":
        seeding = 3 * 4.0 * rows * n_ahead(fit.k, d) + 2 * centroids
    elif ask.settings.cluster.init == "k-means||":
        # Twice as many candidates, and tiles of them, are compared with all rows.
        seeding = 2 * 2 * centroids + 4.0 * d * N_ROUNDS * 2 * fit.k / machine.n_chips
    # Weights, and the state of the rows before and after.
    return 4.0 * d * (rows + rounds) + 36 * rows + max(turning, seeding)


def _block(ask: Ask, n: int) -> int:
    """Returns the number of rows in a block, which is less for few rows."""
    a_device = -(-n // ask.machine.n_chips)
    most = _BLOCKS[ask.machine.chip.kind]
    return min(most, max(SMALLEST_BLOCK, 1 << max(0, a_device - 1).bit_length()))


def _host_bytes(ask: Ask, fit: Fit, n: int, streamed: bool) -> float:
    """Returns the bytes of a host, besides those of devices."""
    (rows, limit), of_rows = (0.0, ask.settings.memory_limit), 1.0 * _HOST_ROW_BYTES * n
    if streamed and limit is not None:
        rows = limit / ask.machine.n_hosts * 0.25
        of_rows = max(0.0, of_rows - limit / 2)  # the limit counts them too
    elif ask.machine.n_hosts == 1 and limit is None:
        rows = 4.0 * fit.n * fit.d  # normalized once, and kept for the rounds
    return ask.base_bytes + rows + of_rows + 2 * 4.0 * fit.k * fit.d


def steps_of_clustering(ask: Ask) -> tuple[list[Step], list[str]]:
    """Returns the steps of all levels, and notes on what they assume.

    Examples:
        >>> from jaxcurate.config import ClusterConfig, Config, Level, SampleConfig
        >>> from jaxcurate.planning.machines import tpu_slice
        >>> cluster, sample = ClusterConfig((Level(1000),)), SampleConfig(100)
        >>> settings = Config("npy:x.npy", cluster, sample)
        >>> ask = Ask(settings, tpu_slice("v5e-8"), n_items=10**6, n_columns=64)
        >>> [step.name for step in steps_of_clustering(ask)[0]][1:3]
        ['level 1: seeding, all rows', 'level 1: iterations, all rows']
    """
    levels, n = ask.settings.cluster.levels, ask.n_items
    steps, notes = (
        [],
        [
            "numbers of iterations and pruned distances are those of mixtures of Gaussians",
        ],
    )
    for number, level in enumerate(levels, 1):
        steps += level_steps(ask, number, level, n)
        n = level.n_clusters * level.n_splits
    labels = 12.0 * ask.n_items
    centroids = sum(4.0 * level.n_clusters * level.n_splits * ask.n_columns for level in levels)
    written = labels + centroids
    steps.append(Step("write the tree", ask.moved(2 * written), "reading", written=written))
    if "cluster" in ask.compiles and ask.machine.topology is not None:
        steps = _with_compiled(ask, steps)
    return steps, notes


def _with_compiled(ask: Ask, steps: list[Step]) -> list[Step]:
    """Returns the steps with the memory of the largest k-means as the compiler reports it."""
    from jaxcurate.planning.ahead_of_time import compiled, devices_of
    from jaxcurate.planning.kernels import kernels

    settings, machine = ask.settings, ask.machine
    assert machine.topology is not None
    below = [ask.n_items, *(level.n_clusters * level.n_splits for level in settings.cluster.levels)]
    fits_ = [
        Fit(n if level.n_fit is None else min(n, level.n_fit), level.n_clusters, ask.n_columns)
        for n, level in zip(below, settings.cluster.levels, strict=False)
    ]
    largest = max(range(len(fits_)), key=lambda i: chip_bytes(_without_limit(ask), fits_[i]))
    fit, level = fits_[largest], settings.cluster.levels[largest]
    in_a_round = _rows_of_a_round(level, fit.n)
    n, name = fit.n, "ring" if settings.shard_centroids else "iterations"
    limit = settings.memory_limit
    if not fits(fit.n + in_a_round, fit.d, limit):
        assert limit is not None
        # As many rows as a chunk has, of which two are on the devices.
        n, name = max(1, limit // (16 * fit.d)), "streamed"
    block = _block(ask, n)
    padded = padded_size(n, machine.n_chips * block)
    k = padded_size(fit.k, machine.n_chips) if name == "ring" else fit.k
    ask.say(f"compiling {name!r} of {padded:,} x {fit.d} to {k:,} clusters for {machine.topology}")
    made = compiled(
        devices_of(machine.topology),
        kernels(padded, fit.d, k, machine.n_chips, block, settings.cluster.max_iter)[name],
        precision=settings.precision,
    )
    held = 4.0 * fit.d * in_a_round / machine.n_chips
    held += 4.0 * fit.d * padded / machine.n_chips if name == "streamed" else 0.0
    number = f"level {largest + 1}: "
    return [
        step._replace(chip_bytes=made.peak + held, memory_source="compiled", collectives=made.named)
        if step.name.startswith(f"{number}iterations")
        else step
        for step in steps
    ]


def _without_limit(ask: Ask) -> Ask:
    """Returns the question without a limit of memory, by which rows are streamed."""
    return dataclasses.replace(ask, settings=dataclasses.replace(ask.settings, memory_limit=None))
