"""Sources of the items of a run, and one way to read and to embed them."""

import os
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, cast

import numpy as np
from PIL import Image

from jaxcurate import encoders, sources
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.curation.mixing import MixConfig
from jaxcurate.evaluation.other_tests import parse_tests
from jaxcurate.pipeline.embedding import Embedded, prepared
from jaxcurate.runtime.devices import Devices
from jaxcurate.runtime.progress import Progress
from jaxcurate.runtime.sharing import own_items
from jaxcurate.sources.pictures import square, with_picture

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
        return self._held_out(settings.probe_split), self._held_out(settings.test_split)

    @cached_property
    def extra_tests(self) -> dict[str, sources.Source]:
        """Further labeled sources that encoders are probed on, by their names."""
        named = parse_tests(self.settings.evaluate.extra_tests)
        return {name: self._open("train", source) for name, source in named.items()}

    def _held_out(self, split: str) -> sources.Source:
        """Opens a split of the source of the pool, or a source of its own."""
        is_source = split.partition(":")[0] in sources.SCHEMES
        return self._open("train", split) if is_source else self._open(split)

    @cached_property
    def references(self) -> sources.Source | None:
        """Source of the references of the retrieved part of the subset. None without that part."""
        return self.references_of(self.settings.sample.mix)

    def references_of(self, settings: MixConfig) -> sources.Source | None:
        """Returns the source of the references of a mixture, or None without a retrieved part."""
        return self.alike(settings.split, settings.references) if settings.retrieved else None

    @property
    def reference_inputs(self) -> dict[str, str]:
        """Fingerprint of the references, if any, on which a draw of the subset depends."""
        return {} if self.references is None else {"references": self.references.fingerprint}

    @property
    def reference_inputs_of_arms(self) -> dict[str, str]:
        """Fingerprints of the references, if any, on which the draws of arms depend."""
        settings = self.settings.evaluate
        mixed = self.references_of(settings.mix) if "mixed" in settings.arms else None
        more = {} if mixed is None else {"mixed_references": mixed.fingerprint}
        return self.reference_inputs | more

    @cached_property
    def examples(self) -> dict[str, sources.Source]:
        """Sources of wanted and unwanted examples of the filter, by their names, if any."""
        settings = self.settings.filter
        return {name: self.alike(settings.split, spec) for name, spec in settings.examples.items()}

    @cached_property
    def newcomers(self) -> sources.Source:
        """Source of the new items that the pool grows by."""
        return self.alike(self.settings.grow.split, self.settings.grow.source)

    def alike(self, split: str, source: str | None) -> sources.Source:
        """Returns a source of items that can be embedded like those of the pool.

        Args:
            split: split of the source.
            source: specification of the source.

        Raises:
            InputError: its items are of another kind, or its rows have another width.
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
            recipe=settings.recipe if source == MADE else None,
            content_key=settings.content_key,
            id_key=settings.id_key,
            label_key=settings.label_key,
            domain_key=settings.domain_key,
            leave_out=self.leave_out,
            download=settings.download,
            verify=settings.verify,
        )

    @cached_property
    def encoder(self) -> encoders.Encoder:
        """Encoder of items, fitted to the source of the pool if it needs a fit.

        All processes have to ask for it together, since each fits to a part of the items.
        """
        settings, n = self.settings.embed, len(self.source)
        # Parts of whole batches, so that any number of processes has the same batches.
        step = min(settings.batch_size, self._most_at_once(self.source))
        own = own_items(range(0, n, step), self.devices)
        rows = np.arange(own.start, min(own.stop, n))

        def batches(prepare: Callable[[Any], Any] | None) -> Iterable[np.ndarray]:
            ready = None if prepare is None else prepared(self.source.kind, prepare)
            for batch in self.reading("reading", rows, settings.batch_size, prepare=ready):
                yield np.asarray(batch.contents)

        return encoders.make_encoder(settings, batches, self.devices, self.source.kind)

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
        first: int = 0,
        end: int | None = None,
        may_be_empty: bool = False,
        need_direction: bool | None = None,
        with_columns: bool = False,
    ) -> Embedded:
        """Returns the items of a source that can be used, embedded batch by batch.

        Args:
            task: name of the work in progress.
            source: source of the items.
            name: name of the source in errors.
            first: first row that is read.
            end: row after the last one that is read. All rows by default.
            may_be_empty: return no blocks if no item can be used, instead of refusing that.
            need_direction: skip rows of zeros. By default as for the pool.
            with_columns: return facts about the items as well.
        """
        need_direction = self.need_direction if need_direction is None else need_direction
        return Embedded(
            self.encoder,
            lambda prepare: self.reading(
                task,
                np.arange(first, len(source) if end is None else end),
                self.settings.embed.batch_size,
                source,
                prepare=prepare,
                before=first,
            ),
            source,
            name,
            batch_size=self.settings.embed.batch_size,
            devices=self.devices.local,
            strict=self.settings.strict,
            need_direction=need_direction,
            columns=self.settings.columns if with_columns else None,
            may_be_empty=may_be_empty,
        )

    def reading(
        self,
        task: str,
        rows: np.ndarray,
        batch_size: int,
        source: sources.Source | None = None,
        *,
        prepare: Callable[[sources.Item], Any] | None = None,
        before: int = 0,
    ) -> sources.Reading:
        """Returns rows of a source in batches, with progress.

        Args:
            task: name of the work in progress.
            rows: positions in the source.
            batch_size: largest number of items of a batch.
            source: source of the items. That of the pool by default.
            prepare: function that each item is replaced by.
            before: number of items that were done before, for the progress.
        """
        source, done = self.source if source is None else source, before

        def report(more: int) -> None:
            nonlocal done
            done += more
            self.progress(task, done, before + len(rows))

        return sources.read_items(
            source,
            rows,
            prepare=prepare,
            batch_size=min(batch_size, self._most_at_once(source)),
            progress=report,
            strict=self.settings.strict,
        )

    def _most_at_once(self, source: sources.Source) -> int:
        """Returns the largest number of items of a source in a batch, by their bytes."""
        if isinstance(source, sources.InBlocks):
            n_bytes = source.width * source.dtype.itemsize
        else:
            side = max(self.settings.embed.resolution or 224, self.training_side)
            n_bytes = 3 * side**2
        return max(1, _BYTES_AT_ONCE // n_bytes)

    @property
    def training_side(self) -> int:
        """Side in pixels of the pictures that models are trained on."""
        return self.settings.evaluate.pretraining.model.image_size

    def shown(self, rows: np.ndarray, side: int) -> list[Any]:
        """Returns what a page shows of items of the source.

        Args:
            rows: positions in the source, distinct and sorted.
            side: side in pixels of the squares that whole pictures are put on.

        Returns:
            uint8 ``[side, side, 3]`` of each picture, a text, or None for a vector and for an item
            that cannot be read now.
        """
        source = self.source
        if source.kind == "vector":
            return [None] * len(rows)

        def picture(picture: Image.Image) -> np.ndarray:
            return np.asarray(square(picture, side, "pad", filter="lanczos"))

        prepare = (
            (lambda item: with_picture(cast(bytes, item.content), picture))
            if source.kind == "picture"
            else None
        )
        reading = sources.read_items(source, rows, prepare=prepare, batch_size=1024)
        found = {
            int(row): content
            for batch in reading
            for row, content in zip(batch.rows, batch.contents, strict=True)
        }
        return [found.get(int(row)) for row in rows]


def _kind(source: sources.Source) -> str:
    """Returns the kind of the items of a source, in words."""
    if isinstance(source, sources.InBlocks):
        return f"rows of {source.width} columns"
    return f"{source.kind}s"


def check_all_read(reading: sources.Reading) -> None:
    """Refuses items that were readable when the pool was made and no longer are.

    Raises:
        InputError: the message names the first such item.
    """
    if reading.unreadable:
        item = reading.unreadable[0]
        raise InputError(f"item {item.id!r} can no longer be read: {item.reason}")
