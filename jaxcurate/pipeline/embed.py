"""Stage ``embed``: from the source to the pool, an embedding for every item that can be used."""

import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from importlib import metadata
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcurate import encoders, sources
from jaxcurate.artifacts import folders
from jaxcurate.artifacts.parts import Parts
from jaxcurate.artifacts.pool import KIND, Block, fill_pool, stored_blocks, write_pool
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.embedding import skipped_by
from jaxcurate.pipeline.output import Folder
from jaxcurate.pipeline.stage import ITEMS, Card, Stage
from jaxcurate.planning import Ask, StagePlan, plan_stage, steps_of_embedding

_PARTS = "pool.parts"
"""Name of the folder with the finished parts of a pool that is not whole yet."""
_MOST_LISTED = 1000
"""Largest number of skipped items that the card lists. All are in a file."""
LEFT_OUT = "left_out.parquet"
"""Name of the file with id and reason of every item that was skipped."""
_MOST_REASONS = 20
"""Largest number of reasons that are counted one by one."""
_SKIPPED = "skipped.json"
"""Name of the file of a part with id and reason of each item that was skipped."""


class Embed(Stage):
    """Stage that embeds the items of the source, and lists items that cannot be used."""

    name = "embed"
    reads = (*ITEMS, "embed", "columns", "cluster.metric", "checkpoint_minutes")

    def output(self, settings: Config, path: epath.Path) -> Folder:
        """Returns ``pool/``."""
        return Folder(path / "pool", KIND)

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses a pool that has grown, and if settings are strict, items that cannot be used."""
        context.check_source(chosen)
        if context.settings.strict:
            self._check_strict(context)

    def plan(self, ask: Ask) -> StagePlan:
        """Returns time, memory and traffic before a run."""
        return plan_stage(self.name, ask, steps_of_embedding)

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns the source, the encoder with its weights, and the names of the columns."""
        columns = context.settings.columns
        weights = encoders.weights_fingerprint(context.settings.embed)
        return {
            "source": context.items.source.fingerprint,
            "embed": context.plain("embed"),
            **({"columns": columns} if columns else {}),
            **({"weights": weights} if weights else {}),
        }

    def is_current(self, context: Context, card: dict[str, Any]) -> bool:
        """Returns whether the pool has the items of the source, without those to be skipped."""
        zeros = card.get("zeros")
        # Rows without a direction are skipped if, and only if, the metric needs a direction.
        as_needed = not zeros or zeros["left_out"] == context.items.need_direction
        return as_needed and super().is_current(context, card)

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Writes ids, embeddings and facts, block by block.

        After a kill it continues with the part that was not finished.
        """
        parts, begun = self._parts(context), time.perf_counter()
        before = sum(part["n"] for part in parts.cards)
        if parts.cards:
            context.progress.line(f"  continuing after {before} items of an earlier run")
        _write_parts(context, parts)
        seconds = time.perf_counter() - begun
        left_out = _left_out(context, parts)
        n_zeros = sum(part["zeros"] for part in parts.cards)
        about: dict[str, Any] = {"unreadable": left_out[:_MOST_LISTED]}
        if left_out:
            about["left_out"] = _counts(reason for _, reason in left_out)
        if n_zeros:
            about["zeros"] = {"rows": n_zeros, "left_out": context.items.need_direction}
        source = context.items.source
        hashed = isinstance(source, sources.Hashed) and source.ids_are_hashes
        pool = write_pool(
            context.folder(self.name),
            _blocks(parts),
            lambda: card(**about),
            context.run,
            number_repeats=hashed,
            also=lambda folder: _save_left_out(folder, left_out),
        )
        self.tidy(context)
        if left_out:
            context.progress.line(_told(left_out, context.folder(self.name)))
        return {
            "items": len(pool),
            "dimensions": pool.embeddings.shape[1],
            "items a second": round((len(pool) - before) / max(seconds, 1e-3)),
        }

    def check_replaceable(self, context: Context, run: str) -> None:
        """Refuses to replace a pool or parts that this run did not write."""
        super().check_replaceable(context, run)
        Parts(context.path / _PARTS, None, run).check_replaceable(run)

    def tidy(self, context: Context) -> None:
        """Removes the parts."""
        Parts(context.path / _PARTS, None, context.run).remove()

    def _parts(self, context: Context) -> Parts:
        # Another release may encode in another way, and another number of devices may round
        # differently.
        releases = [metadata.version(package) for package in ("jaxcurate", "jax")]
        made_from = [self.inputs(context), context.items.need_direction, context.devices.count]
        return Parts(context.path / _PARTS, [made_from, releases], context.run)

    def _check_strict(self, context: Context) -> None:
        """Refuses items that the source skips, or that were skipped when the pool was made."""
        left_out = [
            entry for entry in skipped_by(context.items.source) if entry[1] not in sources.NO_ITEMS
        ]
        if not left_out and self.state(context) == "done":
            left_out = [
                entry
                for entry in context.card(self.name)["unreadable"]
                if entry[1] not in sources.NO_ITEMS
            ]
        if left_out:
            id_, reason = left_out[0]
            raise InputError(
                f"{len(left_out)} item(s) of {context.settings.source} cannot be used, the first "
                f"{id_!r} ({reason}), and config.strict refuses to leave them out"
            )


def _write_parts(context: Context, parts: Parts) -> None:
    """Embeds the items that no finished part has, and finishes a part now and then."""
    source, settings = context.items.source, context.settings
    end = parts.cards[-1]["end"] if parts.cards else 0
    if parts.cards and end == len(source):
        return
    blocks = context.items.embedded(
        "embedding", source, settings.source, first=end, with_columns=True
    )
    stream = iter(blocks)
    n_listed = n_zeros = 0
    while end < len(source) or not parts.cards:
        about: dict[str, Any] = {}
        with parts.new(about) as folder:
            taken = _Until(stream, time.monotonic() + 60 * settings.checkpoint_minutes)
            about |= _fill(folder, taken)
            end = len(source) if taken.is_over else taken.end
            # Reading ahead may have skipped rows beyond the end of this part.
            listed = [item for item in blocks.left_out if item.row < end][n_listed:]
            n_listed += len(listed)
            folder.write_text(_SKIPPED, json.dumps([[item.id, item.reason] for item in listed]))
            about |= {"end": end, "zeros": blocks.n_zeros - n_zeros}
            n_zeros = blocks.n_zeros


class _Until:
    """Iterator over blocks until a time.

    Attributes:
        end: row of the source after those of the blocks so far.
        is_over: True if there are no more blocks.
    """

    def __init__(self, blocks: Iterator[Block], until: float) -> None:
        self._blocks, self._until = blocks, until
        self.end, self.is_over = 0, False

    def __iter__(self) -> Iterator[Block]:
        for block in self._blocks:
            self.end = int(block.items[-1]) + 1
            yield block
            if time.monotonic() >= self._until:
                return
        self.is_over = True


def _fill(folder: folders.NewFolder, blocks: Iterable[Block]) -> dict[str, Any]:
    """Writes the files of a part, and returns entries of its card."""
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        return {"n": 0}
    return fill_pool(folder, itertools.chain([first], blocks), check_ids=False).about()


def _blocks(parts: Parts) -> Iterator[Block]:
    """Yields the blocks of all finished parts."""
    for index, card in enumerate(parts.cards):
        if card["n"]:
            yield from stored_blocks(parts.folder(index))


def _left_out(context: Context, parts: Parts) -> list[list[str]]:
    """Returns id and reason of everything that was skipped, without a row first."""
    left_out = skipped_by(context.items.source)
    for index in range(len(parts.cards)):
        left_out += json.loads((parts.folder(index) / _SKIPPED).read_text())
    return left_out


def _save_left_out(folder: folders.NewFolder, left_out: list[list[str]]) -> None:
    """Writes id and reason of everything that was skipped."""
    if not left_out:
        return
    ids, reasons = zip(*left_out, strict=True)
    with folder.create(LEFT_OUT) as file:
        pq.write_table(pa.table({"id": ids, "reason": reasons}), file)


def _counts(reasons: Iterable[str]) -> dict[str, int]:
    """Returns the number of skipped items for each reason, without numbers and paths."""
    counts = Counter(re.sub(r"\d+", "N", reason.partition(" to ")[0]) for reason in reasons)
    most = dict(counts.most_common(_MOST_REASONS))
    rest = counts.total() - sum(most.values())
    return most | ({"other": rest} if rest else {})


def _told(left_out: list[list[str]], folder: epath.Path) -> str:
    """Returns lines on what was skipped: the count for each reason, and where all is listed."""
    counts = ", ".join(
        f"{n:,} {reason}" for reason, n in _counts(reason for _, reason in left_out).items()
    )
    id_, reason = left_out[0]
    return (
        f"  {len(left_out):,} item(s) or file(s) could not be used and were left out ({counts}), "
        f"the first {id_!r} ({reason}); {folder / LEFT_OUT} lists all"
    )
