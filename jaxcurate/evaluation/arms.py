"""The arms of a comparison: the rows that each takes from a pool, as a function of the seed."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np

from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.checks import InputError, check_choice, check_name, check_whole
from jaxcurate.curation.baselines import sample_flat, sample_uniform
from jaxcurate.curation.mixing import MixConfig, SampleConfig, indices_of, mix
from jaxcurate.curation.sampling import ShortfallWarning, sample
from jaxcurate.curation.stratified_batches import Batches, Equal
from jaxcurate.evaluation.other_tests import parse_tests
from jaxcurate.evaluation.probes import PROBES
from jaxcurate.evaluation.probing import DEFAULT, check_probes
from jaxcurate.neighbors.nearest_rows import Neighbors
from jaxcurate.stateless_random import other_seed
from jaxcurate.training import PretrainConfig

ARMS: dict[str, "Arm"] = {}
"""Arms by name; filled in `jaxcurate.evaluation`."""
ALWAYS = ("curated", "random", "pool")
"""Arms whose balance is reported in any case."""
UNTRAINED = "untrained"
"""Name of the arm whose encoders keep their random weights."""
Budget = Literal["steps", "epochs"]
Parallel = Literal["runs", "batch"]


class Draw(NamedTuple):
    """Rows that one run of an arm trains on."""

    rows: np.ndarray
    """Rows of the pool, int64, sorted."""
    batches: Batches | None = None
    """Rows of every batch; None for shuffled epochs."""

    @property
    def seen(self) -> np.ndarray:
        """Returns the rows, sorted, each as often as pretraining sees it, up to a common factor."""
        if self.batches is None or not len(self.batches):
            return self.rows
        return np.sort(np.concatenate(list(self.batches)))


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of the comparison by pretraining.

    Raises:
        InputError: an arm is unknown or named twice, or a number is below 1.

    Examples:
        >>> EvaluateConfig(arms=("curated", "random"), n_seeds=3).arms
        ('curated', 'random')
    """

    arms: tuple[str, ...] = field(default=ALWAYS, metadata={"known": ARMS})
    """Names of the arms to pretrain on, each once. With none, only the balance is reported."""
    flat_level: int = 1
    """Level whose clusters the flat arm is balanced over; 1 is the lowest."""
    stratified_by: Equal = "clusters"
    """Unit that the stratified arm sees equally often: `clusters` or `rows`."""
    n_seeds: int = 5
    """Number of pretraining runs of each arm, with consecutive seeds."""
    probe_split: str = "probe"
    """Split with the labeled items that the probes are fitted to, outside the pool, or a source of
    its own, such as `folder:/data/probe`."""
    test_split: str = "test"
    """Split, or source, with the labeled items that the probes are tested on, outside both."""
    pretraining: PretrainConfig = field(default_factory=PretrainConfig)
    """Settings of the pretraining, the same for all arms."""
    budget: Budget = "steps"
    """Quantity that is equal for all arms: `steps`, and with them the images seen, or `epochs`,
    the passes over the rows of an arm, where arms of more rows make more steps. The curated subset
    makes `pretraining.n_steps` either way."""
    mix: MixConfig = field(default_factory=MixConfig)
    """Mixture of the arm `mixed`. By default that of `sample.mix`."""
    manifests: tuple[str, ...] = ()
    """Subsets of the pool from elsewhere, each an arm: `NAME=PATH` of a manifest in Parquet with a
    column `id`, of row numbers in `.npy`, or of a folder of a subset."""
    parallel: Parallel = "runs"
    """Work that is split over the devices: `runs`, of which each device trains several small ones,
    or `batch`, so that all devices train one large run at a time, with checkpoints within it."""
    read_files: bool = False
    """True to read, decode and crop pictures anew at every step, at their full resolution, for
    pools whose pictures do not fit into memory; needs `parallel="batch"` and the package grain. By
    default pictures are read once, as squares of the size of the model."""
    probes: tuple[str, ...] = field(default=DEFAULT, metadata={"known": PROBES})
    """Names of the measures of frozen features, each once."""
    per_class: bool = False
    """True to measure every label by itself as well."""
    extra_tests: tuple[str, ...] = ()
    """Further labeled sources that encoders are probed on, each `NAME=SOURCE`: half of the items of
    each label are for fitting. A source with splits gives its split `train`."""

    def __post_init__(self) -> None:
        unknown = set(self.arms) - set(ARMS)
        if unknown or len(set(self.arms)) < len(self.arms):
            raise InputError(f"arms={self.arms}; known, each once: {', '.join(ARMS)}")
        for name in ("n_seeds", "flat_level"):
            check_whole(name, getattr(self, name), 1)
        check_choice("budget", self.budget, get_args(Budget))
        check_choice("parallel", self.parallel, get_args(Parallel))
        if self.read_files and self.parallel != "batch":
            raise InputError("read_files=True needs parallel='batch'")
        check_probes(self.probes)
        parse_tests(self.extra_tests)
        for name in self.manifest_paths:
            check_name(name)
            if name in ARMS or name == UNTRAINED:
                raise InputError(f"manifests: {name!r} is the name of an arm of its own")
        if len(self.manifest_paths) < len(self.manifests):
            raise InputError(f"manifests={self.manifests} must name each arm once")

    @property
    def manifest_paths(self) -> dict[str, str]:
        """Path of each manifest, by the name of its arm.

        Raises:
            InputError: an entry is not `NAME=PATH`.
        """
        paths = {}
        for entry in self.manifests:
            name, equals, path = entry.partition("=")
            if not (name and equals and path):
                raise InputError(f"manifests: {entry!r} is not NAME=PATH")
            paths[name] = path
        return paths

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the arms to pretrain on, with those of manifests; empty without `arms`."""
        return (*self.arms, *self.manifest_paths) if self.arms else ()

    def n_steps(self, n_rows: int, n_subset: int) -> int:
        """Returns the number of steps that a run makes.

        Args:
            n_rows: number of rows that the run trains on.
            n_subset: number of rows in the curated subset.

        Examples:
            >>> settings = EvaluateConfig(pretraining=PretrainConfig(n_steps=300), budget="epochs")
            >>> settings.n_steps(500, 500), settings.n_steps(21_000, 500)
            (300, 12600)
        """
        n_steps = self.pretraining.n_steps
        if self.budget == "steps" or not n_steps:
            return n_steps
        return max(1, round(n_steps * n_rows / n_subset))


@dataclass(frozen=True)
class Arms:
    """Samplers of the subsets that are compared, over one pool and its tree.

    Rows are identified by their ids: with the same tree, a pool in another order gives the same
    items.

    Raises:
        InputError: the tree was built over another pool.
    """

    pool: Pool
    tree: ClusterTree
    sampling: SampleConfig
    valid: np.ndarray | None = None
    """Rows that deduplication kept, int64 ``[m]``; None for all."""
    neighbors: Neighbors | None = None
    """Nearest valid rows of each reference; needed where `sampling` retrieves rows."""
    deduplicated: bool = False
    """True if `valid` has no duplicates; the arm `deduplicated` needs it."""
    mixed_neighbors: Neighbors | None = None
    """Nearest valid rows of each reference of the arm `mixed`, if it retrieves rows."""
    plain: ClusterTree | None = None
    """Clusters of the arm `flat_plain`, one level of k-means without resampling."""
    elsewhere: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Rows of subsets from elsewhere, int64, sorted, by the name of the arm."""

    def __post_init__(self) -> None:
        self.tree.check_over(self.pool.fingerprint, len(self.pool))

    @property
    def size(self) -> int:
        """Returns the number of rows in a curated subset: `sampling.size`, or fewer if the pool is
        too small."""
        n = len(self.pool) if self.valid is None else len(self.valid)
        return min(self.sampling.size, n * self.sampling.max_repeats)

    def parts(self, seed: int) -> dict[str, np.ndarray]:
        """Returns the rows of a curated subset by the reason why each was kept.

        Returns:
            Reason (a key of :func:`jaxcurate.curation.mixing.mix`) to rows, int64, sorted.
        """
        sampling = self.sampling
        common = {"seed": seed, "rows": self.valid, "ids": self.pool.ids}
        if not sampling.mix.is_mixed:
            rows = sample(self.tree, self.size, sampling.strategy, sampling.max_repeats, **common)
            return {"curated": rows}
        with warnings.catch_warnings():
            # The sizes of the parts already say if the references name too few rows.
            warnings.simplefilter("ignore", ShortfallWarning)
            return mix(
                self.tree,
                self.size,
                sampling.mix.fractions,
                self.neighbors,
                strategy=sampling.strategy,
                **common,
            )

    def curated(self, seed: int) -> np.ndarray:
        """Returns the rows of a curated subset, int64, sorted."""
        return indices_of(self.parts(seed))

    def random(self, seed: int, size: int) -> np.ndarray:
        """Returns `size` distinct rows of the whole pool, drawn uniformly, int64, sorted.

        A pool with fewer rows is returned whole. The rows are independent of the curated subset
        with the same seed.
        """
        size = min(size, len(self.pool))
        return sample_uniform(self.tree, size, seed=other_seed(seed, 2), ids=self.pool.ids)

    def flat(self, seed: int, level: int) -> np.ndarray:
        """Returns as many rows as the curated subset has, balanced over one level alone.

        Within a cluster of level 1 they are drawn by `sampling.strategy`. Above level 1 they are
        drawn at random, because the distances to those centroids are not known.

        Returns:
            int64, sorted.
        """
        return sample_flat(
            self.tree,
            self.size,
            self.sampling.strategy if level == 1 else "random",
            self.sampling.max_repeats,
            other_seed(seed, 3),
            rows=self.valid,
            ids=self.pool.ids,
            level=level,
        )

    def draw(
        self, subset: np.ndarray, settings: EvaluateConfig, seed: int
    ) -> dict[str, list[Draw]]:
        """Returns the rows that each arm trains on, for each seed.

        Every subset is drawn anew for every seed, so that the spread over seeds measures the
        method and not one draw.

        Args:
            subset: the exported subset, int64 ``[m]``, which the first seed trains on.
            settings: names the arms, in addition to :data:`ALWAYS`, and the number of seeds.
            seed: the first seed.

        Returns:
            Name of the arm to one :class:`Draw` for each seed.
        """
        common = Common(self, subset, settings, seed)
        seeds = range(seed, seed + settings.n_seeds)
        draws = {
            name: [arm.draw(common, s) for s in seeds]
            for name, arm in ARMS.items()
            if name in (*ALWAYS, *settings.arms)
        }
        return draws | {
            name: [Draw(rows)] * settings.n_seeds for name, rows in self.elsewhere.items()
        }


class Common(NamedTuple):
    """Arguments that the draws of all arms share."""

    arms: Arms
    """Samplers of the subsets."""
    subset: np.ndarray
    """Exported subset, int64 ``[m]``, which the first seed trains on."""
    settings: EvaluateConfig
    """Settings of the comparison."""
    first_seed: int
    """Seed of the exported subset."""

    def n_steps(self, n_rows: int) -> int:
        """Returns the number of steps of a run on so many rows."""
        return self.settings.n_steps(n_rows, len(self.subset))


class Arm(NamedTuple):
    """Arm of a comparison: a way to choose the rows that an encoder is pretrained on.

    Examples:
        Adds an arm that trains on the even rows of the pool:

        >>> import numpy as np
        >>> from jaxcurate.evaluation.arms import Draw
        >>> def even(common, seed):
        ...     return Draw(np.arange(0, len(common.arms.pool), 2))
        >>> Arm(even, "every second row").description
        'every second row'
    """

    draw: Callable[[Common, int], Draw]
    """Function of the shared arguments and a seed that returns the rows to train on."""
    description: str
    """Noun phrase that names the rows in the report."""
