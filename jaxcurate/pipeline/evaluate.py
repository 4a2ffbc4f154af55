"""Stage ``evaluate``: measures of the balance of the subset, and comparison by pretraining."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from etils import epath

from jaxcurate import training
from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.local import read_text
from jaxcurate.artifacts.parts import Parts
from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.curation.hierarchy import hierarchical_kmeans
from jaxcurate.curation.level import Level
from jaxcurate.evaluation import compare, summary
from jaxcurate.evaluation.arms import Arms, Draw
from jaxcurate.evaluation.draws import steps_of
from jaxcurate.evaluation.frequency import label_frequency
from jaxcurate.evaluation.manifests import manifest_file, read_manifest
from jaxcurate.evaluation.probing import check_labels
from jaxcurate.evaluation.runs import Record
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Folder, as_json
from jaxcurate.pipeline.stage import ITEMS, SELECTING, Card, Stage, selecting
from jaxcurate.pipeline.training_folders import TrainingFolders, copy_file
from jaxcurate.pipeline.training_items import TrainingItems, tokenizer_file
from jaxcurate.planning import Ask, StagePlan, plan_stage, steps_of_evaluation
from jaxcurate.training.checkpoint import check_place

KIND = "evaluation"
RUNS = "runs.jsonl"
"""Name of the file with a line of JSON for every run: its measures and facts about it."""
_PARTS = "evaluation.parts"
"""Name of the folder with the finished runs of an evaluation that is not whole yet."""
_TRAININGS = "evaluation.training"
"""Name of the folder with the checkpoints of runs that are being trained."""
_LOSSES = "losses.npy"
_PACKAGES = ("jaxcurate", "jax", "jaxlib", "flax", "optax")
"""Packages on whose versions the bits of a run may depend."""


class Evaluate(Stage):
    """Stage that pretrains on each arm and probes the features, the only one to read labels."""

    name = "evaluate"
    reads = (
        *(*ITEMS, "embed", "dedup.enabled", "sample", "evaluate", "seed", "memory_limit"),
        *("cluster.max_iter", "cluster.init", "cluster.metric", "precision"),
    )

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``evaluation/``."""
        return Folder(path / "evaluation", KIND)

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the stages that drew the subset and chose its rows."""
        return ("sample", *selecting(settings))

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses held-out items, references and manifests that cannot be read."""
        context.check_source(chosen, embeds=bool(context.items.reference_inputs_of_arms))
        for path in context.settings.evaluate.manifest_paths.values():
            manifest_file(path)
        if context.settings.evaluate.parallel == "batch":
            check_place(context.path)
        if context.settings.evaluate.arms:
            context.items.extra_tests  # noqa: B018  opens them
            try:
                context.items.held_out_sources  # noqa: B018  opens them
            except InputError as error:
                raise InputError(
                    f"{error} (config.evaluate.arms=() evaluates without held-out items)"
                ) from error

    def plan(self, ask: Ask) -> StagePlan:
        """Returns time, memory and traffic before a run."""
        return plan_stage(self.name, ask, steps_of_evaluation)

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns tree, subset, held-out items, manifests and settings."""
        settings = context.settings.evaluate
        held_out = context.items.held_out_sources if settings.arms else ()
        others = context.items.extra_tests if settings.arms else {}
        manifests = {
            name: files.sha256(manifest_file(path))
            for name, path in settings.manifest_paths.items()
        }
        tokenizer = tokenizer_file(settings.pretraining.tokenizer)
        cluster = context.plain("cluster") if "flat_plain" in settings.arms else {}
        cluster.pop("levels", None)
        return {
            **context.digest("cluster", "sample", *SELECTING),
            "held_out": [source.fingerprint for source in held_out],
            "evaluate": context.plain("evaluate"),
            "seed": context.settings.seed,
            **({"extra_tests": {k: v.fingerprint for k, v in others.items()}} if others else {}),
            **({"manifests": manifests} if manifests else {}),
            **({"tokenizer": files.sha256(epath.Path(tokenizer))} if tokenizer else {}),
            **({"cluster_settings": cluster} if cluster else {}),
            **context.items.reference_inputs_of_arms,
        }

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes the results, a line for every run, and the losses of every arm.

        After a kill it continues with the runs that were not finished.
        """
        settings, parts = context.settings.evaluate, self._parts(context)
        trainings = self._trainings(context)
        if context.writes:
            trainings.tidy(keep_own=True)
        pool, tree = context.pool(), context.tree()
        subset = context.subset(pool).indices
        draws = _arms(context, pool, tree, parts).draw(subset, settings, context.settings.seed)
        notes = context.items.source.annotations(pool.items[:])
        seen = {arm: drawn[0].seen for arm, drawn in draws.items()}
        results: dict[str, Any] = {"balance": summary.balance(notes, seen)}
        compared = items = None
        if settings.arms:
            n_steps = steps_of(draws, settings, len(subset))
            frequency = label_frequency(notes.label)
            items = TrainingItems(context.settings, context.items, pool.items[:])
            compared = _compare(context, items, draws, n_steps, frequency, parts, trainings)
            results |= summary.to_plain(compared)
            results |= {"budget": settings.budget, "arms": _arm_facts(context, draws, n_steps)}
        if not context.writes:
            return {}
        with folders.new_folder(context.folder(self.name), card(), KIND) as folder:
            folder.write_text("results.json", json.dumps(results, indent=2) + "\n")
            if compared is not None:
                folder.write_text(RUNS, _lines(compared.records))
                for arm, curve in compared.losses.items():
                    folder.save_array(f"losses_{arm}.npy", curve)
                _copy_trainings(parts, folder)
                if items is not None and items.kind == "text":
                    folder.write_text("tokenizer.json", items.tokenizer)
        self.tidy(context)
        for text in summary.lines(results):
            context.progress.line(f"  {text}")
        return {}

    def parts(self, context: Context) -> Sequence[epath.Path]:
        """Returns ``evaluation.parts/``."""
        return [context.path / _PARTS]

    def tidy(self, context: Context) -> None:
        """Removes the parts and the folders of trainings."""
        super().tidy(context)
        TrainingFolders(context.path / _TRAININGS, None).tidy(keep_own=False)

    def _parts(self, context: Context) -> Parts:
        return Parts(context.path / _PARTS, self._made_from(context), context.run)

    def _trainings(self, context: Context) -> TrainingFolders:
        return TrainingFolders(context.path / _TRAININGS, self._made_from(context))

    def _made_from(self, context: Context) -> list[Any]:
        # Another release, platform or number of devices may round differently.
        return [
            as_json(self.inputs(context)),
            [context.devices.count, context.devices.platform],
            [metadata.version(package) for package in _PACKAGES],
        ]


