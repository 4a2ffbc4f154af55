"""Stage ``filter``: from the pool to the rows that satisfy all rules, and reasons of the others."""

from collections.abc import Collection
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.config import Config
from jaxcurate.curation import filters
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Folder
from jaxcurate.pipeline.stage import ITEMS, Card, Stage


class Filter(Stage):
    """Stage that drops rows by rules on columns, and by similarity to examples."""

    name = "filter"
    reads = (*ITEMS, "embed", "filter")
    disabled = "there is nothing to filter by: config.filter.rules or examples are needed"

    def enabled(self, settings: Config) -> bool:
        """Returns whether there are rules or examples."""
        return settings.filter.enabled

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``filter/``."""
        return Folder(path / "filter", filters.KIND)

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the stage that made the pool."""
        return ("embed",)

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses examples that cannot be embedded with the settings of the pool."""
        if context.items.examples:  # opens them
            context.check_source(chosen, embeds=True)

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns the pool, the rules and the examples."""
        examples = context.items.examples
        return {
            **context.digest("embed"),
            "filter": context.plain("filter"),
            "examples": {name: source.fingerprint for name, source in examples.items()},
        }

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes the kept rows, and a list of the dropped rows."""
        settings, pool = context.settings.filter, context.pool()
        columns = context.columns(sorted({rule.column for rule in settings.rules}))
        similarities = {
            name: filters.similarity_to(
                pool.embeddings, _embedded(context, name), devices=context.devices
            )
            for name in settings.examples
        }
        filtered = filters.filter_rows({**columns, **similarities}, settings.all_rules)
        if context.writes:
            filtered.save(context.folder(self.name), pool.ids, card(pool=pool.fingerprint))
        for reason, count in filtered.counts.items():
            if count:
                context.progress.line(f"  {count} row(s) dropped: {reason}")
        return {"kept": len(filtered.kept), "dropped": len(filtered.dropped)}


def _embedded(context: Context, name: str) -> np.ndarray:
    """Returns the embeddings of the wanted or the unwanted examples, float32 ``[e, d]``."""
    source = context.items.examples[name]
    spec = context.settings.filter.examples[name]
    # A cosine needs a direction.
    blocks = context.items.embedded(f"{name} examples", source, spec, need_direction=True)
    embeddings = np.concatenate([block.embeddings for block in blocks])
    if skipped := blocks.unreadable:
        context.progress.line(
            f"  {len(skipped)} {name} example(s) could not be read or used: {skipped[0]}"
        )
    return embeddings
