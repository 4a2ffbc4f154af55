"""The settings of a whole run, one frozen dataclass for each stage."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jaxcurate.checks import InputError, check_whole
from jaxcurate.curation.level import Level
from jaxcurate.curation.mixing import Mix
from jaxcurate.encoders import Embedding
from jaxcurate.encoders.pca import MOST_COLUMNS
from jaxcurate.encoders.pixels import n_columns
from jaxcurate.export import FORMATS
from jaxcurate.sources import Recipe
from jaxcurate.training import Pretraining

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_MOST_PIXELS = 2**15
"""A side of a picture, at most: one of these takes 3 GB."""
_LONGEST_NAME = 200
"""Bytes of a folder's name, of which file systems take 255."""


@dataclass(frozen=True)
class Deduplication:
    """What counts as the same, where duplicates are left out of clustering and sampling."""

    enabled: bool = False
    """Without it there is no such stage."""
    content: Literal["items", "embeddings"] = "items"
    """Rows are the same where these are: the items as they are read, once more, or their
    embeddings."""
    threshold: float = 0.95
    """Rows of at least this cosine are nearly the same; 0 leaves them be."""
    n_clusters: int = 0
    """Of the quick k-means that gives neighbourhoods; 0 for the root of the pool's size."""
    n_neighbours: int = 8
    """With how many of the nearest clusters each is compared."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold={self.threshold} must be from 0 to 1")
        for name in ("n_clusters", "n_neighbours"):
            check_whole(name, getattr(self, name), 0)


@dataclass(frozen=True)
class Clustering:
    """The levels of hierarchical k-means, bottom up: one entry a level in each tuple."""

    n_clusters: tuple[int, ...]
    n_resamples: tuple[int, ...]
    n_per_cluster: tuple[int, ...]
    n_splits: tuple[int, ...] = ()
    """Empty: no level is split."""
    n_fit: tuple[int, ...] = ()
    """Rows that a level's centroids are made from, 0 for all; empty: all at every level."""
    max_iter: int = 50
    init: Literal["k-means++", "k-means||", "random"] = "k-means++"
    """``"k-means++"`` takes a pass over the rows for each cluster, ``"k-means||"`` six in all."""
    metric: Literal["euclidean", "cosine"] = "euclidean"
    resample: Literal["closest", "random"] = "closest"
    """Which points a cluster gives to a round of resampling."""

    def __post_init__(self) -> None:
        lengths = {len(self.n_clusters), len(self.n_resamples), len(self.n_per_cluster)}
        lengths |= {len(optional) for optional in (self.n_splits, self.n_fit) if optional}
        if len(lengths) > 1 or 0 in lengths:
            raise InputError(
                "n_clusters, n_resamples, n_per_cluster, n_splits and n_fit must have one entry "
                f"for each level, not {self.n_clusters}, {self.n_resamples}, "
                f"{self.n_per_cluster}, {self.n_splits} and {self.n_fit}"
            )
        if self.max_iter < 1:
            raise InputError(f"max_iter={self.max_iter} must be at least 1")
        below = None
        for k in (level.n_clusters * level.n_splits for level in self.levels):
            if below is not None and k > below:
                raise InputError(f"n_clusters={self.n_clusters} must not grow from level to level")
            below = k

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, bottom up."""
        splits = self.n_splits or (1,) * len(self.n_clusters)
        n_fit = self.n_fit or (0,) * len(self.n_clusters)
        each = self.n_clusters, self.n_resamples, self.n_per_cluster, splits, n_fit
        return tuple(Level(*one, self.resample) for one in zip(*each, strict=True))


@dataclass(frozen=True)
class Mixing:
    """Parts of the subset, as `Mix` has them: curated alone by default.

    References are items like the pool's and are embedded in the same way: an encoder that is
    fitted to the pool is fitted once more.
    """

    curated: float = 1.0
    """Share that is balanced over the tree."""
    retrieved: float = 0.0
    """Share of rows that are nearest to the references."""
    raw: float = 0.0
    """Share that is drawn uniformly of all that is left."""
    references: str = ""
    """Where references come from: a source such as the pool's."""
    split: str = "train"
    """Of a TFDS dataset: the references."""
    n_per_query: int = 10
    """Rows that one reference can add at most."""
    metric: Literal["cosine", "euclidean"] = "cosine"
    """What nearest means."""

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
class Sampling:
    """How the subset is drawn."""

    size: int
    name: str = "curated"
    """Of the folder in ``subsets/``."""
    strategy: Literal["random", "closest"] = "random"
    max_repeats: int = 1
    mix: Mixing = field(default_factory=Mixing)

    def __post_init__(self) -> None:
        for name in ("size", "max_repeats"):
            check_whole(name, getattr(self, name), 1)
        if self.mix.is_mixed and self.max_repeats > 1:
            raise InputError(f"max_repeats={self.max_repeats} must be 1 in a mixture (mix)")
        _check_name(self.name)


