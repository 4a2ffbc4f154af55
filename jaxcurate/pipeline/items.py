"""Sources of the items of a run, and one way to read and to embed them."""

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from jaxcurate import encoders, sources
from jaxcurate.artifacts.pool import Block
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.encoders.pixels import n_columns
from jaxcurate.evaluation import compare
from jaxcurate.runtime.devices import Devices
from jaxcurate.runtime.progress import Progress
from jaxcurate.sources.read import refusal
from jaxcurate.sources.usable import unusable_rows

MADE = "tfds:weblike"
"""Name of the only source that is made from the recipe."""
_BYTES_AT_ONCE = 2**28
"""Largest number of bytes of a batch of items. About three batches are held while reading."""


class Items:
    """Sources that the settings name, each opened at its first use."""

    def __init__(
        self, settings: Config, progress: Progress, leave_out: os.PathLike | None = None
    ) -> None:
        self.settings = settings
        self.progress = progress
        self.leave_out = leave_out
        """Local folder that is not searched for items: the work directory."""

    @cached_property
    def devices(self) -> Devices:
        """Devices that the settings ask for."""
        return Devices.first(self.settings.n_devices, self.settings.mapper)

    @cached_property
    def source(self) -> sources.Source:
        """Source of the items of the pool."""
        return self._open(self.settings.split)

    @cached_property
    def held_out_sources(self) -> tuple[sources.Source, sources.Source]:
        """Sources that probes are trained on and tested on."""
        settings = self.settings.evaluate
        return self._open(settings.probe_split), self._open(settings.test_split)

    @cached_property
    def references(self) -> sources.Source | None:
        """Source of the references of the retrieved part of the subset. None without that part."""
        settings = self.settings.sample.mix
        return self._alike(settings.split, settings.references) if settings.retrieved else None

    @property
    def reference_inputs(self) -> dict[str, str]:
        """Fingerprint of the references, if any, on which a draw of the subset depends."""
        return {} if self.references is None else {"references": self.references.fingerprint}

    @cached_property
    def examples(self) -> dict[str, sources.Source]:
        """Sources of wanted and unwanted examples of the filter, by their names, if any."""
        settings = self.settings.filter
        return {name: self._alike(settings.split, spec) for name, spec in settings.examples.items()}

    @cached_property
    def newcomers(self) -> sources.Source:
        """Source of the new items that the pool grows by."""
        return self._alike(self.settings.grow.split, self.settings.grow.source)

    def _alike(self, split: str, source: str | None) -> sources.Source:
        """Returns a source of items that can be embedded like those of the pool.

        Raises:
            InputError: its rows have another width, or only one of the two has pictures.
        """
        other = self._open(split, source)
        if (kind := _kind(other)) != (wanted := _kind(self.source)):
            raise InputError(
                f"{other.name} has {kind}, but {self.source.name}, the pool, has {wanted}"
            )
        return other

    def _open(self, split: str, source: str | None = None) -> sources.Source:
        settings = self.settings
        source = settings.source if source is None else source
        return sources.open_source(
            source,
            split=split,
            data_dir=settings.data_dir,
            image_size=settings.image_size,
            recipe=settings.recipe if source == MADE else None,
            image_key=settings.image_key,
            label_key=settings.label_key,
            leave_out=self.leave_out,
            download=settings.download,
        )

    @cached_property
    def encoder(self) -> encoders.Encoder:
        """Encoder of items, fitted to the source of the pool if it needs a fit."""
        settings, rows = self.settings.embed, np.arange(len(self.source))
        fitting = lambda: (b.images for b in self.reading("reading", rows, settings.batch_size))
        return encoders.make_encoder(settings, fitting, self.devices)

    @property
    def need_direction(self) -> bool:
        """True if rows of zeros cannot be used, because the metric of the clusters is cosine."""
        return self.settings.cluster.metric == "cosine"

    def embedded(
        self,
        task: str,
        source: sources.Source,
        name: str,
        *,
        need_direction: bool | None = None,
    ) -> "Embedded":
        """Returns the items of a source that can be used, embedded batch by batch.

        Args:
            task: name of the work in progress.
            source: source of the items.
            name: name of the source in errors.
            need_direction: skip rows of zeros. By default as for the pool.
        """
        batch_size = self.settings.embed.batch_size
        reading = self.reading(task, np.arange(len(source)), batch_size, source)
        need_direction = self.need_direction if need_direction is None else need_direction
        return Embedded(self, reading, name, need_direction)

    def reading(
        self, task: str, rows: np.ndarray, batch_size: int, source: sources.Source | None = None
    ) -> sources.Reading:
        """Returns rows of a source in batches, with progress.

        Args:
            task: name of the work in progress.
            rows: positions in the source.
            batch_size: largest number of items of a batch.
            source: source of the items. That of the pool by default.
        """
        source, done = self.source if source is None else source, 0

        def report(more: int) -> None:
            nonlocal done
            done += more
            self.progress(task, done, len(rows))

        return sources.read_images(
            source,
            rows,
            batch_size=min(batch_size, _most_at_once(source, self.settings.image_size)),
            progress=report,
            strict=self.settings.strict,
        )

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns the items of the source at ``rows``, all of which were readable before."""
        reading = self.reading("reading", rows, 1024)
        images = [batch.images for batch in reading]
        check_all_read(reading)
        return np.concatenate(images)


class Embedded:
    """Blocks of a pool, embedded during a single iteration.

    Attributes:
        n_items: number of rows so far.
    """

    def __init__(
        self, items: Items, reading: sources.Reading, name: str, need_direction: bool
    ) -> None:
        self._items, self._reading, self._name = items, reading, name
        self._need_direction = need_direction
        self._left_out: list[sources.Unreadable] = []
        self._n_zeros = 0
        self.n_items = 0

    def __iter__(self) -> Iterator[Block]:
        """Yields blocks of embeddings that can be used.

        Raises:
            InputError: no item can be used, or settings are strict and an item cannot be used.
        """
        size = self._items.settings.embed.batch_size
        for batch in self._reading:
            embeddings = encoders.embed(
                self._items.encoder, batch.images, batch_size=size, devices=self._items.devices
            )
            block = self._usable(Block(embeddings, batch.ids, batch.rows))
            if len(block.items):
                self.n_items += len(block.items)
                yield block
        if not self.n_items:
            first = "".join(f"; the first, {id!r}: {reason}" for id, reason in self.unreadable[:1])
            raise InputError(f"{self._name} has no item that can be used{first}")

    def _usable(self, block: Block) -> Block:
        """Returns a block without the rows that cannot be used."""
        self._n_zeros += int(np.count_nonzero(~block.embeddings.any(axis=1)))
        reasons = unusable_rows(block.embeddings, need_direction=self._need_direction)
        if not reasons:
            return block
        for i, reason in reasons.items():
            id_, reason = str(block.ids[i]), f"its embedding {reason}"
            if self._items.settings.strict:
                raise InputError(refusal(self._name, id_, reason))
            self._left_out.append(sources.Unreadable(int(block.items[i]), id_, reason))
        kept = np.delete(np.arange(len(block.items)), list(reasons))
        return Block(*(array[kept] for array in block))

    @property
    def zeros(self) -> dict[str, Any]:
        """Entry of a card on rows of zeros, empty if there were none.

        Without rows of zeros it does not matter whether a direction is needed.
        """
        if not self._n_zeros:
            return {}
        return {"zeros": {"rows": self._n_zeros, "left_out": self._need_direction}}

    @property
    def unreadable(self) -> list[list[str]]:
        """Id and reason of each skipped item, row by row, complete after the iteration.

        Entries without a row, such as folders that cannot be read, come first.
        """
        source = self._reading.source
        skipped = source.skipped if isinstance(source, sources.Skipping) else ()
        rows = sorted([*self._reading.unreadable, *self._left_out])
        return [*map(list, skipped), *([item.id, item.reason] for item in rows)]


def _kind(source: sources.Source) -> str:
    """Returns the kind of the items of a source, in words."""
    rows = isinstance(source, sources.ArraySource)
    return f"rows of {source.array.shape[1]} columns" if rows else "pictures"


def _most_at_once(source: sources.Source, image_size: int) -> int:
    """Returns the largest number of items of a source in a batch, by their bytes."""
    rows = isinstance(source, sources.ArraySource)
    n_bytes = 4 * source.array.shape[1] if rows else n_columns(image_size)
    return max(1, _BYTES_AT_ONCE // n_bytes)


def check_all_read(reading: sources.Reading) -> None:
    """Refuses items that were readable when the pool was made and no longer are.

    Raises:
        InputError: the message names the first such item.
    """
    if reading.unreadable:
        item = reading.unreadable[0]
        raise InputError(f"item {item.id!r} can no longer be read: {item.reason}")


def read_held_out(
    source: sources.Source, *, strict: bool = False, tell: Callable[[str], None] = lambda line: None
) -> compare.HeldOut:
    """Reads all usable items of a labeled split.

    Args:
        source: source of the split.
        strict: refuse the first item that cannot be used, instead of skipping it.
        tell: called with a line about skipped items, if there are any.

    Raises:
        InputError: no item can be used.
    """
    reading = sources.read_images(source, batch_size=1024, strict=strict)
    batches = list(reading)
    if reading.unreadable:
        item = reading.unreadable[0]
        tell(
            f"  {len(reading.unreadable)} held-out item(s) of {source.name} were left out, the "
            f"first {item.id!r} ({item.reason})"
        )
    if not batches:
        raise InputError(f"{source.name} has no item that can be used")
    notes = source.annotations(np.concatenate([batch.rows for batch in batches]))
    images = np.concatenate([batch.images for batch in batches])
    return compare.HeldOut(images, notes.label, notes.domain)