def _arms(context: Context, pool: Pool, tree: ClusterTree, parts: Parts) -> Arms:
    """Returns the arms, with the clusters, neighbors and manifests that only some of them need."""
    settings = context.settings.evaluate
    arms = context.arms(pool, tree)
    neighbors = plain = None
    if "mixed" in settings.arms:
        neighbors = context.neighbors(pool, arms.valid, settings.mix)
    if "flat_plain" in settings.arms:
        plain = _plain_clusters(context, pool, tree, arms.valid, parts)
    elsewhere = {name: read_manifest(path, pool) for name, path in settings.manifest_paths.items()}
    return dataclasses.replace(arms, mixed_neighbors=neighbors, plain=plain, elsewhere=elsewhere)


def _plain_clusters(
    context: Context, pool: Pool, tree: ClusterTree, valid: np.ndarray | None, parts: Parts
) -> ClusterTree:
    """Returns the clusters of k-means without resampling, which the first part keeps."""
    if not parts.cards:
        settings = context.settings
        level = Level(tree.n_clusters(settings.evaluate.flat_level))
        plain = hierarchical_kmeans(
            pool,
            [level],
            settings.seed,
            rows=valid,
            max_iter=settings.cluster.max_iter,
            init=settings.cluster.init,
            metric=settings.cluster.metric,
            memory_limit=settings.memory_limit,
            precision=settings.precision,
            devices=context.devices,
            progress=lambda task, done, total: context.progress(f"flat_plain, {task}", done, total),
        )
        if context.writes:
            with parts.new(plain.card()) as folder:
                plain.fill(folder)
        context.publish("flat_plain", parts.folder(0))
    return ClusterTree.load(parts.folder(0), mmap=False)


