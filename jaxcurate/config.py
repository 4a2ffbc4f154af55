"""Settings of a whole run, one frozen dataclass for each stage."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxcurate.artifacts.tree import Metric
from jaxcurate.checks import InputError, check_choice, check_given, check_name, check_whole
from jaxcurate.curation.level import Level, check_levels
from jaxcurate.curation.mixing import MixConfig, SampleConfig
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
    "GrowConfig",
    "Level",
    "MixConfig",
    "PretrainConfig",
    "Recipe",
    "SampleConfig",
    "to_config",
]

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_MOST_PIXELS = 2**15
"""A side of a picture, at most: one of these takes 3 GB."""


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
"""What a configuration file of an older release calls a class, and what it is called now."""


@dataclass(frozen=True)
class DedupConfig:
    """Settings of deduplication, which leaves duplicates out of clustering and sampling."""

    enabled: bool = False
    """Whether there is this stage at all."""
    content: Literal["items", "embeddings"] = "items"
    """Content that exact duplicates share: the items, which are read once more, or their
    embeddings."""
    threshold: float | None = 0.95
    """Cosine similarity at or above which two rows are near-duplicates. None disables the removal
    of near-duplicates."""
    n_clusters: int | None = None
    """Clusters of the quick k-means whose neighborhoods are searched; by default the square root
    of the number of rows."""
    n_neighbors: int = 8
    """Number of neighboring clusters that each cluster is compared with."""

    OLD_FIELDS: ClassVar[dict[str, str]] = {"n_neighbours": "n_neighbors"}

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise InputError(
                f"threshold={self.threshold} must be above 0 and at most 1; None leaves "
                "near-duplicates be"
            )
        check_given("n_clusters", self.n_clusters, "takes the square root of the number of rows")
        check_whole("n_neighbors", self.n_neighbors, 0)


@dataclass(frozen=True)
class ClusterConfig:
    """Levels of hierarchical k-means, and what they have in common."""

    levels: tuple[Level, ...]
    """Levels, bottom up. Another number of levels needs a configuration file of its own, or all
    fields of each on the command line: `--config.cluster.levels="({'n_clusters': 100},)"`."""
    max_iter: int = 50
    """Lloyd's iterations at most, each time."""
    init: InitName = "k-means++"
    """Seeding: `k-means++` takes a pass over the rows for each cluster, `k-means||` six in all."""
    metric: Metric = "euclidean"
    """Distance; `cosine` brings rows and centroids to length 1."""

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
    """Settings of the export of the subset's items."""

    format: str = field(default="auto", metadata={"known": FORMATS})
    """Format of the files: one for each image, one for all items, or what suits the items."""

    def __post_init__(self) -> None:
        check_choice("format", self.format, FORMATS)


@dataclass(frozen=True)
class GrowConfig:
    """New items that join the pool and its tree, which is not refitted."""

    source: str | None = None
    """Source of the new items, named as the pool's; without it there is no such stage."""
    split: str = "train"
    """Split of a TFDS dataset that holds the new items."""
    prefix: str = ""
    """Text that the ids of new items begin with, to tell them from those of the pool."""
    name: str = "grown"
    """Name of the folder in `grown/`."""

    def __post_init__(self) -> None:
        check_given("source", self.source, "grows by nothing")
        check_name(self.name)


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on."""

    source: str
    """Source of the items: `tfds:NAME`, `folder:PATH` or `npy:PATH`."""
    cluster: ClusterConfig
    sample: SampleConfig
    split: str = "train"
    """Split of a TFDS dataset that is the pool."""
    data_dir: str | None = None
    """Folder of TFDS datasets; by default `$JAXCURATE_DATA`, or else `data`."""
    download: bool = False
    """Whether TFDS may download a dataset that is not in `data_dir`, and run the program that
    prepares it."""
    strict: bool = False
    """Whether to refuse the first item that cannot be used instead of leaving it out and listing
    it."""
    image_size: int = 32
    """Pixels a side that pictures are read at."""
    image_key: str | None = None
    """Image feature of a TFDS dataset, where it is not found by itself."""
    label_key: str | None = None
    """Label feature of a TFDS dataset, where it is not found by itself."""
    recipe: Recipe | None = None
    """Recipe of the made-up pool `tfds:weblike`."""
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    grow: GrowConfig = field(default_factory=GrowConfig)
    title: str = "Curated pool"
    """Heading of the report."""
    seed: int = 0
    """Seed of everything random."""
    platform: Literal["cpu", "gpu", "tpu"] | None = None
    """Kind of device that has to be there; by default the best that is."""
    n_devices: int | None = None
    """Number of devices; by default all, and on a CPU a device for each core."""
    memory_limit: int | None = None
    """Bytes of host and device memory that embeddings may take in `dedup` and `cluster`, where
    they are read in chunks beyond it; by default there is no limit. The other stages read a few
    megabytes at a time in any case. As with the number of devices, a change is no reason to do a
    stage again: the results are the same up to the order of float32 sums."""
    mapper: Mapper = "shard_map"
    """Transformation that spreads kernels over devices."""
    precision: Precision = "float32"
    """Precision of the distances that `cluster` tries first; the labels are the same."""
    shard_centroids: bool = False
    """Split centroids over the devices in `cluster`, for more than one of them can hold."""
    checkpoint_minutes: float = 5.0
    """Minutes between two checkpoints of `cluster`, from which it goes on after a kill."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:  # those of further arms and runs count on from it
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
        """Refuses more columns of pixels than `pca` takes, before any of them is read."""
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
    """Returns a ConfigDict, whose fields can be set on the command line."""
    from ml_collections import ConfigDict

    return ConfigDict(placeholders(settings))
