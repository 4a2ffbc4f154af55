"""Settings of a whole run, one frozen dataclass for each stage."""

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxcurate.artifacts.tree import Metric
from jaxcurate.checks import InputError, check_whole
from jaxcurate.curation.level import Level
from jaxcurate.curation.mixing import Mix
from jaxcurate.dataclass_fields import placeholders
from jaxcurate.encoders import EmbedConfig
from jaxcurate.encoders.pca import MOST_COLUMNS
from jaxcurate.encoders.pixels import n_columns
from jaxcurate.export import FORMATS
from jaxcurate.kmeans.fit import InitName
from jaxcurate.kmeans.kernels.scores import Precision
from jaxcurate.runtime.devices import Mapper
from jaxcurate.sources import Recipe
from jaxcurate.training import PretrainConfig

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_MOST_PIXELS = 2**15
"""A side of a picture, at most: one of these takes 3 GB."""
_LONGEST_NAME = 200
"""Bytes of a folder's name, of which file systems take 255."""


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
        if self.n_clusters is not None:
            check_whole("n_clusters", self.n_clusters, 1)
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
        name: f"levels[0].{name}=..., levels[1].{name}=... and so on, one for each level"
        for name in ("n_clusters", "n_resamples", "n_per_cluster", "n_splits", "n_fit", "resample")
    }

    def __post_init__(self) -> None:
        if not self.levels:
            raise InputError("levels is empty: at least one level is needed")
        check_whole("max_iter", self.max_iter, 1)
        totals = [level.n_clusters * level.n_splits for level in self.levels]
        for below, k in itertools.pairwise(totals):
            if k > below:
                raise InputError(
                    f"n_clusters of the levels, {totals} with splits, must not grow from level to "
                    "level"
                )


@dataclass(frozen=True)
class MixConfig:
    """Parts of the subset, as `Mix` has them: curated alone by default.

    References are items like the pool's and are embedded in the same way: an encoder that is
    fitted to the pool is fitted once more.
    """

    curated: float = 1.0
    """Fraction of the subset that is balanced over the tree."""
    retrieved: float = 0.0
    """Fraction of the subset that is nearest to the references."""
    raw: float = 0.0
    """Fraction of the subset that is drawn uniformly from all other rows."""
    references: str | None = None
    """Source of the references, named as the pool's."""
    split: str = "train"
    """Split of a TFDS dataset that holds the references."""
    n_per_query: int = 10
    """Rows that one reference can add at most."""
    metric: Metric = "cosine"
    """Distance by which rows are near to a reference."""

    def __post_init__(self) -> None:
        if self.n_per_query < 1:
            raise InputError(f"n_per_query={self.n_per_query} must be at least 1")
        if self.shares.retrieved and not self.references:
            raise InputError(f"retrieved={self.retrieved} needs references to be near to")

    @property
    def shares(self) -> Mix:
        """The shares alone."""
        return Mix(self.curated, self.retrieved, self.raw)

    @property
    def is_mixed(self) -> bool:
        """Whether there is any other part than the curated one."""
        return bool(self.retrieved or self.raw)


@dataclass(frozen=True)
class SampleConfig:
    """Settings of the balanced subset and of its folder."""

    size: int
    """Rows of the subset."""
    name: str = "curated"
    """Name of the folders in `subsets/` and `exports/`."""
    strategy: Literal["random", "closest"] = "random"
    """Rows of a cluster that are taken: any, or those closest to its centroid."""
    max_repeats: int = 1
    """Times that one row may be in the subset."""
    mix: MixConfig = field(default_factory=MixConfig)

    def __post_init__(self) -> None:
        for name in ("size", "max_repeats"):
            check_whole(name, getattr(self, name), 1)
        if self.mix.is_mixed and self.max_repeats > 1:
            raise InputError(f"max_repeats={self.max_repeats} must be 1 in a mixture (mix)")
        _check_name(self.name)


@dataclass(frozen=True)
class ExportConfig:
    """Settings of the export of the subset's items."""

    format: str = "auto"
    """Format of the files: `png` for images, `npy`, or `auto` for what suits the items."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"format={self.format!r}; known: {', '.join(FORMATS)}")


ARMS = {
    "curated": "the subset",
    "random": "as many rows, uniformly at random",
    "pool": "all rows",
    "flat": "as many rows, balanced over the clusters of one level alone",
    "stratified": "all rows, in batches that are balanced over the tree",
}
"""Arms of the comparison by pretraining, and the rows that each trains on."""


@dataclass(frozen=True)
class EvaluateConfig:
    """The comparison by pretraining."""

    arms: tuple[str, ...] = ("curated", "random", "pool")
    """Arms that are pretrained on: `curated`, `random`, `pool`, `flat`, `stratified`. With none,
    the balance alone is told."""
    flat_level: int = 1
    """Level that the flat arm is balanced over."""
    stratified_by: Literal["clusters", "rows"] = "clusters"
    """Clusters or rows, whichever the stratified arm sees equally often, as
    :class:`jaxcurate.curation.stratified_batches.Batches` has it."""
    n_seeds: int = 5
    """Number of pretrainings of each arm, with seeds that follow each other."""
    probe_split: str = "probe"
    """Split with the labeled items that the probes learn from, outside the pool."""
    test_split: str = "test"
    """Split with the labeled items that the probes are tested on, outside both."""
    pretraining: PretrainConfig = field(default_factory=PretrainConfig)

    def __post_init__(self) -> None:
        unknown = set(self.arms) - set(ARMS)
        if unknown or len(set(self.arms)) < len(self.arms):
            raise InputError(f"arms={self.arms}; known, each once: {', '.join(ARMS)}")
        if self.n_seeds < 1:
            raise InputError(f"n_seeds={self.n_seeds} must be at least 1")
        if self.flat_level < 1:
            raise InputError(f"flat_level={self.flat_level} must be at least 1")


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
        _check_name(self.name)


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
        for name in ("n_devices", "memory_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} must be at least 1; None sets no limit")
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


def _check_name(name: str) -> None:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"name={name!r} must be of letters, digits, '-' and '_'")
    if len(name.encode()) > _LONGEST_NAME:
        raise InputError(f"name={name!r} has more than {_LONGEST_NAME} bytes")


def to_config(settings: Config) -> "ConfigDict":
    """Returns a ConfigDict, whose fields can be set on the command line."""
    from ml_collections import ConfigDict

    return ConfigDict(placeholders(settings))
