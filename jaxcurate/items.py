"""The items of a run: where each kind comes from, and one way to read and to embed them."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from jax.sharding import Mesh

from jaxcurate import embed as encoders
from jaxcurate import experiment, parallel, sources
from jaxcurate.artifacts.pool import Block
from jaxcurate.checks import InputError
from jaxcurate.progress import Progress
from jaxcurate.settings import Settings


class Items:
    """Sources as the settings name them, opened when they are first asked for."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings = settings
        self.progress = progress

    @cached_property
    def mesh(self) -> Mesh | None:
        """The devices that the settings ask for."""
        return parallel.make_mesh(self.settings.n_devices or None)

    @cached_property
    def source(self) -> sources.Source:
        """The pool's items."""
        return self._open(self.settings.split)

    @cached_property
    def held_out_sources(self) -> tuple[sources.Source, sources.Source]:
        """What the probes learn from, and what they are tested on."""
        settings = self.settings.evaluate
        return self._open(settings.probe_split), self._open(settings.test_split)

    @cached_property
    def references(self) -> sources.Source | None:
        """What the retrieved part of the subset is near to; None where there is no such part."""
        settings = self.settings.sample.mix
        return self._alike(settings.split, settings.references) if settings.retrieved else None

    @cached_property
    def newcomers(self) -> sources.Source:
        """The items that the pool grows by."""
        return self._alike(self.settings.grow.split, self.settings.grow.source)

    def _alike(self, split: str, source: str) -> sources.Source:
        """A source of items that can be embedded as the pool's are.

        Raises:
            ValueError: it has rows of another width, or one has pictures and the other has none.
        """
        other = self._open(split, source)
        if (of := _kind(other)) != (here := _kind(self.source)):
            raise InputError(f"{other.name} has {of}, but {self.source.name}, the pool, has {here}")
        return other

    def _open(self, split: str, source: str = "") -> sources.Source:
        settings = self.settings
        return sources.open_source(
            source or settings.source,
            split=split,
            data_dir=settings.data_dir or None,
            image_size=settings.image_size,
            recipe=settings.recipe,
            image_key=settings.image_key or None,
            label_key=settings.label_key or None,
        )

    @cached_property
    def encoder(self) -> encoders.Encoder:
        """What makes embeddings of items; fitted to the pool's source where it has to be."""
        settings, rows = self.settings.embed, np.arange(len(self.source))
        fitting = lambda: (b.images for b in self.reading("reading", rows, settings.batch_size))
        return encoders.make_encoder(settings, fitting, self.mesh)

    def embedded(self, what: str, source: sources.Source, name: str) -> "Embedded":
        """The items of a source that can be read, embedded batch by batch."""
        size = self.settings.embed.batch_size
        return Embedded(self, self.reading(what, np.arange(len(source)), size, source), name)

    def reading(
        self, what: str, rows: np.ndarray, batch_size: int, source: sources.Source | None = None
    ) -> sources.Reading:
        """Rows of a source, the pool's by default, in batches, with progress."""
        source, done = self.source if source is None else source, 0

        def told(more: int) -> None:
            nonlocal done
            done += more
            self.progress(what, done, len(rows))

        return sources.read_images(source, rows, batch_size=batch_size, progress=told)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Items of the source at ``rows``, which all were readable once."""
        reading = self.reading("reading", rows, 1024)
        images = [batch.images for batch in reading]
        check_all_read(reading)
        return np.concatenate(images)


class Embedded:
    """Blocks of a pool, made as they are iterated over, once."""

    def __init__(self, items: Items, reading: sources.Reading, name: str) -> None:
        self._items, self._reading, self._name = items, reading, name

    def __iter__(self) -> Iterator[Block]:
        """Raises a ValueError where there is no item that can be read."""
        size, batch = self._items.settings.embed.batch_size, None
        for batch in self._reading:
            embeddings = encoders.embed(
                self._items.encoder, batch.images, batch_size=size, mesh=self._items.mesh
            )
            yield Block(embeddings, batch.ids, batch.rows)
        if batch is None:
            raise InputError(f"{self._name} has no item that can be read")

    @property
    def unreadable(self) -> list[list[str]]:
        """Id and reason of each item that could not be read, once all have been asked for."""
        return [[item.id, item.reason] for item in self._reading.unreadable]


def _kind(source: sources.Source) -> str:
    """What the items of a source are."""
    rows = isinstance(source, sources.ArraySource)
    return f"rows of {source.array.shape[1]} columns" if rows else "pictures"


def check_all_read(reading: sources.Reading) -> None:
    """Refuses items that were readable when the pool was made, and no longer are."""
    if reading.unreadable:
        item = reading.unreadable[0]
        raise InputError(f"item {item.id!r} can no longer be read: {item.reason}")


def read_held_out(source: sources.Source) -> experiment.HeldOut:
    """All items of a labelled split that can be read."""
    batches = list(sources.read_images(source, batch_size=1024))
    notes = source.annotations(np.concatenate([batch.rows for batch in batches]))
    images = np.concatenate([batch.images for batch in batches])
    return experiment.HeldOut(images, notes.label, notes.domain)
