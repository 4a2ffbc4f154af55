"""Stage ``sample``: from the tree to a balanced subset with its manifest."""

from collections.abc import Collection
from typing import Any

import numpy as np
from etils import epath

from jaxcurate import export
from jaxcurate.artifacts import files
from jaxcurate.config import Config
from jaxcurate.curation.mixing import indices_of
from jaxcurate.evaluation import coverage
from jaxcurate.evaluation.arms import Arms
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Folder
from jaxcurate.pipeline.stage import ITEMS, SELECTING, Card, Stage, selecting
from jaxcurate.planning import Ask, StagePlan, plan_stage, steps_of_sampling
from jaxcurate.runtime.devices import RowsLike

_N_MEASURED = 20_000
"""Largest number of rows of the pool whose distance to the subset is measured."""


class Sample(Stage):
    """Stage that draws the subset and measures how even it is."""

    name = "sample"
    reads = (*ITEMS, "embed", "dedup.enabled", "sample", "seed", "memory_limit")

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``subsets/NAME/``."""
        return Folder(path / "subsets" / settings.sample.name, export.SUBSET)

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the stages that made the tree and chose its rows."""
        return ("cluster", *selecting(settings))

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses references that cannot be embedded with the settings of the pool."""
        if context.settings.sample.mix.retrieved:
            context.check_source(chosen, embeds=True)
            context.items.references  # noqa: B018  opens them

    def plan(self, ask: Ask) -> StagePlan:
        """Returns time, memory and traffic before a run."""
        return plan_stage(self.name, ask, steps_of_sampling)

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns the tree, its rows, the references and the seed."""
        return {
            **context.digest("cluster", *SELECTING),
            "sample": context.plain("sample"),
            "seed": context.settings.seed,
            **context.items.reference_inputs,
        }

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes the rows, the manifest, and measures in the card."""
        settings, pool, tree = context.settings, context.pool(), context.tree()
        arms = context.arms(pool, tree)
        parts = arms.parts(settings.seed)
        indices = indices_of(parts)
        missing = settings.sample.size - len(indices)
        if missing:
            context.progress.line(
                f"  the pool holds {missing} item(s) fewer than sample.size wants"
            )
        about = card(shortfall=missing, measures=_measures(context, arms, indices))
        mixed = settings.sample.mix.is_mixed
        folder = context.folder(self.name)
        metadata = context.columns(settings.columns) if settings.columns else {}
        if context.writes:
            named = parts if mixed else None
            export.save_subset(folder, indices, pool, tree, about, named, metadata)
        sizes = {name: len(rows) for name, rows in parts.items()} if mixed else {}
        return {"taken": len(indices), **sizes, "missing": missing}


def _measures(context: Context, arms: Arms, indices: np.ndarray) -> dict[str, Any]:
    """Returns measures of the subset, and of a random subset of the same size."""
    pool, tree = arms.pool, arms.tree
    random = arms.random(context.settings.seed, len(np.unique(indices)))
    measures = {}
    for arm, rows in (("curated", indices), ("random", random)):
        covered = coverage.measure_coverage(
            pool.embeddings,
            rows,
            n_measured=_N_MEASURED,
            metric=tree.metric,
            memory_limit=context.settings.memory_limit,
            devices=context.devices,
        )
        measures[arm] = {
            "levels": [level._asdict() for level in coverage.level_balance(tree, rows)],
            "coverage": covered._asdict(),
        }
        if pool.embeddings.shape[1] <= 3:
            low, high = _extent(pool.embeddings)
            points = pool.embeddings[rows]
            if (high > low).all():
                measures[arm]["kl_to_uniform"] = coverage.kl_to_uniform(points, low, high)
    return measures


def _extent(x: RowsLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the greatest number of each column of rows ``[n, d]``."""
    extents = [(x[block].min(axis=0), x[block].max(axis=0)) for block in files.blocks(x)]
    low, high = (np.stack(numbers) for numbers in zip(*extents, strict=True))
    return low.min(axis=0), high.max(axis=0)
