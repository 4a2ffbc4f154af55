"""The settings of a whole run, one frozen dataclass for each stage."""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jaxcurate.embed import Embedding
from jaxcurate.export import FORMATS
from jaxcurate.hierarchy import Level
from jaxcurate.sources import Recipe
from jaxcurate.ssl import Pretraining

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclass(frozen=True)
class Clustering:
    """The levels of hierarchical k-means, bottom up: one entry a level in each tuple."""

    n_clusters: tuple[int, ...]
    n_resamples: tuple[int, ...]
    n_per_cluster: tuple[int, ...]
    n_splits: tuple[int, ...] = ()
    """Empty: no level is split."""
    max_iter: int = 50
    init: Literal["k-means++", "random"] = "k-means++"

    def __post_init__(self) -> None:
        lengths = {len(self.n_clusters), len(self.n_resamples), len(self.n_per_cluster)}
        lengths |= {len(self.n_splits)} if self.n_splits else set()
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(
                "n_clusters, n_resamples, n_per_cluster and n_splits must have one entry for "
                f"each level, not {self.n_clusters}, {self.n_resamples}, {self.n_per_cluster} "
                f"and {self.n_splits}"
            )
        if self.max_iter < 1:
            raise ValueError(f"max_iter={self.max_iter} must be at least 1")
        below = None
        for k in (level.n_clusters * level.n_splits for level in self.levels):
            if below is not None and k > below:
                raise ValueError(f"n_clusters={self.n_clusters} must not grow from level to level")
            below = k

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, bottom up."""
        splits = self.n_splits or (1,) * len(self.n_clusters)
        return tuple(map(Level, self.n_clusters, self.n_resamples, self.n_per_cluster, splits))


@dataclass(frozen=True)
class Sampling:
    """How the subset is drawn."""

    size: int
    name: str = "curated"
    """Of the folder in ``subsets/``."""
    strategy: Literal["random", "closest"] = "random"
    max_repeats: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or self.max_repeats < 1:
            raise ValueError("size and max_repeats must be at least 1")
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"name={self.name!r} must be of letters, digits, '-' and '_'")


@dataclass(frozen=True)
class Exporting:
    """What becomes of the subset's items."""

    format: str = "auto"
    """``"png"`` for images, ``"npy"``, or ``"auto"`` for what suits the items."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format={self.format!r}; known: {', '.join(FORMATS)}")


ARMS = ("curated", "random", "pool")


@dataclass(frozen=True)
class Evaluation:
    """The comparison by pretraining."""

    arms: tuple[str, ...] = ARMS
    """Of :data:`ARMS`; none: only the balance is told."""
    n_seeds: int = 5
    probe_split: str = "probe"
    """Labelled items that the probes learn from, outside the pool."""
    test_split: str = "test"
    """Labelled items that they are tested on, outside both."""
    pretraining: Pretraining = field(default_factory=Pretraining)

    def __post_init__(self) -> None:
        unknown = set(self.arms) - set(ARMS)
        if unknown or len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms={self.arms}; known, each once: {', '.join(ARMS)}")
        if self.n_seeds < 1:
            raise ValueError(f"n_seeds={self.n_seeds} must be at least 1")


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
    image_size: int = 32
    """Pixels a side."""
    image_key: str = ""
    """The image feature of a TFDS dataset, where it is not found by itself."""
    label_key: str = ""
    """The label feature of a TFDS dataset, where it is not found by itself."""
    recipe: Recipe | None = None
    """Of ``tfds:weblike``."""
    embed: Embedding = field(default_factory=Embedding)
    export: Exporting = field(default_factory=Exporting)
    evaluate: Evaluation = field(default_factory=Evaluation)
    title: str = "Curated pool"
    """Heading of the report."""
    seed: int = 0
    n_devices: int = 0
    """0 for all; on a CPU, a device for each core."""
    mapper: Literal["shard_map", "pmap"] = "shard_map"

    def __post_init__(self) -> None:
        if self.seed < 0 or self.n_devices < 0:
            raise ValueError("seed and n_devices must not be negative")
        if self.image_size < 1:
            raise ValueError(f"image_size={self.image_size} must be at least 1")


def to_config(settings: Settings) -> "ConfigDict":
    """What a configuration file returns: every setting can then be given on the command line."""
    from ml_collections import ConfigDict

    return ConfigDict(dataclasses.asdict(settings))
