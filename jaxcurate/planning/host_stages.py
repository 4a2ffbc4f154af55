"""Plans of the stages in which hosts do most of the work: dedup, sample and export."""

import math
from typing import Any

from jaxcurate.planning import clustering
from jaxcurate.planning.clustering import Fit
from jaxcurate.planning.steps import Ask, Step

_HASHED = 3e-7
"""Seconds in which a row is sorted among others by its hash and its group is found."""
_SAMPLED = 1.0e-7
"""Seconds in which a row is sampled, at 10^8 rows."""
_SAMPLED_BYTES = 60
"""Bytes of a row in sampling: labels, children, order and ids."""
_N_MEASURED = 20_000
"""Number of rows whose distance to the subset is measured."""
_MANIFEST_BYTES = 80
"""Bytes of a row of the manifest."""


def steps_of_dedup(ask: Ask) -> tuple[list[Step], list[str]]:
    """Returns the steps of deduplication, and notes on what they assume.

    Examples:
        >>> from jaxcurate.config import ClusterConfig, Config, Level, SampleConfig
        >>> from jaxcurate.planning.machines import tpu_slice
        >>> cluster, sample = ClusterConfig((Level(1000),)), SampleConfig(100)
        >>> settings = Config("npy:x.npy", cluster, sample)
        >>> ask = Ask(settings, tpu_slice("v5e-8"), n_items=10**6, n_columns=64)
        >>> [step.name for step in steps_of_dedup(ask)[0]]
        ['equal content']
    """
    n, d, settings = ask.n_items, ask.n_columns, ask.settings.dedup
    host = ask.base_bytes + 100.0 * n
    steps = [
        Step(
            "equal content",
            n * _HASHED * max(1.0, math.log10(n) / 6),
            host_bytes=host,
            read=16.0 * n,
        )
    ]
    if settings.threshold is None:
        return steps, []
    k = settings.n_clusters or max(1, round(n**0.5))
    fit = Fit(n, k, d)
    rows = 4.0 * n * d
    held = rows / ask.machine.n_hosts
    limit = ask.settings.memory_limit
    shared: dict[str, Any] = dict(host_bytes=host + (held if limit is None else min(held, limit)))
    chip = clustering.chip_bytes(ask, fit, 0, limit is not None and rows > limit)
    passes = min(10.0, clustering.n_passes(fit, 10, 4096, ask.machine.n_chips)) + 1
    seconds = ask.assigning(2.0 * n * d * k * passes, rows * 10)
    steps.append(
        Step("quick k-means", seconds, "matrix products", chip_bytes=chip, read=rows, **shared)
    )
    # Each cluster is compared with itself, once, and with its neighbors, of which some are shared.
    pairs = k * (0.5 + 0.75 * settings.n_neighbors)
    block = min(4096.0, max(32.0, 2 ** math.ceil(math.log2(max(1, n / k)))))
    n_blocks = math.ceil(n / k / block)
    flops = 2.0 * d * pairs * (n_blocks * block) ** 2
    moved = 4.0 * d * block * 2 * pairs * n_blocks**2
    copied = moved / (ask.host_rate * ask.machine.n_hosts)  # a process fills the blocks
    compared = ask.products(flops, moved)
    seconds, by = max((compared, "matrix products"), (copied, "host"))
    steps.append(Step("near-duplicates", seconds, by, chip_bytes=2**27 * 1.5, read=moved, **shared))
    return steps, ["clusters of equal size: pairs in large clusters grow with their square"]


def steps_of_sampling(ask: Ask) -> tuple[list[Step], list[str]]:
    """Returns the steps of sampling, and notes on what they assume.

    Examples:
        >>> from jaxcurate.config import ClusterConfig, Config, Level, SampleConfig
        >>> from jaxcurate.planning.machines import tpu_slice
        >>> cluster, sample = ClusterConfig((Level(1000),)), SampleConfig(100)
        >>> settings = Config("npy:x.npy", cluster, sample)
        >>> ask = Ask(settings, tpu_slice("v5e-8"), n_items=10**6, n_columns=64)
        >>> [step.name for step in steps_of_sampling(ask)[0]]
        ['sample', 'measure the subset']
    """
    n, d, size = ask.n_items, ask.n_columns, ask.settings.sample.size
    host = ask.base_bytes + _SAMPLED_BYTES * n
    measured = min(_N_MEASURED, n)
    flops = 2.0 * 2 * measured * min(size, n) * d
    return [
        Step(
            "sample",
            2 * n * _SAMPLED,
            host_bytes=host,
            read=24.0 * n,
            written=_MANIFEST_BYTES * size,
        ),
        Step(
            "measure the subset",
            ask.products(flops, 4.0 * d * size),
            host_bytes=host,
            read=4.0 * d * (measured + size),
        ),
    ], []


def steps_of_export(ask: Ask) -> tuple[list[Step], list[str]]:
    """Returns the steps of the export, and notes on what they assume.

    Examples:
        >>> from jaxcurate.config import ClusterConfig, Config, Level, SampleConfig
        >>> from jaxcurate.planning.machines import tpu_slice
        >>> cluster, sample = ClusterConfig((Level(1000),)), SampleConfig(100)
        >>> settings = Config("npy:x.npy", cluster, sample)
        >>> ask = Ask(settings, tpu_slice("v5e-8"), n_items=10**6, n_columns=64)
        >>> [step.name for step in steps_of_export(ask)[0]]
        ['export']
    """
    m, formats = min(ask.settings.sample.size, ask.n_items), ask.settings.export.formats
    copied = sum(name not in ("list", "link") for name in formats)
    n_bytes = m * ask.item_bytes * copied
    seconds = max(ask.moved(2 * n_bytes), 2e-5 * m * len(formats))
    by = "reading" if ask.moved(2 * n_bytes) >= seconds else "host"
    written = n_bytes + _MANIFEST_BYTES * m
    host = ask.base_bytes + _SAMPLED_BYTES * ask.n_items
    return [Step("export", seconds, by, host_bytes=host, read=n_bytes, written=written)], []
