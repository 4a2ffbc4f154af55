"""Stage ``report``: from all outputs of the run to one page."""

import json
from collections.abc import Collection
from typing import Any

import numpy as np
from etils import epath

from jaxcurate import report, sources
from jaxcurate.artifacts import files, folders
from jaxcurate.config import Config
from jaxcurate.curation.duplicates import Duplicates
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Page
from jaxcurate.pipeline.stage import ITEMS, Card, Stage

_READ = ("embed", "filter", "dedup", "cluster", "sample", "export", "evaluate")
"""Stages that the page is about."""
_SIDE = 160
"""Side in pixels of the pictures that the page is given."""
_MOST_PAIRS = 60
"""Largest number of dropped rows that the page is given."""


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
        """Writes the page, in process 0."""
        if not context.writes:
            return {}
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
                title=context.settings.title or "",
                source=context.settings.source,
                kind=context.items.source.kind,
                made_from=files.fingerprint(card()["made_from"]),
                settings=context.plain(),
                cards={name: card for name, card in cards.items() if card is not None},
                pool=pool,
                tree=tree,
                indices=context.subset(pool).indices,
                contents=lambda rows: context.items.shown(pool.items[rows], _SIDE),
                links=lambda rows: _links(context.items.source, pool.items[rows]),
                results=results,
                losses=losses,
                duplicates=_duplicates(context),
            )
        )
        files.write_text(context.folder(self.name), page, report.is_report)
        return {}


def _title(context: Context) -> str:
    return context.settings.title or context.settings.source


def _links(source: sources.Source, items: np.ndarray) -> list[str | None]:
    """Returns the path of the file of each item, or None."""
    if not isinstance(source, sources.InFiles):
        return [None] * len(items)
    return [source.path(int(item)) for item in items]


def _duplicates(context: Context) -> list[tuple[int, int, float]]:
    """Returns rows that were dropped with those that stand for them, the least similar first."""
    if context.outputs.get("dedup") is None or not context.card("dedup"):
        return []
    found = Duplicates.load(context.folder("dedup"))
    dropped = np.delete(np.arange(len(found.representative)), found.kept)
    worst = dropped[np.argsort(found.similarity[dropped], kind="stable")[:_MOST_PAIRS]]
    kept = found.representative[worst]
    rows, kept_rows = found.pool_rows(worst).tolist(), found.pool_rows(kept).tolist()
    return list(zip(rows, kept_rows, found.similarity[worst].tolist(), strict=True))