def _compare(
    context: Context,
    items: TrainingItems,
    draws: Mapping[str, Sequence[Draw]],
    n_steps: Mapping[str, int],
    frequency: Mapping[str, int],
    parts: Parts,
    trainings: TrainingFolders,
) -> compare.Comparison:
    """Returns the comparison, whose finished runs are kept in the parts."""
    settings, seed = context.settings.evaluate, context.settings.seed
    tell = context.progress.line
    probing = _probing(context, items, frequency)
    runs = {
        arm: [training.Run(draw.rows, seed + i, draw.batches) for i, draw in enumerate(draws[arm])]
        for arm in settings.trained
    }
    finished = [record for index in range(len(parts.cards)) for record in _records(parts, index)]
    if finished:
        n_runs = (len(settings.trained) + 1) * settings.n_seeds
        tell(f"  continuing after {len(finished)} of {n_runs} runs of an earlier evaluation")
    _tell_budget(context, draws, n_steps)

    def keep(records: list[Record]) -> None:
        if not context.writes:
            return
        with parts.new({"runs": [record.key for record in records]}) as folder:
            folder.write_text(RUNS, _lines(records))
            folder.save_array(_LOSSES, np.stack([record.losses for record in records]))
            trainings.copy([record.key for record in records], folder)
        trainings.remove(record.key for record in records)

    return compare.compare(
        items.pool(),
        runs,
        probing,
        settings.pretraining,
        parallel=settings.parallel,
        folder=trainings.path,
        n_steps=n_steps,
        finished=finished,
        on_group=keep,
        devices=context.devices,
        progress=context.progress,
    )


def _probing(
    context: Context, items: TrainingItems, frequency: Mapping[str, int]
) -> compare.Probing:
    """Returns the held-out items, after a check of their labels."""
    settings, tell = context.settings.evaluate, context.progress.line
    probe_set, test_set = map(items.held_out, context.items.held_out_sources)
    others = {name: items.held_out(source) for name, source in context.items.extra_tests.items()}
    try:
        sentences = check_labels(probe_set.labels, test_set.labels)
    except InputError as error:
        raise InputError(
            f"{error}; config.label_key names the feature or column with the labels, and "
            "config.evaluate.arms=() evaluates without them"
        ) from error
    for sentence in sentences:
        tell(f"  {sentence}")
    return compare.Probing(
        probe_set, test_set, frequency, settings.probes, settings.per_class, others
    )


def _records(parts: Parts, index: int) -> list[Record]:
    """Returns the records of a part; none if it has clusters."""
    if "runs" not in parts.cards[index]:
        return []
    folder = parts.folder(index)
    folders.check_files(folder)
    lines = read_text(folder / RUNS).splitlines()
    losses = files.load_array(folder / _LOSSES)
    return [Record.from_line(line, curve) for line, curve in zip(lines, losses, strict=True)]


def _copy_trainings(parts: Parts, folder: folders.NewFolder) -> None:
    """Copies metrics and encoders, which are in subfolders of the parts, to the evaluation."""
    for index, card in enumerate(parts.cards):
        for name in card["files"]:
            if "/" in name:
                copy_file(parts.folder(index) / name, folder, name)


def _lines(records: Sequence[Record]) -> str:
    return "".join(f"{record.line}\n" for record in records)


def _tell_budget(
    context: Context, draws: Mapping[str, Sequence[Draw]], n_steps: Mapping[str, int]
) -> None:
    """Tells of arms that make other numbers of steps, or that have fewer rows than a batch."""
    settings, tell = context.settings.evaluate, context.progress.line
    if len(set(n_steps.values())) > 1:
        told = ", ".join(f"{arm} {steps:,}" for arm, steps in n_steps.items())
        tell(f"  equal epochs, not steps: {told} steps")
    batch = settings.pretraining.batch_size
    for arm in settings.trained:
        fewest = min(len(draw.rows) for draw in draws[arm])
        if fewest < batch:
            tell(f"  arm {arm} has {fewest} rows, so that a batch of {batch} repeats some of them")


def _arm_facts(
    context: Context, draws: Mapping[str, Sequence[Draw]], n_steps: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Returns the rows, steps, images seen and epochs of a run of each arm."""
    batch = context.settings.evaluate.pretraining.batch_size
    facts = {}
    for arm, steps in n_steps.items():
        n_rows = len(draws[arm][0].rows)
        epochs = round(steps * batch / n_rows, 3)
        facts[arm] = {"rows": n_rows, "steps": steps, "images": steps * batch, "epochs": epochs}
    return facts