@dataclass(frozen=True)
class Exporting:
    """What becomes of the subset's items."""

    format: str = "auto"
    """``"png"`` for images, ``"npy"``, or ``"auto"`` for what suits the items."""

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
"""What each arm of the comparison trains on."""


@dataclass(frozen=True)
class Evaluation:
    """The comparison by pretraining."""

    arms: tuple[str, ...] = ("curated", "random", "pool")
    """Of :data:`ARMS`; none: only the balance is told."""
    flat_level: int = 1
    """The level that the flat arm is balanced over."""
    stratified_by: Literal["clusters", "rows"] = "clusters"
    """What the stratified arm sees equally often, as
    :class:`jaxcurate.curation.stratified_batches.Batches` has it."""
    n_seeds: int = 5
    probe_split: str = "probe"
    """Labelled items that the probes learn from, outside the pool."""
    test_split: str = "test"
    """Labelled items that they are tested on, outside both."""
    pretraining: Pretraining = field(default_factory=Pretraining)

    def __post_init__(self) -> None:
        unknown = set(self.arms) - set(ARMS)
        if unknown or len(set(self.arms)) < len(self.arms):
            raise InputError(f"arms={self.arms}; known, each once: {', '.join(ARMS)}")
        if self.n_seeds < 1:
            raise InputError(f"n_seeds={self.n_seeds} must be at least 1")
        if self.flat_level < 1:
            raise InputError(f"flat_level={self.flat_level} must be at least 1")


@dataclass(frozen=True)
class Growing:
    """New items that join the pool and its tree, which is not refitted."""

    source: str = ""
    """Where they come from: a source such as the pool's; without it there is no such stage."""
    split: str = "train"
    """Of a TFDS dataset: the new items."""
    prefix: str = ""
    """What their ids begin with, to tell them from those of the pool."""
    name: str = "grown"
    """Of the folder in ``grown/``."""

    def __post_init__(self) -> None:
        _check_name(self.name)


@dataclass(frozen=True)
class Settings:
    """Everything that a run depends on."""

    source: str
    """Where items come from: ``tfds:NAME``, ``folder:PATH`` or ``npy:PATH``."""
    cluster: Clustering
    sample: Sampling
    split: str = "train"
    """Of a TFDS dataset: the pool."""
    data_dir: str = ""
    """Of TFDS datasets; "" for ``$JAXCURATE_DATA``, or else ``data``."""
    download: bool = False
    """Lets TFDS download a dataset that is not in `data_dir`, and run the program that prepares
    it."""
    strict: bool = False
    """Refuse the first item that cannot be used instead of leaving it out and listing it."""
    image_size: int = 32
    """Pixels a side."""
    image_key: str = ""
    """The image feature of a TFDS dataset, where it is not found by itself."""
    label_key: str = ""
    """The label feature of a TFDS dataset, where it is not found by itself."""
    recipe: Recipe | None = None
    """Of ``tfds:weblike``."""
    embed: Embedding = field(default_factory=Embedding)
    dedup: Deduplication = field(default_factory=Deduplication)
    export: Exporting = field(default_factory=Exporting)
    evaluate: Evaluation = field(default_factory=Evaluation)
    grow: Growing = field(default_factory=Growing)
    title: str = "Curated pool"
    """Heading of the report."""
    seed: int = 0
    platform: Literal["", "cpu", "gpu", "tpu"] = ""
    """Kind of device that has to be there; "" for the best that is."""
    n_devices: int = 0
    """0 for all; on a CPU, a device for each core."""
    memory_limit: int = 0
    """Bytes of host and device memory that embeddings may take in `dedup` and `cluster`, where
    they are read in chunks beyond it; 0 for no limit. The other stages read a few megabytes at a
    time in any case. As with the number of devices, a change is no reason to do a stage again: the
    results are the same up to the order of float32 sums."""
    mapper: Literal["shard_map", "pmap"] = "shard_map"
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the distances that `cluster` tries first; the labels are the same."""
    shard_centroids: bool = False
    """Split centroids over the devices in `cluster`, for more than one of them can hold."""
    checkpoint_minutes: float = 5.0
    """Minutes between two checkpoints of `cluster`, from which it goes on after a kill."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:  # those of further arms and runs count on from it
            raise InputError(f"seed={self.seed} must be within [0, 2**31)")
        if self.n_devices < 0:
            raise InputError(f"n_devices={self.n_devices} must not be negative")
        if self.memory_limit < 0:
            raise InputError(f"memory_limit={self.memory_limit} must not be negative")
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


def to_config(settings: Settings) -> "ConfigDict":
    """What a configuration file returns: every setting can then be given on the command line."""
    from ml_collections import ConfigDict

    return ConfigDict(dataclasses.asdict(settings))
