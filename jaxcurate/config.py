"""Settings of a whole run, a frozen dataclass for each stage."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from jaxcurate.artifacts.tree import Metric
from jaxcurate.checks import InputError, check_choice, check_given, check_name, check_whole
from jaxcurate.curation.cover import Rule as DuplicateRule
from jaxcurate.curation.filters import FilterConfig
from jaxcurate.curation.level import Level, check_levels
from jaxcurate.curation.mixing import MixConfig, SampleConfig
from jaxcurate.curation.rules import Rule
from jaxcurate.dataclass_fields import placeholders
from jaxcurate.encoders import EmbedConfig
from jaxcurate.encoders.pca import MOST_COLUMNS
from jaxcurate.encoders.pixels import n_columns
from jaxcurate.evaluation import EvaluateConfig
from jaxcurate.export import FORMATS
from jaxcurate.kmeans.fit import InitName
from jaxcurate.kmeans.kernels.scores import Precision
from jaxcurate.runtime.devices import Mapper
from jaxcurate.sources import Recipe
from jaxcurate.training import PretrainConfig

__all__ = [
    "ClusterConfig",
    "Config",
    "DedupConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FilterConfig",
    "GrowConfig",
    "Level",
    "MixConfig",
    "PretrainConfig",
    "Recipe",
    "Rule",
    "SampleConfig",
    "to_config",
]

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_MOST_PIXELS = 2**15
"""Largest side of a picture. A single picture of this size takes 3 GB."""

OLD_NAMES = {
    "Settings": "Config",
    "Clustering": "ClusterConfig",
    "Deduplication": "DedupConfig",
    "Embedding": "EmbedConfig",
    "Evaluation": "EvaluateConfig",
    "Exporting": "ExportConfig",
    "Growing": "GrowConfig",
    "Mixing": "MixConfig",
    "Pretraining": "PretrainConfig",
    "Sampling": "SampleConfig",
}
"""New name of each class that has another name in configuration files of older releases."""


@dataclass(frozen=True)
class DedupConfig:
    """Settings of deduplication, which excludes duplicates from clustering and sampling."""

    enabled: bool = True
    """True to remove duplicates: by default those of equal content. False skips the stage."""
    content: Literal["items", "embeddings"] = "items"
    """Content that exact duplicates share: decoded pictures and texts, or embeddings. Vectors have
    embeddings alone."""
    threshold: float | None = None
    """Cosine similarity at or above which two rows are near-duplicates. None, the default, keeps
    near-duplicates. 0.99 is safe for features of EfficientNet at 224 pixels. No threshold is safe
    for principal components of pixels, by which different pictures are nearly equal."""
    rule: DuplicateRule = "cover"
    """Rule by which near-duplicates go: `cover` drops a row only if a row that stays is within the
    threshold. `components` keeps one row of each chain of near-duplicates."""
    keep: str | None = None
    """Column whose largest value stays, such as `side` or a column of the source. By default the
    row with most near-duplicates stays."""
    leaks: Literal["keep", "list", "remove"] = "keep"
    """Treatment of items of the pool that are duplicates of held-out items, of
    `evaluate.probe_split` and `evaluate.test_split`: `keep` does not seek them, `list` counts and
    lists them, `remove` drops them from the pool as well."""
    n_clusters: int | None = None
    """Number of clusters of the quick k-means whose neighborhoods are searched. By default the
    square root of the number of rows."""
    n_neighbors: int = 8
    """Number of neighboring clusters that each cluster is compared with."""

    OLD_FIELDS: ClassVar[dict[str, str]] = {"n_neighbours": "n_neighbors"}

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise InputError(
                f"threshold={self.threshold} must be above 0 and at most 1; None keeps "
                "near-duplicates"
            )
        check_given("n_clusters", self.n_clusters, "takes the square root of the number of rows")
        check_choice("rule", self.rule, get_args(DuplicateRule))
        check_given("keep", self.keep, "keeps the row with most near-duplicates")
        check_whole("n_neighbors", self.n_neighbors, 0)


@dataclass(frozen=True)
class ClusterConfig:
    """Settings of hierarchical k-means."""

    levels: tuple[Level, ...]
    """Levels, bottom up. Another number of levels needs another configuration file, or all levels
    on the command line: `--config.cluster.levels="({'n_clusters': 100},)"`."""
    max_iter: int = 50
    """Largest number of Lloyd's iterations of each k-means."""
    init: InitName = "k-means++"
    """Seeding: `k-means++` takes a pass over the rows for each cluster, `k-means||` six in all."""
    metric: Metric = "euclidean"
    """Distance: `euclidean`, or `cosine`, which scales rows and centroids to length 1."""

    OLD_FIELDS: ClassVar[dict[str, str]] = {
        name: f"levels[0].{name}=... and so on, one for each level, which a configuration file "
        f"gives as levels=(Level({name}=...), ...)"
        for name in ("n_clusters", "n_resamples", "n_per_cluster", "n_splits", "n_fit", "resample")
    }

    def __post_init__(self) -> None:
        check_levels(self.levels)
        check_whole("max_iter", self.max_iter, 1)


