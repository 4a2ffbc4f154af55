"""Settings of a whole run, a frozen dataclass for each stage."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxcurate.artifacts.tree import Metric
from jaxcurate.checks import InputError, check_choice, check_given, check_name, check_whole
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

    enabled: bool = False
    """True to remove duplicates. By default the stage is skipped."""
    content: Literal["items", "embeddings"] = "items"
    """Content that exact duplicates share: the items, which are read once more, or their
    embeddings."""
    threshold: float | None = 0.95
    """Cosine similarity at or above which two rows are near-duplicates. None disables the removal
    of near-duplicates."""
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
    """Settings of the export of the items of the subset."""

    format: str = field(default="auto", metadata={"known": FORMATS})
    """Format of the files: a file of each image, one file of all items, or the one that fits the
    items."""

    def __post_init__(self) -> None:
        check_choice("format", self.format, FORMATS)


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
        ('euclidean', False)
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
    image_size: int = 32
    """Side in pixels to which pictures are resized."""
    image_key: str | None = None
    """Image feature of a TFDS dataset. By default it is found automatically."""
    label_key: str | None = None
    """Label feature of a TFDS dataset. By default it is found automatically."""
    recipe: Recipe | None = None
    """Recipe of the synthetic pool `tfds:weblike`."""
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    grow: GrowConfig = field(default_factory=GrowConfig)
    title: str = "Curated pool"
    """Heading of the report."""
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
    """True to split the centroids over the devices in `cluster`, for more centroids than one
    device can hold."""
    checkpoint_minutes: float = 5.0
    """Minutes between two checkpoints of `cluster`, from which it continues after a kill."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:  # seeds of further arms and runs are larger
            raise InputError(f"seed={self.seed} must be within [0, 2**31)")
        for name, otherwise in (
            ("data_dir", "takes $JAXCURATE_DATA, or else data"),
            ("image_key", "finds the image"),
            ("label_key", "finds the label"),
            ("n_devices", "takes all devices"),
            ("memory_limit", "sets no limit"),
        ):
            check_given(name, getattr(self, name), otherwise)
        for name, side in (
            ("image_size", self.image_size),
            ("embed.resolution", self.embed.resolution or 1),
        ):
            if not 1 <= side <= _MOST_PIXELS:
                raise InputError(f"{name}={side} must be from 1 to {_MOST_PIXELS} pixels")
        if self.checkpoint_minutes < 0:
            raise InputError(f"checkpoint_minutes={self.checkpoint_minutes} must not be negative")
        self._check_pca()
        if self.evaluate.flat_level > len(self.cluster.levels):
            raise InputError(
                f"evaluate.flat_level={self.evaluate.flat_level}, but cluster has "
                f"{len(self.cluster.levels)} level(s)"
            )

    def _check_pca(self) -> None:
        """Refuses more columns of pixels than `pca` can use, before any item is read."""
        if self.embed.encoder != "pca" or self.source.startswith("npy:"):
            return
        side = self.embed.resolution or self.image_size
        if n_columns(side) > MOST_COLUMNS:
            most = math.isqrt(MOST_COLUMNS // n_columns(1))
            raise InputError(
                f"image_size={self.image_size} with embed.resolution={self.embed.resolution} gives "
                f"the encoder pca {n_columns(side)} columns, at most {MOST_COLUMNS}: "
                f"config.embed.resolution={most} or less works, and so do other encoders"
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
