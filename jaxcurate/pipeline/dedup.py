"""Stage ``dedup``: from the pool to the kept rows, without copies and near-duplicates."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcurate.artifacts import folders
from jaxcurate.artifacts.pool import Pool
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.curation import dedup
from jaxcurate.curation.duplicates import KIND, Duplicates, summary_line
from jaxcurate.curation.leaks import leaks
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.embedding import DIGEST, PIXELS
from jaxcurate.pipeline.output import Folder, as_json
from jaxcurate.pipeline.stage import ITEMS, Card, Stage
from jaxcurate.planning import Ask, StagePlan, plan_stage, steps_of_dedup
from jaxcurate.runtime import messages

DROPPED = "dropped.parquet"
"""Name of the file with the dropped rows, each with the row that stands for it."""
LEAKS = "leaks.parquet"
"""Name of the file with the held-out items that have a duplicate in the pool."""


class Dedup(Stage):
    """Stage that finds items of equal content, near-duplicates, and leaks of held-out items."""

    name = "dedup"
    reads = (*ITEMS, "dedup", "seed", "memory_limit", "evaluate.probe_split", "evaluate.test_split")
    disabled = "deduplication is off: config.dedup.enabled=True turns it on"

    def enabled(self, settings: Config) -> bool:
        """Returns whether duplicates are removed."""
        return settings.dedup.enabled

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``dedup/``."""
        return Folder(path / "dedup", KIND)

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the stages that made the pool and filtered it."""
        return ("embed", "filter") if settings.filter.enabled else ("embed",)

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to seek leaks of held-out items that cannot be embedded like the pool."""
        if context.settings.dedup.leaks != "keep":
            context.check_source(chosen, embeds=True)
            context.items.held_out_sources  # noqa: B018  opens them

    def foresee(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to embed fewer items than the quick k-means has clusters."""
        settings = context.settings.dedup
        n_clusters = settings.n_clusters or 0
        seeks = settings.threshold is not None
        if seeks and "embed" in chosen and len(context.items.source) < n_clusters:
            raise InputError(
                f"dedup.n_clusters asks for {n_clusters} clusters, but {context.settings.source} "
                f"has only {len(context.items.source)} item(s)"
            )

    def plan(self, ask: Ask) -> StagePlan:
        """Returns time, memory and traffic before a run."""
        return plan_stage(self.name, ask, steps_of_dedup)

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns the pool, its rows, the settings, the seed and the held-out items."""
        settings = context.settings.dedup
        seeks = settings.leaks != "keep"
        held_out = context.items.held_out_sources if seeks else ()
        return {
            **context.digest("embed", "filter"),
            "dedup": context.plain("dedup"),
            "seed": context.settings.seed,
            **({"held_out": [source.fingerprint for source in held_out]} if seeks else {}),
        }

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes the kept rows, the row that stands for each dropped one, and the pairs."""
        settings, pool = context.settings.dedup, context.pool()
        digests = _digests(context) if settings.content == "items" else None
        valid, leaked = context.filtered(), None
        if settings.leaks != "keep":
            leaked, in_pool = _leaks(context, pool, digests)
            if settings.leaks == "remove":
                rows = np.arange(len(pool)) if valid is None else valid
                valid = np.setdiff1d(rows, in_pool)
        among = slice(None) if valid is None else valid
        keep = _ranks(context.columns([settings.keep])[settings.keep]) if settings.keep else None
        keep = None if keep is None else keep[among]
        x = RowView(pool.embeddings, valid)
        found = self._found_before(context, valid) if context.writes else None
        if messages.from_first("pairs", lambda: found is None):
            found = dedup.deduplicate(
                x,
                settings.threshold,
                rule=settings.rule,
                keep=keep,
                digests=None if digests is None else digests[among],
                n_clusters=settings.n_clusters,
                n_neighbors=settings.n_neighbors,
                seed=context.settings.seed,
                memory_limit=context.settings.memory_limit,
                devices=context.devices,
                progress=context.progress,
            )
        elif found is not None:
            context.progress.line("  from the pairs that were found before")
            rows = x if settings.rule == "components" else None
            found = found.at(settings.threshold, rule=settings.rule, keep=keep, x=rows)
        if not context.writes or found is None:
            return {}
        found = dataclasses.replace(found, rows=valid)
        context.progress.line(f"  {summary_line(found, pool.ids)}")

        def also(folder: folders.NewFolder) -> None:
            _save_table(folder, DROPPED, _dropped(found, pool.ids))
            if leaked is not None:
                _save_table(folder, LEAKS, leaked)

        about = card(pool=pool.fingerprint, search=_search(self.inputs(context)))
        if leaked is not None:
            about["leaks"] = len(leaked)
        found.save(context.folder(self.name), about, also)
        leaks_told = {} if leaked is None else {"held-out items in the pool": len(leaked)}
        return {
            "kept": len(found.kept),
            "same": found.n_same,
            "nearly the same": found.n_near,
            **leaks_told,
        }

    def _found_before(self, context: Context, valid: np.ndarray | None) -> Duplicates | None:
        """Returns the duplicates of an earlier search among the same rows, if it found the pairs
        at this threshold too."""
        threshold = context.settings.dedup.threshold
        try:
            card = context.card(self.name)
            if card.get("search") != as_json(_search(self.inputs(context))):
                return None
            found = Duplicates.load(context.folder(self.name))
        except InputError:  # damaged, or of an older release
            return None
        if valid is None or found.rows is None:
            same_rows = valid is found.rows
        else:
            same_rows = np.array_equal(found.rows, valid)
        if not same_rows or threshold is None or found.threshold is None:
            return None
        return found if threshold >= found.threshold else None


def _search(inputs: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of the inputs that the pairs depend on, with any higher threshold."""
    settings = {
        name: value
        for name, value in inputs["dedup"].items()
        if name not in ("threshold", "rule", "keep", "leaks", "enabled")
    }
    return {**inputs, "dedup": settings}


def _digests(context: Context) -> np.ndarray | None:
    """Returns the hash of each item of the pool, uint64 ``[n, 2]``, or None for vectors.

    Pictures are compared as they were decoded, at their full size, so that the same picture in
    two formats is equal. Files of equal bytes are equal in any case.
    """
    known = context.column_names()
    name = PIXELS if PIXELS in known else DIGEST
    if name not in known:
        return None
    return np.frombuffer(b"".join(context.columns([name])[name]), np.uint64).reshape(-1, 2)


def _ranks(column: np.ndarray) -> np.ndarray:
    """Returns numbers in the order of a column of numbers, dates or texts, such as written dates.

    Raises:
        InputError: a value is missing.
    """
    if column.dtype != object:
        return column
    if any(value is None for value in column):
        raise InputError("config.dedup.keep names a column with missing values")
    return np.unique(column.astype(np.str_), return_inverse=True)[1]


def _leaks(context: Context, pool: Pool, digests: np.ndarray | None) -> tuple[pa.Table, np.ndarray]:
    """Returns the held-out items with a duplicate in the pool, and all such rows of the pool."""
    tables, in_pool = [], []
    settings = context.settings
    splits = settings.evaluate.probe_split, settings.evaluate.test_split
    for split, source in zip(splits, context.items.held_out_sources, strict=True):
        blocks = context.items.embedded(
            f"held-out items of {split}", source, split, with_columns=True
        )
        held = list(blocks)
        theirs = None
        if digests is not None:
            name = PIXELS if source.kind == "picture" else DIGEST
            columns = [block.columns for block in held if block.columns is not None]
            hashes = b"".join(b"".join(table[name].to_pylist()) for table in columns)
            theirs = np.frombuffer(hashes, np.uint64).reshape(-1, 2)
        found = leaks(
            pool,
            np.concatenate([block.embeddings for block in held]),
            settings.dedup.threshold,
            digests=digests,
            held_out_digests=theirs,
            devices=context.devices,
        )
        ids = np.concatenate([block.ids for block in held])[found.held_out]
        tables.append(
            pa.table(
                {
                    "split": pa.array([split] * len(ids), pa.string()),
                    "id": pa.array(ids, pa.string()),
                    "pool_id": pa.array(pool.ids[found.nearest], pa.string()),
                    "pool_row": found.nearest,
                    "similarity": found.similarity,
                    "same": found.same,
                }
            )
        )
        in_pool.append(found.pool)
    leaked = pa.concat_tables(tables)
    if len(leaked):
        first = leaked.slice(0, 1).to_pylist()[0]
        removed = ", which is removed" if settings.dedup.leaks == "remove" else ""
        context.progress.line(
            f"  {len(leaked):,} held-out item(s) have a duplicate in the pool, the first "
            f"{first['id']!r} of {first['split']} ({first['pool_id']!r}{removed})"
        )
    return leaked, np.unique(np.concatenate(in_pool))


def _dropped(found: Duplicates, ids: np.ndarray) -> pa.Table:
    """Returns a table of the dropped rows, each with the row that stands for it."""
    dropped = np.delete(np.arange(len(found.representative)), found.kept)
    kept = found.representative[dropped]
    row, kept_row = found.pool_rows(dropped), found.pool_rows(kept)
    return pa.table(
        {
            "id": pa.array(ids[row], pa.string()),
            "row": row,
            "kept_id": pa.array(ids[kept_row], pa.string()),
            "kept_row": kept_row,
            "similarity": found.similarity[dropped],
            "same": found.same[dropped],
        }
    )


def _save_table(folder: folders.NewFolder, name: str, table: pa.Table) -> None:
    with folder.create(name) as file:
        pq.write_table(table, file)
