"""Stage ``export``: from the subset and the source to what a training loop reads."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from jaxcurate import export, sources
from jaxcurate.artifacts import folders
from jaxcurate.artifacts.local import is_local
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
from jaxcurate.runtime import messages

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
            if name == "link" and not is_local(context.path):
                raise InputError(
                    f"{context.path} is in a bucket, which has no links: export.format='list' or "
                    "'copy'"
                )
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

        After a kill it continues with the shard that was not finished. Of several processes, each
        writes every so many shards.
        """
        subset = _Subset.of_run(context)
        (place,), made_from = self.parts(context), self.inputs(context)
        own = context.parts(place, made_from)
        shards = _shards(context, len(subset.rows))
        _write_shards(context, subset, own, shards)
        parts = context.parts_of_all(place, made_from, own)
        if not context.writes:
            return {}
        plans = _plans(context, shards, parts)
        about = card()
        with folders.new_folder(context.folder(self.name), about, export.EXPORT) as folder:
            index = 0
            for name, plan in plans.items():
                with folder.subfolder(name, {}, export.EXPORT) as below:
                    for _ in plan.n_records:
                        _adopt(below, parts[index % len(parts)], index // len(parts))
                        index += 1
                    export.FORMATS[name].finish(below, plan)
        self.tidy(context)
        return {"items": len(subset.rows), "formats": ", ".join(plans)}

    def parts(self, context: Context) -> Sequence[epath.Path]:
        """Returns ``exports/NAME.parts/``."""
        folder = context.folder(self.name)
        return [folder.parent / f"{folder.name}.parts"]


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
        named, known = context.settings.columns, context.column_names()
        stored = [DIGEST] if DIGEST in known else []
        columns = context.columns([*named, *stored], rows) if named or stored else {}
        extra |= {name: columns[name] for name in named}
        digests = columns.get(DIGEST)
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


class _ShardPlan(NamedTuple):
    """Shard of a format."""

    format: str
    """Name of the format."""
    number: int
    """Number among the shards of the format, from 0."""
    n_shards: int
    """Number of shards of the format."""
    begin: int
    """First item of the subset."""
    end: int
    """Item after the last one."""


def _shards(context: Context, n: int) -> list[_ShardPlan]:
    """Returns the shards of all formats, in order."""
    settings, shards = context.settings.export, []
    for name in settings.formats:
        in_shards = export.FORMATS[name].in_shards
        sizes = export.shard_sizes(n, settings.shard_size if in_shards else n)
        begin = 0
        for number, size in enumerate(sizes):
            shards.append(_ShardPlan(name, number, len(sizes), begin, begin + size))
            begin += size
    return shards


def _write_shards(
    context: Context, subset: _Subset, parts: Parts, shards: Sequence[_ShardPlan]
) -> None:
    """Writes the shards of this process that no finished part has."""
    kind = context.items.source.kind
    own = shards[messages.index() :: messages.count()]
    for shard in own[len(parts.cards) :]:
        writer, about = export.FORMATS[shard.format], {}
        with parts.new(about) as folder:
            given = subset.items(context, shard.begin, shard.end, with_content=writer.needs_content)
            written = export.Shard(shard.number, shard.n_shards, kind, given)
            about["n"] = writer.write_shard(folder, written)


def _plans(
    context: Context, shards: Sequence[_ShardPlan], parts: Sequence[Parts]
) -> dict[str, export.Plan]:
    """Returns the plan of each format, from the finished parts of all processes."""
    source = context.items.source
    width, dtype = None, None
    if isinstance(source, sources.InBlocks):
        width, dtype = source.width, source.dtype.name
    records: dict[str, list[int]] = {name: [] for name in context.settings.export.formats}
    for index, shard in enumerate(shards):
        card = parts[index % len(parts)].cards[index // len(parts)]
        records[shard.format].append(card["n"])
    name = context.settings.sample.name
    return {
        format: export.Plan(name, source.kind, tuple(n), width, dtype)
        for format, n in records.items()
    }


def _adopt(folder: folders.NewFolder, parts: Parts, index: int) -> None:
    """Moves the files of a part into the folder of the whole."""
    for name, entry in parts.cards[index]["files"].items():
        folder.adopt(parts.folder(index) / name, name, entry)
