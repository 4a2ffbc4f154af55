"""Items of a run as models are trained on them: square pictures, files to crop, or token ids."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from jaxcurate import sources
from jaxcurate.artifacts.files import fingerprint
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.evaluation.compare import HeldOut
from jaxcurate.models.tokenizer import Tokenize, read_tokenizer, tokenizer_of, train_tokenizer
from jaxcurate.pipeline.items import Items, check_all_read
from jaxcurate.sources.pictures import square, with_picture

_AT_ONCE = 1024
"""Number of items of a batch while reading."""


@dataclass(frozen=True)
class SourceRows:
    """Source of some rows of another one, in their order.

    Examples:
        >>> import tempfile
        >>> from jaxcurate.sources import ArraySource
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/x.npy", np.arange(5.0)[:, None])
        ...     rows = SourceRows(ArraySource(f"{folder}/x.npy"), np.array([4, 1]))
        ...     [rows.read(i).id for i in range(len(rows))]
        ['4', '1']
    """

    source: sources.Source
    """The other source."""
    rows: np.ndarray
    """Rows of the other source, int64 ``[n]``."""

    @property
    def name(self) -> str:
        """Name of the other source."""
        return self.source.name

    @property
    def kind(self) -> sources.Kind:
        """Kind of the items."""
        return self.source.kind

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the other source and of the rows."""
        return fingerprint([self.source.fingerprint, self._digest])

    @cached_property
    def _digest(self) -> str:
        """Digest of the rows, for which every checkpoint asks."""
        rows = np.ascontiguousarray(self.rows, np.int64)
        return hashlib.sha256(rows.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int) -> sources.Item:
        """Returns the item of a row."""
        return self.source.read(int(self.rows[row]))

    def annotations(self, rows: Sequence[int] | np.ndarray) -> sources.Annotations:
        """Returns the labels and domains of rows."""
        return self.source.annotations(self.rows[np.asarray(rows)])


class TrainingItems:
    """Items of the pool and of held-out sources, in the form that the objective trains on.

    Args:
        settings: settings of the run.
        items: sources of the run.
        rows: rows of the source that are in the pool, int64 ``[n]``.
    """

    def __init__(self, settings: Config, items: Items, rows: np.ndarray) -> None:
        self.settings, self.items, self.rows = settings, items, rows
        self.training = settings.evaluate.pretraining
        self.kind = self.training.objective.chosen.kind

    def pool(self) -> np.ndarray | sources.Source:
        """Returns the items of the pool, all of which could be read before.

        Returns:
            Pictures, uint8 ``[n, side, side, 3]``, token ids, int32 ``[n, n_tokens]``, or a source
            whose pictures are decoded and cropped at every step.

        Raises:
            InputError: an item can no longer be read, or the objective is for other items.
        """
        source = self.items.source
        prepare = self._prepare(source)
        if self.settings.evaluate.read_files:
            if self.kind != "picture":
                raise InputError("evaluate.read_files is for pictures; texts are read once")
            return SourceRows(source, self.rows)
        reading = self.items.reading("reading", self.rows, _AT_ONCE, prepare=prepare)
        parts = [np.stack(list(batch.contents)) for batch in reading]
        check_all_read(reading)
        items = np.concatenate(parts)
        if self.kind == "text":
            n_full = np.count_nonzero(items[:, -1] != self.training.bert.pad_id)
            self.items.progress.line(
                f"  {n_full:,} of {len(items):,} texts fill all n_tokens={self.training.n_tokens} "
                "places, and are cut if they are longer"
            )
        return items

    def held_out(self, source: sources.Source) -> HeldOut:
        """Reads all usable items of a labeled source, and tells of those left out.

        Raises:
            InputError: no item can be used.
        """
        return read_held_out(
            source,
            self._prepare(source),
            strict=self.settings.strict,
            tell=self.items.progress.line,
        )

    @cached_property
    def tokenizer(self) -> str:
        """Content of ``tokenizer.json``: that of the settings, or one trained on the pool's texts.

        Raises:
            InputError: the file cannot be read.
        """
        if (path := tokenizer_file(self.training.tokenizer)) is not None:
            return read_tokenizer(path)
        self.items.progress.line("  training a tokenizer on the texts of the pool")
        reading = self.items.reading("reading", self.rows, _AT_ONCE)
        texts = (cast(str, text) for batch in reading for text in batch.contents)
        return train_tokenizer(texts, vocab_size=self.training.bert.vocab_size)

    @cached_property
    def _tokenize(self) -> Tokenize:
        bert = self.training.bert
        return tokenizer_of(
            self.tokenizer,
            str(self.training.tokenizer or "the tokenizer of the pool"),
            max_length=self.training.n_tokens,
            pad_id=bert.pad_id,
            vocab_size=bert.vocab_size,
        )

    def _prepare(self, source: sources.Source) -> Callable[[sources.Item], Any]:
        """Returns the function from an item to a square picture or to token ids.

        Raises:
            InputError: the objective is for items of another kind.
        """
        if source.kind != self.kind:
            other = {"picture": "simclr", "text": "mlm"}.get(source.kind)
            hint = f"evaluate.pretraining.objective.name={other} takes these, and " if other else ""
            raise InputError(
                f"{source.name} has {source.kind}s, and "
                f"objective {self.training.objective.name!r} is for {self.kind}s: {hint}"
                "config.evaluate.arms=() evaluates without training"
            )
        return squared(self.training.model.image_size) if self.kind == "picture" else self._tokens

    def _tokens(self, item: sources.Item) -> np.ndarray:
        return self._tokenize(cast(str, item.content))


def tokenizer_file(path: str | None) -> Path | None:
    """Returns the ``tokenizer.json`` that settings name by itself or by its folder, if any."""
    if path is None:
        return None
    given = Path(path).expanduser()
    return given / "tokenizer.json" if given.is_dir() else given


def squared(side: int) -> Callable[[sources.Item], np.ndarray]:
    """Returns the function from a picture as it is stored to a square of ``side`` pixels."""
    use = lambda picture: np.asarray(square(picture, side))
    return lambda item: with_picture(cast(bytes, item.content), use)


def read_held_out(
    source: sources.Source,
    prepare: Callable[[sources.Item], Any],
    *,
    strict: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> HeldOut:
    """Reads all usable items of a labeled split.

    Args:
        source: source of the split.
        prepare: function that each item is replaced by.
        strict: refuse the first item that cannot be used, instead of skipping it.
        tell: called with a line about skipped items, if there are any.

    Raises:
        InputError: no item can be used.
    """
    reading = sources.read_items(source, prepare=prepare, batch_size=_AT_ONCE, strict=strict)
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
    items = np.concatenate([np.stack(list(batch.contents)) for batch in batches])
    ids = np.concatenate([batch.ids for batch in batches])
    return HeldOut(items, notes.label, notes.domain, ids)
