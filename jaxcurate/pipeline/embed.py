"""Stage ``embed``: from the source to the pool, an embedding for every item that can be used."""

from collections.abc import Collection
from typing import Any

from etils import epath

from jaxcurate import sources
from jaxcurate.artifacts import folders
from jaxcurate.artifacts.pool import KIND, write_pool
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Folder
from jaxcurate.pipeline.stage import ITEMS, Card, Stage


class Embed(Stage):
    """Stage that embeds the items of the source, and lists items that cannot be used."""

    name = "embed"
    reads = (*ITEMS, "embed", "cluster.metric")

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``pool/``."""
        return Folder(path / "pool", KIND)

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses a pool that has grown, and if settings are strict, items that cannot be used."""
        context.check_source(chosen)
        if context.settings.strict:
            self._check_strict(context)

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns the source and the encoder."""
        return {
            "source": context.items.source.fingerprint,
            "embed": context.plain("embed"),
        }

    def is_current(self, context: Context, card: dict[str, Any]) -> bool:
        """Returns whether the pool has the items of the source, without those to be skipped."""
        zeros = card.get("zeros")
        # Rows without a direction are skipped if, and only if, the metric needs a direction.
        as_needed = not zeros or zeros["left_out"] == context.items.need_direction
        return as_needed and super().is_current(context, card)

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes ids and embeddings, block by block."""
        blocks = context.items.embedded("embedding", context.items.source, context.settings.source)
        about = lambda: card(unreadable=blocks.unreadable, **blocks.zeros)
        pool = write_pool(context.folder(self.name), blocks, about, context.run)
        if blocks.unreadable:
            id_, reason = blocks.unreadable[0]
            context.progress.line(
                f"  {len(blocks.unreadable)} item(s) could not be read or used and were left out, "
                f"the first {id_!r} ({reason}); {context.folder(self.name) / folders.CARD} lists "
                "them"
            )
        return {"items": len(pool), "dimensions": pool.embeddings.shape[1]}

    def _check_strict(self, context: Context) -> None:
        """Refuses items that the source skips, or that were skipped when the pool was made."""
        source, left_out = context.items.source, []
        if isinstance(source, sources.Skipping):
            left_out = [
                [path, reason]
                for path, reason in source.skipped
                if reason != sources.WORK_DIRECTORY
            ]
        if not left_out and self.state(context) == "done":
            left_out = context.card(self.name)["unreadable"]
        if left_out:
            id_, reason = left_out[0]
            raise InputError(
                f"{len(left_out)} item(s) of {context.settings.source} cannot be used, the first "
                f"{id_!r} ({reason}), and config.strict refuses to leave them out"
            )