@dataclass(frozen=True)
class ExportConfig:
    """Settings of the export of the items of the subset, as they are stored."""

    format: str = field(default="list", metadata={"known": FORMATS})
    """Formats of the items, one or several with commas between them: `list` (ids and paths alone),
    `link`, `copy`, `tfds`, `webdataset`, `huggingface`, `parquet` or `npy`."""
    shard_size: int = 10_000
    """Largest number of items of a file, in formats of several files."""

    def __post_init__(self) -> None:
        for name in self.formats:
            check_choice("format", name, FORMATS)
        check_whole("shard_size", self.shard_size, 1)

    @property
    def formats(self) -> tuple[str, ...]:
        """Names of the formats."""
        return tuple(dict.fromkeys(self.format.split(",")))


@dataclass(frozen=True)
class GrowConfig:
    """Settings of growth, by which new items join the pool and its tree without a refit."""

    source: str | None = None
    """Name of the source of the new items, in the same form as that of the pool. None skips the
    stage."""
    split: str = "train"
    """Split of a TFDS dataset that holds the new items."""
    prefix: str = ""
    """Prefix of the ids of new items, which distinguishes them from those of the pool."""
    name: str = "grown"
    """Name of the folder in `grown/`."""
    refit: bool = False
    """True clusters branches anew which the new items do not fit, if that is enough."""

    def __post_init__(self) -> None:
        check_given("source", self.source, "grows by nothing")
        check_name(self.name)


