"""Parts of the evidence: the runs that each consists of, as settings of the pipeline."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxcurate import Level
from jaxcurate.config import Config, DedupConfig, EmbedConfig, MixConfig
from jaxcurate.evaluation.runs import run_name

BLOCK = 4
"""Number of seeds that share a tree."""
FIRST_SEED = 200
"""First seed of the results; that of development is 0."""
SIZES = (0.01, 0.1, 0.3)
STEPS = (100, 300, 1000, 3000)
OBJECTIVES = ("simclr", "lejepa", "dino", "mae")
ENCODERS = ("pca", "efficientnet_lite0", "pixels")


class Job(NamedTuple):
    """Pool and size that variants are made for."""

    settings: Config
    """Settings of the arm `curated`."""
    n_items: int
    """Number of items of the pool."""
    near: float | None
    """Cosine of near-duplicates for the arm `deduplicated`, or None for equal content."""
    keep: float
    """Fraction of the pool that is kept."""
    work: Path = Path()
    """Folder of the work directories of the part."""


class Variant(NamedTuple):
    """Run of the pipeline, over a work directory of its own."""

    name: str
    """Name of the work directory."""
    settings: Config
    """Settings of the run."""
    arms: Mapping[str, str]
    """Name in the results of each arm of the run."""
    measured_on: str = ""
    """Name of the variant whose tree measures the balance of the rows; its own by default."""
    keep: float = 0.0
    """Fraction of the pool that is kept."""


def changed(settings: Config, **changes: Any) -> Config:
    """Returns settings with other values, by the path of the field with ``__`` for dots.

    Examples:
        >>> from jaxcurate.config import ClusterConfig, SampleConfig
        >>> base = Config("npy:x.npy", ClusterConfig((Level(10),)), SampleConfig(size=5))
        >>> changed(base, seed=3, sample__size=7).sample.size
        7
    """
    nested: dict[str, dict[str, Any]] = {}
    plain = {}
    for path, value in changes.items():
        head, _, rest = path.partition("__")
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            plain[head] = value
    for head, below in nested.items():
        plain[head] = changed(plain.get(head, getattr(settings, head)), **below)
    return dataclasses.replace(settings, **plain)


def _variant(
    job: Job, name: str, arms: Mapping[str, str], seed: int, measured_on: str = "", **changes: Any
) -> Variant:
    settings = changed(
        job.settings,
        seed=seed,
        sample__size=max(2, round(job.keep * job.n_items)),
        evaluate__arms=tuple(arms),
        evaluate__n_seeds=BLOCK,
        **changes,
    )
    own = f"{name}-{seed}"
    return Variant(own, settings, arms, f"{measured_on}-{seed}" if measured_on else own, job.keep)


def _same(*arms: str) -> dict[str, str]:
    return {arm: arm for arm in arms}


def compared(job: Job, seed: int, *arms: str, label: str = "main") -> list[Variant]:
    """Returns the runs that compare arms at one size, of which the last may be `deduplicated`.

    Near-duplicates are removed in a run of its own, since `curated` is to see the whole pool.
    """
    apart = job.near is not None and "deduplicated" in arms
    own = [arm for arm in arms if not (apart and arm == "deduplicated")]
    variants = [_variant(job, label, _same(*own), seed)]
    if apart:
        variants.append(
            _variant(
                job,
                f"{label}-deduplicated",
                _same("deduplicated"),
                seed,
                measured_on=label,
                dedup=DedupConfig(threshold=job.near),
                # The tree has no part in this arm, and few rows may stay.
                cluster__levels=(Level(16),),
            )
        )
    return variants


def primary(job: Job, first: int) -> list[Variant]:
    """Returns the runs of the primary comparisons: eight seeds in two blocks."""
    arms = "curated", "random", "flat", "pool", "deduplicated"
    return [variant for seed in (first, first + BLOCK) for variant in compared(job, seed, *arms)]


def sizes(job: Job, first: int) -> list[Variant]:
    """Returns the runs at other keep rates."""
    return [
        variant
        for keep in SIZES
        for variant in compared(
            job._replace(keep=keep),
            first,
            *("curated", "random", "flat", "deduplicated"),
            label=f"keep{round(100 * keep)}",
        )
    ]


def levels(job: Job, first: int, label: str = "") -> list[Variant]:
    """Returns the runs with other trees, other batches and a mixture.

    Args:
        job: pool and size.
        first: first seed.
        label: beginning of the names of the variants.
    """
    low, high = (level.n_clusters for level in job.settings.cluster.levels)
    middle = round((low * high) ** 0.5)
    shapes = {
        "1 level": (low,),
        "2 levels": (low, high),
        "3 levels": (low, middle, high),
        "4 levels": (low, middle, high, max(2, high // 3)),
    }
    references = dict(references=job.settings.source, split="probe")
    if ":" in job.settings.evaluate.probe_split:
        references = dict(references=job.settings.evaluate.probe_split)
    mixture = MixConfig(curated=0.4, retrieved=0.3, raw=0.3, **references)
    variants = [
        _variant(
            job,
            f"{label}main",
            {"curated": "2 levels, resampled", **_same("random", "stratified", "mixed")},
            first,
            evaluate__mix=mixture,
        )
    ]
    for name, counts in shapes.items():
        for rounds in (0, 10):
            if (name, rounds) == ("2 levels", 10):
                continue
            of_levels = tuple(
                Level(k, rounds, (10, 5, 3, 2)[i] if rounds else 1) for i, k in enumerate(counts)
            )
            arm = f"{name}, resampled" if rounds else f"{name}, not resampled"
            variants.append(
                _variant(
                    job,
                    label + arm.replace(", ", "-").replace(" ", "-"),
                    {"curated": arm},
                    first,
                    measured_on=f"{label}main",
                    cluster__levels=of_levels,
                )
            )
    return variants


def levels_at_sizes(job: Job, first: int) -> list[Variant]:
    """Returns the runs of `levels` at other keep rates."""
    return [
        variant
        for keep in SIZES
        for variant in levels(job._replace(keep=keep), first, f"keep{round(100 * keep)}-")
    ]


def encoders(job: Job, first: int) -> list[Variant]:
    """Returns the runs with subsets curated by other encoders."""
    if job.settings.evaluate.pretraining.objective.chosen.kind == "text":
        return compared(job, first, "curated", "random")
    n_components = job.settings.embed.n_components
    return [
        _variant(
            job,
            name,
            {"curated": f"curated by {name}"} | (_same("random") if name == "pca" else {}),
            first,
            embed=EmbedConfig(name, n_components=n_components),
        )
        for name in ENCODERS
    ]


def rounds(job: Job, first: int) -> list[Variant]:
    """Returns the runs with subsets curated by features that were trained on the pool itself.

    The encoder of round 1 is that of the first seed of the arm `pool`, and that of round 2 the one
    of the first seed that was trained on the subset of round 1.
    """
    settings = job.settings.evaluate.pretraining
    if settings.objective.chosen.kind == "text":
        return compared(job, first, "curated", "random")
    # Encoders are kept of runs that are trained one by one.
    one_by_one = dict(evaluate__parallel="batch")
    arms = {"curated": f"curated by {job.settings.embed.encoder}"} | _same("random", "pool")
    variants = [_variant(job, "round0", arms, first, **one_by_one)]
    for number, arm in ((1, "pool"), (2, "curated")):
        trained = job.work / variants[-1].name / "evaluation" / run_name((arm, first))
        encoder = EmbedConfig(
            "vit",
            weights=str(trained / "encoder" / "last"),
            resolution=settings.model.image_size,
        )
        arms = {"curated": f"curated by round {number}"}
        name = f"round{number}"
        variants.append(_variant(job, name, arms, first, embed=encoder, **one_by_one))
    return variants


def objectives(job: Job, first: int) -> list[Variant]:
    """Returns the runs with other objectives."""
    if job.settings.evaluate.pretraining.objective.chosen.kind == "text":
        return compared(job, first, "curated", "random")
    return [
        _variant(
            job,
            name,
            {arm: f"{arm}, {name}" for arm in ("curated", "random")},
            first,
            evaluate__pretraining__objective__name=name,
        )
        for name in OBJECTIVES
    ]


def steps(job: Job, first: int) -> list[Variant]:
    """Returns the runs with other numbers of steps."""
    return [
        _variant(
            job,
            f"steps{n_steps}",
            _same("curated", "random", "pool"),
            first,
            evaluate__pretraining__n_steps=n_steps,
        )
        for n_steps in STEPS
    ]


PARTS: dict[str, Callable[[Job, int], list[Variant]]] = {
    "primary": primary,
    "sizes": sizes,
    "levels": levels,
    "levels_at_sizes": levels_at_sizes,
    "encoders": encoders,
    "rounds": rounds,
    "objectives": objectives,
    "steps": steps,
}
"""Parts by name."""
