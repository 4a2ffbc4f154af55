"""Stage ``evaluate``: measures of the balance of the subset, and comparison by pretraining."""

import json
from collections.abc import Collection
from typing import Any

import numpy as np
from etils import epath

from jaxcurate import training
from jaxcurate.artifacts import folders
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.evaluation import compare, probing, summary
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.items import read_held_out
from jaxcurate.pipeline.output import Folder
from jaxcurate.pipeline.stage import ITEMS, SELECTING, Card, Stage, selecting

KIND = "evaluation"


class Evaluate(Stage):
    """Stage that pretrains on each arm and probes the features, the only one to read labels."""

    name = "evaluate"
    reads = (*ITEMS, "embed", "dedup.enabled", "sample", "evaluate", "seed")

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``evaluation/``."""
        return Folder(path / "evaluation", KIND)

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the stages that drew the subset and chose its rows."""
        return ("sample", *selecting(settings))

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses held-out items and references that cannot be read."""
        retrieving = bool(context.settings.sample.mix.retrieved)
        context.check_source(chosen, embeds=retrieving)
        context.items.references  # noqa: B018  opens them
        if context.settings.evaluate.arms:
            try:
                context.items.held_out_sources  # noqa: B018  opens them
            except InputError as error:
                raise InputError(
                    f"{error} (config.evaluate.arms=() evaluates without held-out items)"
                ) from error

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns tree, subset, held-out items and settings."""
        arms = context.settings.evaluate.arms
        held_out = context.items.held_out_sources if arms else ()
        return {
            **context.digest("cluster", "sample", *SELECTING),
            "held_out": [source.fingerprint for source in held_out],
            "evaluate": context.plain("evaluate"),
            "seed": context.settings.seed,
            **context.items.reference_inputs,
        }

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes the results as JSON and the losses of every arm."""
        settings, seed = context.settings.evaluate, context.settings.seed
        pool, tree = context.pool(), context.tree()
        subset = context.subset(pool)
        draws = context.arms(pool, tree).draw(subset.indices, settings, seed)
        notes = context.items.source.annotations(pool.items)
        seen = {arm: drawn[0].seen for arm, drawn in draws.items()}
        results: dict[str, Any] = {"balance": summary.balance(notes, seen)}
        losses: dict[str, np.ndarray] = {}
        if settings.arms:
            side = context.items.training_side
            strict, tell = context.settings.strict, context.progress.line
            probe_set, test_set = (
                read_held_out(source, side, strict=strict, tell=tell)
                for source in context.items.held_out_sources
            )
            runs = {
                arm: [
                    training.Run(draw.rows, seed + i, draw.batches)
                    for i, draw in enumerate(draws[arm])
                ]
                for arm in settings.arms
            }
            compared = compare.compare(
                context.items.pictures("reading", pool.items, side),
                runs,
                probe_set,
                test_set,
                probing.label_frequency(notes.label),
                settings.pretraining,
                devices=context.devices,
                progress=context.progress,
            )
            results |= summary.to_plain(compared)
            losses = compared.losses
        with folders.new_folder(context.folder(self.name), card(), KIND) as folder:
            folder.write_text("results.json", json.dumps(results, indent=2) + "\n")
            for arm, curve in losses.items():
                folder.save_array(f"losses_{arm}.npy", curve)
        for text in summary.lines(results):
            context.progress.line(f"  {text}")
        return {}
