"""Stage ``export``: from the subset and the source to what a training loop reads."""

import functools
import itertools
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from jaxcurate import export, sources
from jaxcurate.artifacts import folders
from jaxcurate.artifacts.parts import Parts
from jaxcurate.artifacts.pool import Pool
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.embedding import DIGEST, digest_of
from jaxcurate.pipeline.items import check_all_read
from jaxcurate.pipeline.output import Folder
from jaxcurate.pipeline.stage import ITEMS, Card, Stage
from jaxcurate.planning import Ask, StagePlan, plan_stage, steps_of_export

_NAMED_FILES = {"link", "copy"}
"""Formats that name a file after each id."""


class Export(Stage):
    """Stage that writes the items of the subset as they are stored, in one or several formats."""

    name = "export"
    reads = (*ITEMS, "columns", "sample.name", "export")

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``exports/NAME/``, with a folder for each format."""
        return Folder(path / "exports" / settings.sample.name, export.EXPORT)

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the stage that drew the subset."""
        return ("sample",)

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to export items of another source than that of the pool."""
        context.check_source(chosen)

    def foresee(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to embed items that the formats do not take, or whose names are too long."""
        source, formats = context.items.source, context.settings.export.formats
        for name in formats:
            export.check_kind(export.FORMATS[name], source.kind)
            if name == "link" and not isinstance(source, sources.InFiles):
                raise InputError(
                    f"export.format='link' needs items that are local files, and those of "
                    f"{source.name} are not: 'copy' writes them"
                )
        named = _NAMED_FILES & set(formats)
        if "embed" in chosen and named and isinstance(source, sources.Named):
            export.check_names(source.ids, context.folder(self.name) / min(named))

    def plan(self, ask: Ask) -> StagePlan:
        """Returns time, memory and traffic before a run."""
        return plan_stage(self.name, ask, steps_of_export)

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns the subset and the formats."""
        return {**context.digest("sample"), "export": context.plain("export")}

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes the items, shard by shard.

        After a kill it continues with the shard that was not finished.
        """
        subset = _Subset.of_run(context)
        parts = self._parts(context)
        plans = _write_shards(context, subset, parts)
        about = card()
        with folders.new_folder(context.folder(self.name), about, export.EXPORT) as folder:
            index = 0
            for name, plan in plans.items():
                with folder.subfolder(name, {}, export.EXPORT) as below:
                    for _ in plan.n_records:
                        _adopt(below, parts, index)
                        index += 1
                    export.FORMATS[name].finish(below, plan)
        self.tidy(context)
        return {"items": len(subset.rows), "formats": ", ".join(plans)}

    def check_replaceable(self, context: Context, run: str) -> None:
        """Refuses to replace an export or parts that this run did not write."""
        super().check_replaceable(context, run)
        Parts(self._parts_path(context), None, run).check_replaceable(run)

    def tidy(self, context: Context) -> None:
        """Removes the parts."""
        Parts(self._parts_path(context), None, context.run).remove()

    def _parts(self, context: Context) -> Parts:
        return Parts(self._parts_path(context), self.inputs(context), context.run)

    def _parts_path(self, context: Context) -> epath.Path:
        folder = context.folder(self.name)
        return folder.parent / f"{folder.name}.parts"


class _Subset(NamedTuple):
    """Rows of the subset, and all that formats write about them."""

    rows: np.ndarray
    """int64 ``[m]``, distinct rows of the pool."""
    counts: np.ndarray
    """int64 ``[m]``, number of times that each was drawn."""
    pool: Pool
    """Pool that the rows belong to."""
    extra: dict[str, np.ndarray]
    """Values ``[m]`` of further columns, by name."""
    digests: np.ndarray | None
    """Hash of the content of each item when it was embedded, ``[m]``."""

    @classmethod
    def of_run(cls, context: Context) -> "_Subset":
        """Returns the subset of a run."""
        pool = context.pool()
        rows, counts = np.unique(context.subset(pool).indices, return_counts=True)
        tree = context.tree()
        extra = {
            f"cluster_l{level}": tree.point_labels(level)[rows]
            for level in range(1, len(tree.levels) + 1)
        }
        known = context.columns()
        extra |= {name: known[name][rows] for name in context.settings.columns}
        digests = known[DIGEST][rows] if DIGEST in known else None
        return cls(rows, counts, pool, extra, digests)

    def items(
        self, context: Context, begin: int, end: int, *, with_content: bool
    ) -> Iterator[export.ExportItem]:
        """Yields some items of the subset, in order.

        Raises:
            InputError: an item can no longer be read, or was changed since it was embedded.
        """
        source, rows = context.items.source, self.rows[begin:end]
        nothing = itertools.repeat(None, len(rows))
        contents = self._contents(context, begin, end) if with_content else nothing
        for i, content in enumerate(contents, begin):
            row = int(self.rows[i])
            item = int(self.pool.items[row])
            yield export.ExportItem(
                str(self.pool.ids[row]),
                content,
                source.path(item) if isinstance(source, sources.InFiles) else None,
                row,
                int(self.counts[i]),
                {name: values[i] for name, values in self.extra.items()},
            )

    def _contents(self, context: Context, begin: int, end: int) -> Iterator[sources.Content]:
        """Yields the contents of some items, as they are stored."""
        positions = self.pool.items[self.rows[begin:end]]
        reading = context.items.reading("exporting", positions, 256)
        i = begin
        for batch in reading:
            check_all_read(reading)
            for id_, content in zip(batch.ids, batch.contents, strict=True):
                if self.digests is not None and digest_of(content) != self.digests[i]:
                    raise InputError(f"item {str(id_)!r} was changed since it was embedded")
                yield content
                i += 1
        check_all_read(reading)


def _write_shards(context: Context, subset: _Subset, parts: Parts) -> dict[str, export.Plan]:
    """Writes the shards that no finished part has, and returns the plan of each format."""
    settings, kind = context.settings, context.items.source.kind
    plans, index = {}, 0
    for name in settings.export.formats:
        writer = export.FORMATS[name]
        n = len(subset.rows)
        sizes = export.shard_sizes(n, settings.export.shard_size if writer.in_shards else n)
        begin, records = 0, []
        for shard, size in enumerate(sizes):
            if index == len(parts.cards):
                about: dict[str, Any] = {}
                items = functools.partial(subset.items, context, begin, begin + size)
                with parts.new(about) as folder:
                    given = items(with_content=writer.needs_content)
                    about["n"] = writer.write_shard(
                        folder, export.Shard(shard, len(sizes), kind, given)
                    )
            records.append(parts.cards[index]["n"])
            begin, index = begin + size, index + 1
        source = context.items.source
        width, dtype = None, None
        if isinstance(source, sources.InBlocks):
            width, dtype = source.width, source.dtype.name
        plans[name] = export.Plan(settings.sample.name, kind, tuple(records), width, dtype)
    return plans


def _adopt(folder: folders.NewFolder, parts: Parts, index: int) -> None:
    """Moves the files of a part into the folder of the whole."""
    for name, entry in parts.cards[index]["files"].items():
        folder.adopt(parts.folder(index) / name, name, entry)
