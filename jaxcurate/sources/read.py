"""Reading of a source in batches, in order, with several threads, and a list of skipped rows."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.sources.base import InBlocks, Item, Source, UnreadableItem
from jaxcurate.sources.usable import UnusableContent, unusable_rows

_MOST_ROWS_PER_TASK = 16  # enough to make the cost of a task small, few enough to share the work


Prepare = Callable[[Item], Any]
"""Function that a reading applies to each item in its threads, such as decoding. It may raise
`jaxcurate.sources.base.UnusableContent`, for which the item is skipped."""


class Batch(NamedTuple):
    """Batch of items."""

    rows: np.ndarray
    """int64 ``[b]``, positions in the source."""
    ids: np.ndarray
    """Unicode ``[b]``."""
    contents: Sequence[Any] | np.ndarray
    """Contents of the items, a list ``[b]`` as they were prepared; or an array ``[b, d]`` in the
    dtype of the source if the source is read in blocks."""


class Unreadable(NamedTuple):
    """Row that was skipped, with the reason."""

    row: int
    """Position in the source."""
    id: str
    """Id of the item."""
    reason: str
    """Reason in a few words."""


class Reading:
    """Iterable over the batches of a source, which `read_items` returns.

    Attributes:
        source: the source.
        unreadable: rows that were skipped so far, in order. It is complete after the iteration.
    """

    def __init__(
        self,
        source: Source,
        rows: Sequence[int] | np.ndarray,
        prepare: Prepare | None,
        batch_size: int,
        n_threads: int,
        progress: Callable[[int], None] | None,
        strict: bool,
    ) -> None:
        self.source = source
        self.unreadable: list[Unreadable] = []
        self._rows = rows
        self._prepare = prepare
        self._batch_size = batch_size
        self._n_threads = n_threads
        self._rows_per_task = max(1, min(_MOST_ROWS_PER_TASK, batch_size // n_threads))
        self._progress = progress
        self._strict = strict

    def __iter__(self) -> Iterator[Batch]:
        self.unreadable = []
        if isinstance(self.source, InBlocks):
            yield from self._blocks(self.source)
            return
        rows, ids, contents = [], [], []
        for row, outcome in self._outcomes():
            if isinstance(outcome, UnreadableItem):
                self._leave_out(row, outcome.id, outcome.reason)
                continue
            rows.append(row)
            ids.append(outcome[0])
            contents.append(outcome[1])
            if len(rows) == self._batch_size:
                yield Batch(np.array(rows, np.int64), np.array(ids, np.str_), contents)
                rows, ids, contents = [], [], []
        if rows:
            yield Batch(np.array(rows, np.int64), np.array(ids, np.str_), contents)

    def _leave_out(self, row: int, id: str, reason: str) -> None:
        """Adds a row to the skipped rows, or refuses it.

        Raises:
            InputError: the reading is strict, so that every row must be usable.
        """
        if self._strict:
            raise InputError(refusal(self.source.name, id, reason))
        self.unreadable.append(Unreadable(row, id, reason))

    def _blocks(self, source: InBlocks) -> Iterator[Batch]:
        """Yields batches of a source that needs no threads."""
        left: Batch | None = None  # remaining rows, fewer than a batch
        for start in range(0, len(self._rows), self._batch_size):
            rows = np.asarray(self._rows[start : start + self._batch_size], np.int64)
            batch = self._usable(Batch(rows, *source.read_block(rows)))
            if left is not None:
                batch = Batch(*map(np.concatenate, zip(left, batch, strict=True)))
            if len(batch.rows) >= self._batch_size:
                yield _part(batch, slice(self._batch_size))
                batch = _part(batch, slice(self._batch_size, None))
            left = batch if len(batch.rows) else None
            if self._progress is not None:
                self._progress(len(rows))
        if left is not None:
            yield left

    def _usable(self, batch: Batch) -> Batch:
        """Returns a batch without the rows that cannot be used."""
        reasons = unusable_rows(np.asarray(batch.contents))
        for i, reason in reasons.items():
            self._leave_out(int(batch.rows[i]), str(batch.ids[i]), reason)
        return (
            _part(batch, np.delete(np.arange(len(batch.rows)), list(reasons))) if reasons else batch
        )

    def _outcomes(self) -> Iterator[tuple[int, tuple[str, Any] | UnreadableItem]]:
        """Yields rows in order, each with its id and content, or with the error of reading it."""
        starts = iter(range(0, len(self._rows), self._rows_per_task))
        pending: deque[Future] = deque()
        # Threads read ahead by two batches, or by two rows each, so that memory stays bounded.
        ahead = max(2 * self._n_threads, 2 * self._batch_size // self._rows_per_task)
        threads = ThreadPoolExecutor(self._n_threads, thread_name_prefix="read")
        try:
            for start in itertools.islice(starts, ahead):
                pending.append(threads.submit(self._read, start))
            while pending:
                outcomes = pending.popleft().result()
                for start in itertools.islice(starts, 1):
                    pending.append(threads.submit(self._read, start))
                yield from outcomes
                if self._progress is not None:
                    self._progress(len(outcomes))
        finally:
            threads.shutdown(cancel_futures=True)

    def _read(self, start: int) -> list[tuple[int, tuple[str, Any] | UnreadableItem]]:
        outcomes: list[tuple[int, tuple[str, Any] | UnreadableItem]] = []
        for row in self._rows[start : start + self._rows_per_task]:
            row = int(row)
            try:
                outcomes.append((row, self._prepared(self.source.read(row))))
            except UnreadableItem as unreadable:
                outcomes.append((row, unreadable))
        return outcomes

    def _prepared(self, item: Item) -> tuple[str, Any]:
        """Returns the id and the prepared content of an item."""
        if self._prepare is None:
            return item.id, item.content
        try:
            return item.id, self._prepare(item)
        except UnusableContent as error:
            raise UnreadableItem(item.id, str(error)) from error


def read_items(
    source: Source,
    rows: Sequence[int] | np.ndarray | None = None,
    *,
    prepare: Prepare | None = None,
    batch_size: int,
    n_threads: int | None = None,
    progress: Callable[[int], None] | None = None,
    strict: bool = False,
) -> Reading:
    """Reads rows of a source in batches, in the given order.

    Every batch but the last has ``batch_size`` items. Items that cannot be read, or have a NaN or
    an infinity, are skipped, and the next items take their places in the batch.

    Args:
        source: source to read.
        rows: positions to read. All by default.
        prepare: function that each item is replaced by, called in the threads. By default contents
            stay as they are. A source that is read in blocks is not prepared.
        batch_size: number of items of a batch.
        n_threads: number of threads that read and decode. By default the number of processors. A
            source that is read in blocks (`jaxcurate.sources.base.InBlocks`) needs no threads.
        progress: called with the number of rows since its last call, including skipped rows.
        strict: refuse the first item that cannot be used, instead of skipping it.

    Returns:
        An iterable of `Batch`, whose ``unreadable`` is filled during the iteration.

    Raises:
        InputError: an argument cannot be used; the message names it.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from jaxcurate.sources import ArraySource, read_items
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/x.npy", np.array([[0.0], [1], [np.nan], [3]]))
        ...     reading = read_items(ArraySource(f"{folder}/x.npy"), batch_size=2)
        ...     [batch.ids.tolist() for batch in reading]
        [['0', '1'], ['3']]
        >>> reading.unreadable
        [Unreadable(row=2, id='2', reason='has a NaN or an infinity as float32')]
    """
    rows = range(len(source)) if rows is None else np.asarray(rows)
    n_threads = n_threads or os.cpu_count() or 1
    for name, value in (("batch_size", batch_size), ("n_threads", n_threads)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
    if len(rows) and (np.min(rows) < 0 or np.max(rows) >= len(source)):
        raise InputError(f"rows must lie in [0, {len(source)}), the rows of {source.name}")
    return Reading(source, rows, prepare, batch_size, n_threads, progress, strict)


def refusal(source: str, id: str, reason: str) -> str:
    """Returns the message of an error of a strict reading.

    Examples:
        >>> refusal("folder:cats", "a.png", "not a picture")[:52]
        "item 'a.png' of folder:cats cannot be used: not a pi"
    """
    return f"item {id!r} of {source} cannot be used: {reason} (strict=False leaves such items out)"


def _part(batch: Batch, part: slice | np.ndarray) -> Batch:
    """Returns rows of a batch whose contents are an array."""
    return Batch(*(np.asarray(array)[part] for array in batch))
