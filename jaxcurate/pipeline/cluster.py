"""Stage ``cluster``: from the pool to the tree, by hierarchical k-means with resampling."""

import functools
from collections.abc import Collection
from importlib import metadata
from typing import Any

from etils import epath

from jaxcurate.artifacts.checkpoint import KIND as CHECKPOINT
from jaxcurate.artifacts.checkpoint import Checkpoint
from jaxcurate.artifacts.files import DamagedError
from jaxcurate.artifacts.folders import check_replaceable
from jaxcurate.artifacts.tree import KIND
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.curation.checkpoint import TreeState
from jaxcurate.curation.hierarchy import hierarchical_kmeans
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Folder
from jaxcurate.pipeline.stage import SELECTING, Card, Stage, selecting
from jaxcurate.planning import Ask, StagePlan, plan_stage, steps_of_clustering
from jaxcurate.runtime import messages

_CHECKPOINT = "tree-checkpoint"
"""Folder of the work directory that exists until the tree is finished."""


class Cluster(Stage):
    """Stage that clusters the rows, then their centroids, and so on, level by level."""

    name = "cluster"
    reads = (
        *("cluster", "dedup.enabled", "seed", "memory_limit"),
        *("precision", "shard_centroids", "checkpoint_minutes"),
    )

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``tree/``."""
        return Folder(path / "tree", KIND)

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the stages that made the pool and chose its rows."""
        return ("embed", *selecting(settings))

    def foresee(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to embed fewer items than the first level has clusters."""
        level = context.settings.cluster.levels[0]
        n_clusters = level.n_clusters * level.n_splits
        if "embed" in chosen and len(context.items.source) < n_clusters:
            raise InputError(
                f"cluster.levels[0].n_clusters asks for {n_clusters} clusters, but "
                f"{context.settings.source} has only {len(context.items.source)} item(s)"
            )

    def plan(self, ask: Ask) -> StagePlan:
        """Returns time, memory and traffic before a run."""
        return plan_stage(self.name, ask, steps_of_clustering)

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns the rows, the levels and the seed."""
        return {
            **context.digest("embed", *SELECTING),
            "cluster": context.plain("cluster"),
            "seed": context.settings.seed,
        }

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes centroids, labels and distances of every level.

        After a kill it continues from the last checkpoint, with the same result bit for bit.
        """
        settings, pool = context.settings, context.pool()
        checkpoint = self._checkpoint(context)
        state = self._state_to_continue_from(checkpoint, context)
        tree = hierarchical_kmeans(
            pool,
            settings.cluster.levels,
            settings.seed,
            rows=context.valid(),
            max_iter=settings.cluster.max_iter,
            init=settings.cluster.init,
            metric=settings.cluster.metric,
            memory_limit=settings.memory_limit,
            precision=settings.precision,
            shard_centroids=settings.shard_centroids,
            devices=context.devices,
            progress=context.progress,
            state=state,
            on_state=functools.partial(_save, context, checkpoint),
            state_due=lambda: messages.from_first("checkpoint", checkpoint.due),
        )
        for line in tree.surplus_lines():
            context.progress.line(f"  {line}")
        surplus = {name: empty for name, (empty, _) in tree.surplus.items() if empty}
        about = card(pool=pool.fingerprint, **({"surplus": surplus} if surplus else {}))
        if context.writes:
            tree.save(context.folder(self.name), about, context.settings.embed.part_bytes)
            self.tidy(context)
        return {"clusters": [len(level.centroids) for level in tree.levels]}

    def check_replaceable(self, context: Context, run: str) -> None:
        """Refuses to replace a tree or a checkpoint that this run did not write."""
        super().check_replaceable(context, run)
        check_replaceable(context.path / _CHECKPOINT, CHECKPOINT, run)

    def tidy(self, context: Context) -> None:
        """Removes the checkpoint."""
        self._checkpoint(context).remove()

    def _state_to_continue_from(self, checkpoint: Checkpoint, context: Context) -> TreeState | None:
        saved = None

        def is_usable() -> bool:
            nonlocal saved
            try:
                saved = checkpoint.load()
            except DamagedError as error:
                context.progress.line(
                    f"  the checkpoint cannot be used, and the tree is made from the start: {error}"
                )
            return saved is not None

        if not messages.from_first("state", is_usable):
            return None
        saved = checkpoint.load() if saved is None else saved
        if saved is None:
            raise InputError(f"{context.path / _CHECKPOINT} is not seen by all processes")
        context.progress.line("  continuing from the last checkpoint")
        return TreeState.from_arrays(saved)

    def _checkpoint(self, context: Context) -> Checkpoint:
        settings = context.settings
        options = context.devices.count, settings.memory_limit, settings.precision
        # Another release may compute in another way, and have other arrays in its state.
        releases = [metadata.version(package) for package in ("jaxcurate", "jax")]
        made_from = [self.inputs(context), *options, settings.shard_centroids, *releases]
        path, seconds = context.path / _CHECKPOINT, 60 * settings.checkpoint_minutes
        return Checkpoint(path, made_from, context.run, seconds)


def _save(context: Context, checkpoint: Checkpoint, state: TreeState) -> None:
    """Saves a state that all processes have made."""
    arrays = state.to_arrays()
    if context.writes:
        checkpoint.save(arrays)
