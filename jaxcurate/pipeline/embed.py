"""Stage ``embed``: from the source to the pool, an embedding for every item that can be used."""

import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib import metadata
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcurate import encoders, sources
from jaxcurate.artifacts import folders
from jaxcurate.artifacts.local import read_text
from jaxcurate.artifacts.parts import Parts
from jaxcurate.artifacts.pool_files import KIND, Block, BlockCutter, fill_pool, rows_of_part
from jaxcurate.artifacts.pool_parts import join_pool, read_parts
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.embedding import skipped_by
from jaxcurate.pipeline.output import Folder
from jaxcurate.pipeline.stage import ITEMS, Card, Stage
from jaxcurate.planning import Ask, StagePlan, plan_stage, steps_of_embedding
from jaxcurate.runtime import messages

_PARTS = "pool.parts"
"""Name of the folder with the finished parts of a pool that is not whole yet."""
_PIECES = "pool.pieces"
"""Name of the folder with the finished pieces of the part after them, cut by time."""
_MOST_LISTED = 1000
"""Largest number of skipped items that the card lists. All are in a file."""
LEFT_OUT = "left_out.parquet"
"""Name of the file with id and reason of every item that was skipped."""
_MOST_REASONS = 20
"""Largest number of reasons that are counted one by one."""
_SKIPPED = "skipped.json"
"""Name of the file of a part with id and reason of each item that was skipped."""
_LAYOUT = 2
"""Number of the form of the parts, for those of an older release."""


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
            "embed": context.settings.embed.inputs(),
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
        """Writes ids, embeddings and facts, block by block, part by part.

        After a kill it continues with the piece of a part that was not finished. Of several
        processes, each embeds a contiguous share of the items.
        """
        begun = time.perf_counter()
        place, made_from = context.path / _PARTS, self._made_from(context)
        own = context.parts(place, made_from)
        done = [*own.cards, *self._pieces(context, own).cards]
        before = sum(messages.from_all("before", sum(part["n"] for part in done)))
        if before:
            context.progress.line(f"  continuing after {before} items of an earlier run")
        if any(messages.from_all("unfinished", not self._is_over(context, own))):
            context.items.encoder  # noqa: B018  all processes fit it, also those that are done
        self._write_parts(context, own)
        all_parts = context.parts_of_all(place, made_from, own)
        if not context.writes:
            return {}
        seconds = time.perf_counter() - begun
        left_out = _left_out(context, all_parts)
        cards = [card for parts in all_parts for card in parts.cards]
        if not any(card["n"] for card in cards):
            first = "".join(f"; the first, {id!r}: {reason}" for id, reason in left_out[:1])
            raise InputError(f"{context.settings.source} has no item that can be used{first}")
        n_zeros = sum(card["zeros"] for card in cards)
        about: dict[str, Any] = {"unreadable": left_out[:_MOST_LISTED]}
        if left_out:
            about["left_out"] = _counts(reason for _, reason in left_out)
        if n_zeros:
            about["zeros"] = {"rows": n_zeros, "left_out": context.items.need_direction}
        source = context.items.source
        hashed = isinstance(source, sources.Hashed) and source.ids_are_hashes
        pool = join_pool(
            context.folder(self.name),
            [parts.folder(index) for parts in all_parts for index in range(len(parts.cards))],
            lambda: card(**about),
            context.run,
            part_bytes=context.settings.embed.part_bytes,
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

    def parts(self, context: Context) -> Sequence[epath.Path]:
        """Returns ``pool.parts/`` and ``pool.pieces/``."""
        return [context.path / name for name in (_PARTS, _PIECES)]

    def _made_from(self, context: Context) -> list[Any]:
        # Another release may encode in another way, and another number of devices may round
        # differently.
        releases = [metadata.version(package) for package in ("jaxcurate", "jax")]
        made_from = [self.inputs(context), context.items.need_direction, context.devices.count]
        return [made_from, releases, _LAYOUT]

    def _pieces(self, context: Context, parts: Parts) -> Parts:
        """Returns the pieces of the part after the finished ones of this process."""
        return context.parts(context.path / _PIECES, [parts.made_from, len(parts.cards)])

    def _own_rows(self, context: Context) -> tuple[int, int]:
        """Returns the first row of the source that this process embeds, and the row after them."""
        n_items, process, n = len(context.items.source), messages.index(), messages.count()
        return n_items * process // n, n_items * (process + 1) // n

    def _is_over(self, context: Context, parts: Parts) -> bool:
        """Returns whether the finished parts of this process have all of its rows."""
        return bool(parts.cards) and parts.cards[-1]["end"] >= self._own_rows(context)[1]

    def _write_parts(self, context: Context, parts: Parts) -> None:
        """Embeds the items of this process that no finished piece has, and finishes the parts."""
        first, last = self._own_rows(context)
        stream: _Stream | None = None
        while not self._is_over(context, parts):
            pieces = self._pieces(context, parts)
            if stream is None:
                done = [*parts.cards, *pieces.cards]
                stream = _Stream(context, done[-1]["end"] if done else first, last)
            while not _is_whole(pieces, stream):
                _write_piece(context, pieces, stream)
            _write_part(parts, pieces)
            pieces.remove()

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


class _Stream:
    """Embedded items, one block after another.

    Args:
        context: context of the run.
        first: first row of the source.
        last: row after the last one.

    Attributes:
        end: row of the source after those that are done.
    """

    def __init__(self, context: Context, first: int, last: int) -> None:
        source = context.items.source
        self.end, self._last = first, last
        self._blocks = context.items.embedded(
            "embedding",
            source,
            context.settings.source,
            first=first,
            end=last,
            may_be_empty=True,
            with_columns=True,
        )
        self._cutter = BlockCutter(self._blocks)
        self._part_bytes = context.settings.embed.part_bytes

    @property
    def rows_of_part(self) -> int:
        """Largest number of rows of a part."""
        block = self._cutter.peek()
        return 1 if block is None else rows_of_part(block.embeddings, self._part_bytes)

    @property
    def is_over(self) -> bool:
        """True if all items are done."""
        return self.end == self._last

    def take(self, n_rows: int, seconds: float) -> Iterator[Block]:
        """Yields blocks with at most ``n_rows`` rows in all, until some seconds are over."""
        until = time.monotonic() + seconds
        for block in self._cutter.take(n_rows):
            last = int(block.items[-1])
            yield block
            self.end = last + 1
            if time.monotonic() >= until:
                break
        if self._cutter.peek() is None:
            self.end = self._last

    def skipped(self, begin: int) -> list[list[str]]:
        """Returns id and reason of the items that were skipped from a row on."""
        # Reading ahead may have skipped rows beyond the end.
        left_out = (item for item in self._blocks.left_out if begin <= item.row < self.end)
        return [[item.id, item.reason] for item in left_out]

    def n_zeros(self, begin: int) -> int:
        """Counts the embeddings of zeros from a row on."""
        return self._blocks.n_zeros_of(begin, self.end)


def _is_whole(pieces: Parts, stream: _Stream) -> bool:
    """Returns whether pieces make a whole part, because it is full or the source has no more."""
    if not pieces.cards:
        return False
    n_rows = sum(piece["n"] for piece in pieces.cards)
    return stream.is_over or n_rows >= stream.rows_of_part


def _write_piece(context: Context, pieces: Parts, stream: _Stream) -> None:
    """Embeds items until the part is full, or a few minutes are over."""
    room = stream.rows_of_part - sum(piece["n"] for piece in pieces.cards)
    about: dict[str, Any] = {}
    begin = stream.end
    with pieces.new(about) as folder:
        blocks = stream.take(room, 60 * context.settings.checkpoint_minutes)
        about |= _fill(folder, blocks)
        folder.write_text(_SKIPPED, json.dumps(stream.skipped(begin)))
        about |= {"end": stream.end, "zeros": stream.n_zeros(begin)}


def _write_part(parts: Parts, pieces: Parts) -> None:
    """Makes a part of its pieces, without a copy if it is a single one."""
    folders_ = [pieces.folder(index) for index in range(len(pieces.cards))]
    about: dict[str, Any] = {}
    with parts.new(about) as folder:
        if len(pieces.cards) == 1:
            kept = ("n", "pool", "dtype", "dimensions", "digest")
            about |= {name: pieces.cards[0][name] for name in kept if name in pieces.cards[0]}
            for name, entry in pieces.cards[0]["files"].items():
                folder.adopt(folders_[0] / name, name, entry, keep=True)
        else:
            about |= _fill(folder, read_parts(folders_))
            skipped = [json.loads((piece / _SKIPPED).read_text()) for piece in folders_]
            folder.write_text(_SKIPPED, json.dumps(list(itertools.chain(*skipped))))
        about["end"] = pieces.cards[-1]["end"]
        about["zeros"] = sum(piece["zeros"] for piece in pieces.cards)


def _fill(folder: folders.NewFolder, blocks: Iterable[Block]) -> dict[str, Any]:
    """Writes the files of a part, and returns entries of its card."""
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        return {"n": 0}
    return fill_pool(folder, itertools.chain([first], blocks), check_ids=False).about_part()


def _left_out(context: Context, all_parts: Iterable[Parts]) -> list[list[str]]:
    """Returns id and reason of everything that was skipped, without a row first."""
    left_out = skipped_by(context.items.source)
    for parts in all_parts:
        for index in range(len(parts.cards)):
            left_out += json.loads(read_text(parts.folder(index) / _SKIPPED))
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
    counts = Counter(re.sub(r"\b\d+\b", "N", reason.partition(" to ")[0]) for reason in reasons)
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