@dataclass(frozen=True)
class Config:
    """Settings of a whole run.

    Examples:
        >>> config = Config(
        ...     source="npy:embeddings.npy",
        ...     cluster=ClusterConfig(levels=(Level(1000), Level(100))),
        ...     sample=SampleConfig(size=500),
        ... )
        >>> config.cluster.metric, config.dedup.enabled
        ('euclidean', True)
    """

    source: str
    """Source of the items: `tfds:NAME`, `folder:PATH` or `npy:PATH`."""
    cluster: ClusterConfig
    sample: SampleConfig
    split: str = "train"
    """Split of a TFDS dataset that is the pool."""
    data_dir: str | None = None
    """Folder of TFDS datasets. By default `$JAXCURATE_DATA`, or `data` if it is not set."""
    download: bool = False
    """True to let TFDS download a dataset that is not in `data_dir`, and run the program that
    prepares it."""
    strict: bool = False
    """True to refuse the first item that cannot be used, instead of skipping and listing it."""
    content_key: str | None = None
    """Feature or column with the picture, text or vector. By default it is found automatically."""
    id_key: str | None = None
    """Feature or column with the ids. By default it is found automatically."""
    label_key: str | None = None
    """Feature or column with the labels, which only `evaluate` reads. By default it is found
    automatically."""
    domain_key: str | None = None
    """Feature or column with the domains, which only `evaluate` reads. By default it is found
    automatically."""
    columns: tuple[str, ...] = ()
    """Columns of the source that travel with the items, into the pool and the manifest."""
    verify: Literal["stat", "content"] = "stat"
    """Basis of the fingerprint of files: their sizes and times of change, or their content."""
    recipe: Recipe | None = None
    """Recipe of the synthetic pool `tfds:weblike`."""
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    grow: GrowConfig = field(default_factory=GrowConfig)
    title: str | None = None
    """Heading of the report. By default the name of the source."""
    seed: int = 0
    """Seed of all random numbers."""
    platform: Literal["cpu", "gpu", "tpu"] | None = None
    """Kind of device that is required. By default the best kind that exists."""
    n_devices: int | None = None
    """Number of devices. By default all, and on a CPU a device for each core."""
    memory_limit: int | None = None
    """Bytes of host and device memory that embeddings may take in `dedup` and `cluster`. If they
    take more, they are read in chunks. By default there is no limit. The other stages read a few
    megabytes at a time in any case. As with the number of devices, a new value does not make a
    stage run again: the results are the same up to the order of float32 sums."""
    mapper: Mapper = "shard_map"
    """Transformation that distributes kernels over devices."""
    precision: Precision = "float32"
    """Precision of the first computation of distances in `cluster`. Labels do not depend on it."""
    shard_centroids: bool = False
    """True to split the centroids over the devices in `cluster`, which makes room on each device
    once the seeding, which holds all of them, is over."""
    checkpoint_minutes: float = 5.0
    """Minutes between two checkpoints of `embed` and `cluster`, from which they continue after a
    kill."""

    OLD_FIELDS: ClassVar[dict[str, str]] = {
        "image_size": "embed.resolution=... for the encoder, which reads pictures at its own size "
        "by default, and evaluate.pretraining.model.image_size=... for training",
        "image_key": "content_key",
    }

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:  # seeds of further arms and runs are larger
            raise InputError(f"seed={self.seed} must be within [0, 2**31)")
        for name, otherwise in (
            ("data_dir", "takes $JAXCURATE_DATA, or else data"),
            ("content_key", "finds the content"),
            ("id_key", "finds the ids"),
            ("label_key", "finds the labels"),
            ("domain_key", "finds the domains"),
            ("n_devices", "takes all devices"),
            ("memory_limit", "sets no limit"),
        ):
            check_given(name, getattr(self, name), otherwise)
        check_choice("verify", self.verify, ("stat", "content"))
        side = self.embed.resolution or 1
        if not 1 <= side <= _MOST_PIXELS:
            raise InputError(f"embed.resolution={side} must be from 1 to {_MOST_PIXELS} pixels")
        if self.checkpoint_minutes < 0:
            raise InputError(f"checkpoint_minutes={self.checkpoint_minutes} must not be negative")
        self._check_pca()
        if self.evaluate.flat_level > len(self.cluster.levels):
            raise InputError(
                f"evaluate.flat_level={self.evaluate.flat_level}, but cluster has "
                f"{len(self.cluster.levels)} level(s)"
            )
        self._check_arms()

    def _check_arms(self) -> None:
        """Refuses arms that need something which the other settings do not ask for."""
        arms = self.evaluate.arms
        if "deduplicated" in arms and not self.dedup.enabled:
            raise InputError(
                "evaluate.arms has 'deduplicated', but deduplication is off: "
                "config.dedup.enabled=True turns it on"
            )
        if "mixed" in arms and not (self.evaluate.mix.is_mixed or self.sample.mix.is_mixed):
            raise InputError(
                "evaluate.arms has 'mixed', but there is no mixture: give its fractions, such as "
                "config.evaluate.mix.curated=0.5 and config.evaluate.mix.raw=0.5"
            )

    def _check_pca(self) -> None:
        """Refuses more columns of pixels than `pca` can use, before any item is read."""
        side = self.embed.resolution
        if self.embed.encoder == "pca" and side and n_columns(side) > MOST_COLUMNS:
            most = math.isqrt(MOST_COLUMNS // n_columns(1))
            raise InputError(
                f"embed.resolution={side} gives the encoder pca {n_columns(side)} columns, at most "
                f"{MOST_COLUMNS}: config.embed.resolution={most} or less works, and so do other "
                "encoders"
            )


def to_config(settings: Config) -> "ConfigDict":
    """Returns settings as a ConfigDict, whose fields can be set on the command line.

    Args:
        settings: settings of a run.

    Returns:
        A ConfigDict with the fields of ``settings``, and a placeholder for each that is None.

    Examples:
        >>> cluster, sample = ClusterConfig(levels=(Level(10),)), SampleConfig(size=5)
        >>> config = to_config(Config("npy:x.npy", cluster, sample))
        >>> config.cluster.levels[0].n_clusters = 20
        >>> config.cluster.levels[0].n_clusters, config.seed
        (20, 0)
    """
    from ml_collections import ConfigDict

    return ConfigDict(placeholders(settings))
