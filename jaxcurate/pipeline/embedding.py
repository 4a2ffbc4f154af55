"""Embedding of the items of a source, block by block, with facts about them as columns."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
from PIL import Image

from jaxcurate import encoders, sources
from jaxcurate.artifacts.pool_files import Block
from jaxcurate.checks import InputError
from jaxcurate.runtime.devices import Devices
from jaxcurate.sources.measures import PictureMeasures, measure_picture, measure_text
from jaxcurate.sources.pictures import as_rgb, with_picture
from jaxcurate.sources.read import refusal
from jaxcurate.sources.usable import unusable_rows

DIGEST = "digest"
"""Column with 16 bytes of the hash of the stored content, such as the bytes of a file."""
PIXELS = "pixels"
"""Column with 16 bytes of the hash of the whole decoded picture."""


class Prepared(NamedTuple):
    """Item that is ready for the encoder, with facts about it."""

    content: Any
    """Content as the encoder wants it."""
    facts: dict[str, Any]
    """Values of columns."""


def prepared(kind: sources.Kind, prepare: Callable[[Any], Any]) -> Callable[[sources.Item], Any]:
    """Returns the function from an item to what an encoder wants.

    Args:
        kind: kind of the items.
        prepare: function of a decoded picture in RGB, of a text or of a row.
    """
    if kind == "picture":
        use = lambda picture: prepare(as_rgb(picture))
        return lambda item: with_picture(cast(bytes, item.content), use)
    return lambda item: prepare(item.content)


def prepared_with_facts(
    kind: sources.Kind, prepare: Callable[[Any], Any]
) -> Callable[[sources.Item], Prepared]:
    """Returns the function from an item to what an encoder wants, and facts about the item.

    Args:
        kind: kind of the items.
        prepare: function of a decoded picture in RGB, of a text or of a row.
    """

    def of_picture(item: sources.Item) -> Prepared:
        data = cast(bytes, item.content)

        def use(picture: Image.Image) -> Prepared:
            rgb = as_rgb(picture)
            pixels = hashlib.blake2b(f"{rgb.size}".encode(), digest_size=16)
            pixels.update(rgb.tobytes())
            measures = measure_picture(rgb)._asdict()
            facts = {DIGEST: digest_of(data), PIXELS: pixels.digest(), **measures}
            return Prepared(prepare(rgb), facts)

        return with_picture(data, use)

    def of_text(item: sources.Item) -> Prepared:
        text = cast(str, item.content)
        facts = {DIGEST: digest_of(text)}
        return Prepared(prepare(text), facts | measure_text(text)._asdict())

    return of_picture if kind == "picture" else of_text


class Embedded:
    """Blocks of a pool, embedded during a single iteration.

    Args:
        encoder: encoder of the items.
        read: function that starts reading, with the function that prepares an item.
        source: source of the items.
        name: name of the source in errors.
        batch_size: number of items that are encoded at a time, at most.
        devices: devices to use.
        strict: refuse the first item that cannot be used.
        need_direction: skip rows of zeros.
        columns: names of columns of the source to return beside the facts about the items. None
            returns no columns at all.
        may_be_empty: True if other items of the source were embedded before.
    """

    def __init__(
        self,
        encoder: encoders.Encoder,
        read: Callable[[Callable[[sources.Item], Any] | None], sources.Reading],
        source: sources.Source,
        name: str,
        *,
        batch_size: int,
        devices: Devices,
        strict: bool,
        need_direction: bool,
        columns: Sequence[str] | None,
        may_be_empty: bool,
    ) -> None:
        self._may_be_empty = may_be_empty
        self._encoder, self._name, self._source = encoder, name, source
        self._batch_size, self._devices = batch_size, devices
        self._strict, self._need_direction = strict, need_direction
        self._columns = None if columns is None else _known(columns, source)
        in_blocks = isinstance(source, sources.InBlocks)
        self._has_facts = not in_blocks and columns is not None
        if in_blocks or encoder.prepare is None:
            self._reading = read(None)
        else:
            ready = prepared_with_facts if self._has_facts else prepared
            self._reading = read(ready(source.kind, encoder.prepare))
        self._left_out: list[sources.Unreadable] = []
        self._n_told = 0
        self._zeros: list[np.ndarray] = []
        self.n_items = 0
        """Number of rows so far."""

    def __iter__(self) -> Iterator[Block]:
        """Yields blocks of embeddings that can be used.

        Raises:
            InputError: no item can be used, or settings are strict and an item cannot be used.
        """
        for batch in self._reading:
            contents, columns = batch.contents, {}
            if self._has_facts:
                facts = [each.facts for each in contents]
                contents = [each.content for each in contents]
                columns = {name: [fact[name] for fact in facts] for name in facts[0]}
            embeddings = encoders.embed(
                self._encoder, contents, batch_size=self._batch_size, devices=self._devices
            )
            table = self._table(batch.rows, columns)
            block = self._usable(Block(embeddings, batch.ids, batch.rows, table))
            if len(block.items):
                self.n_items += len(block.items)
                yield block
        if not self.n_items and not self._may_be_empty:
            first = "".join(f"; the first, {id!r}: {reason}" for id, reason in self.unreadable[:1])
            raise InputError(f"{self._name} has no item that can be used{first}")

    def _table(self, rows: np.ndarray, facts: dict[str, list[Any]]) -> pa.Table | None:
        """Returns the columns of a batch."""
        if self._columns is None:
            return None
        columns: dict[str, Any] = dict(facts)
        if self._columns:
            columns |= cast(sources.WithColumns, self._source).columns(rows, self._columns)
        arrays = {
            name: pa.array(values, pa.binary(16)) if name in (DIGEST, PIXELS) else pa.array(values)
            for name, values in columns.items()
        }
        return pa.table(arrays) if arrays else None

    def _usable(self, block: Block) -> Block:
        """Returns a block without the rows that cannot be used."""
        zeros = ~block.embeddings.any(axis=1)
        if zeros.any():
            self._zeros.append(block.items[zeros])
        reasons = unusable_rows(block.embeddings, need_direction=self._need_direction)
        if not reasons:
            return block
        for i, reason in reasons.items():
            id_, reason = str(block.ids[i]), f"its embedding {reason}"
            if self._strict:
                raise InputError(refusal(self._name, id_, reason))
            self._left_out.append(sources.Unreadable(int(block.items[i]), id_, reason))
        kept = np.delete(np.arange(len(block.items)), list(reasons))
        columns = None if block.columns is None else block.columns.take(kept)
        return Block(block.embeddings[kept], block.ids[kept], block.items[kept], columns)

    @property
    def n_zeros(self) -> int:
        """Number of embeddings of zeros so far."""
        return sum(map(len, self._zeros))

    def n_zeros_of(self, begin: int, end: int) -> int:
        """Counts the embeddings of zeros so far, of items from row ``begin`` to before ``end``."""
        return sum(int(np.count_nonzero((rows >= begin) & (rows < end))) for rows in self._zeros)

    @property
    def left_out(self) -> list[sources.Unreadable]:
        """Items that cannot be used so far, in the order of rows."""
        return sorted([*self._reading.unreadable, *self._left_out])

    @property
    def unreadable(self) -> list[list[str]]:
        """Id and reason of each skipped item, row by row, complete after the iteration.

        Entries without a row, such as folders that cannot be read, come first.
        """
        return [*skipped_by(self._source), *([item.id, item.reason] for item in self.left_out)]


def skipped_by(source: sources.Source) -> list[list[str]]:
    """Returns path and reason of the files and folders that have no row in a source."""
    return [*map(list, source.skipped)] if isinstance(source, sources.Skipping) else []


def _known(names: Sequence[str], source: sources.Source) -> Sequence[str]:
    """Returns names of columns of a source.

    Raises:
        InputError: the source has no such column, or it has the name of a fact.
    """
    known = source.column_names if isinstance(source, sources.WithColumns) else ()
    for name in names:
        if name not in known:
            has = f"only {', '.join(known)}" if known else "no columns"
            raise InputError(
                f"config.columns names {name!r}, but besides contents, ids, labels and domains "
                f"{source.name} has {has}"
            )
        if name in (DIGEST, PIXELS, *PictureMeasures._fields):
            raise InputError(f"config.columns names {name!r}, which is computed by `embed`")
    return names


def digest_of(content: sources.Content) -> bytes:
    """Returns 16 bytes of the hash of the content of an item, as the column `DIGEST` has it."""
    if isinstance(content, np.ndarray):
        data = np.ascontiguousarray(content).tobytes()
    else:
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.blake2b(data, digest_size=16).digest()
