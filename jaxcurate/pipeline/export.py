"""Stage ``export``: from the subset and the source to the items themselves."""

from collections.abc import Collection
from typing import Any

import numpy as np
from etils import epath

from jaxcurate import export, sources
from jaxcurate.config import Config
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Folder
from jaxcurate.pipeline.stage import ITEMS, Card, Stage


class Export(Stage):
    """Stage that writes the items of the subset, each once."""

    name = "export"
    reads = (*ITEMS, "sample.name", "export")

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``exports/NAME/``."""
        return Folder(path / "exports" / settings.sample.name, export.EXPORT)

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the stage that drew the subset."""
        return ("sample",)

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to export items of another source than that of the pool."""
        context.check_source(chosen)

    def foresee(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to embed items whose names cannot be names of files."""
        if "embed" in chosen and isinstance(context.items.source, sources.Named):
            export.check_names(context.items.source.ids, context.folder(self.name))

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns the subset and the format."""
        return {**context.digest("sample"), "export": context.plain("export")}

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes the items."""
        pool = context.pool()
        rows = np.unique(context.subset(pool).indices)
        reading = context.items.reading("exporting", pool.items[rows], 256)
        pairs = (pair for b in reading for pair in zip(b.ids.tolist(), b.images, strict=True))
        about = card()
        folder, format_ = context.folder(self.name), context.settings.export.format
        export.export_items(folder, pairs, format_, about)
        return {"items": len(rows)}
