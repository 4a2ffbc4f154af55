"""Stage ``report``: from all outputs of the run to one page."""

import json
from collections.abc import Collection
from typing import Any

from etils import epath

from jaxcurate import report
from jaxcurate.artifacts import files, folders
from jaxcurate.config import Config
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Page
from jaxcurate.pipeline.stage import ITEMS, Card, Stage

_READ = ("embed", "filter", "dedup", "cluster", "sample", "export", "evaluate")
"""Stages that the page is about."""


class Report(Stage):
    """Stage that renders a self-contained page."""

    name = "report"
    reads = (*ITEMS, "sample.name", "title")

    def output(self, settings: Config, path: epath.Path) -> Page:
        """Returns ``report.html``."""
        return Page(path / "report.html")

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the stage that drew the subset, the only one that the page cannot do without."""
        return ("sample",)

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to show items of another source than that of the pool."""
        context.check_source(chosen)

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns the title and the outputs of other stages."""
        return {"title": _title(context), **context.digest(*_READ)}

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes the page."""
        pool, tree = context.pool(), context.tree()
        cards = {name: context.outputs[name].card() for name in _READ if name in context.outputs}
        results, losses = None, {}
        if cards["evaluate"] is not None:
            folder = context.folder("evaluate")
            folders.check_files(folder)
            results = json.loads((folder / "results.json").read_text())
            losses = {
                file.stem.removeprefix("losses_"): files.load_array(file)
                for file in folder.glob("losses_*.npy")
            }
        page = report.render(
            report.Findings(
                title=_title(context),
                made_from=files.fingerprint(card()["made_from"]),
                settings=context.plain(),
                cards={name: card for name, card in cards.items() if card is not None},
                pool=pool,
                tree=tree,
                indices=context.subset(pool).indices,
                images=lambda rows: context.items.read(pool.items[rows]),
                results=results,
                losses=losses,
            )
        )
        files.write_text(context.folder(self.name), page, report.is_report)
        return {}


def _title(context: Context) -> str:
    return context.settings.title or context.settings.source
