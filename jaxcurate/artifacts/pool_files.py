"""Files of a pool: in one folder, or in parts of bounded size, each a folder of its own.

A pool that fits into a part lies in its folder itself: ``embeddings.npy``, ``ids.npy``,
``items.npy`` and, with facts about the items, ``columns.parquet``. A larger one has these files in
``parts/000000``, ``parts/000001`` and so on, whose rows follow each other. The card of a part has
its number of rows, its fingerprint, and the digest of its embeddings. The card of the pool lists
the files of all parts with their checksums.

The fingerprint of a part is that of a pool with its rows. The fingerprint of a pool in parts is
that of the list of the fingerprints of its parts, in order: it depends on the rows and on where
they are cut, and not on who wrote them, when, or how often it was interrupted.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.lazy_rows import JoinedRows, RowsInFile
from jaxcurate.artifacts.row_file import RowFile
from jaxcurate.checks import LARGEST, faults_of, refuse
from jaxcurate.stateless_random import keys_of

KIND = "pool"
EMBEDDINGS, IDS, ITEMS = "embeddings.npy", "ids.npy", "items.npy"
COLUMNS = "columns.parquet"
"""Name of the file with a column for each fact about the items."""
PARTS = "parts"
"""Name of the folder with the parts of a pool, and of the list of them in its card."""


class Block(NamedTuple):
    """Consecutive rows of a pool."""

    embeddings: np.ndarray
    """``[b, d]``, of the same type in all blocks."""
    ids: np.ndarray
    """Unicode ``[b]``."""
    items: np.ndarray
    """int64 ``[b]``: positions of the items in their source."""
    columns: pa.Table | None = None
    """Facts about the items, such as measures and metadata, ``b`` rows."""

    def rows(self, begin: int, end: int) -> "Block":
        """Returns some of the rows."""
        taken = slice(begin, end)
        columns = None if self.columns is None else self.columns.slice(begin, end - begin)
        return Block(self.embeddings[taken], self.ids[taken], self.items[taken], columns)


class BlockCutter:
    """Blocks that are taken some rows at a time, for which a block may be cut in two.

    Args:
        blocks: blocks of at least one row.
    """

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks = iter(blocks)
        self._next: Block | None = None

    def peek(self) -> Block | None:
        """Returns the rows that come next, or None after the last block."""
        if self._next is None:
            self._next = next(self._blocks, None)
        return self._next

    def take(self, n_rows: int) -> Iterator[Block]:
        """Yields blocks with the next ``n_rows`` rows in all, or with fewer if there are no more.

        Examples:
            >>> block = Block(np.ones((5, 2)), np.arange(5).astype(str), np.arange(5))
            >>> cutter = BlockCutter([block])
            >>> [len(rows.ids) for rows in cutter.take(3)], cutter.peek().ids.tolist()
            ([3], ['3', '4'])
        """
        while n_rows > 0 and (block := self.peek()) is not None:
            taken = block.rows(0, n_rows)
            left = len(block.ids) - len(taken.ids)
            self._next = block.rows(n_rows, len(block.ids)) if left else None
            n_rows -= len(taken.ids)
            yield taken


class Filled(NamedTuple):
    """Facts about the files of a pool, or of a part of it, that were written."""

    ids: np.ndarray
    """Unicode ``[n]``."""
    fingerprint: str
    """Fingerprint of the rows."""
    dtype: np.dtype
    """Type of the embeddings."""
    n_columns: int
    """Number of columns of the embeddings."""
    digest: str
    """Digest of the embeddings alone."""

    def about(self) -> dict[str, Any]:
        """Returns entries of the card of a pool that is not in parts."""
        return {"pool": self.fingerprint, "n": len(self.ids), **stored_as(self.dtype)}

    def about_part(self) -> dict[str, Any]:
        """Returns entries of the card of a part."""
        return {**self.about(), "dimensions": self.n_columns, "digest": self.digest}


def fill_pool(
    folder: folders.NewFolder,
    blocks: Iterable[Block],
    *,
    number_repeats: bool = False,
    check_ids: bool = True,
    trim_ids: bool = False,
) -> Filled:
    """Writes the files of a pool, or of a part of one, to a folder.

    Args:
        folder: folder that is being written.
        blocks: at least one block. Columns are written if all blocks have them.
        number_repeats: make equal ids distinct by numbers.
        check_ids: refuse equal ids.
        trim_ids: store ids as wide as the longest of them, whatever their blocks had room for.

    Raises:
        InputError: an embedding has a NaN or an infinity, or two ids are equal.
    """
    all_ids, all_items = [], []
    dtype, n_columns = np.dtype(np.float32), 0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(folder.create(EMBEDDINGS))
        rows = stack.enter_context(RowFile(file))
        columns: pq.ParquetWriter | None = None
        for block in blocks:
            refuse(faults_in(block.embeddings, len(rows)), "embeddings", so_far=True)
            dtype, n_columns = block.embeddings.dtype, block.embeddings.shape[1]
            rows.append(storable(block.embeddings))
            # Copies, since a view would keep the whole block that it is cut from.
            all_ids.append(np.array(block.ids))
            all_items.append(np.array(block.items))
            if block.columns is not None:
                if columns is None:
                    target = stack.enter_context(folder.create(COLUMNS))
                    columns = stack.enter_context(pq.ParquetWriter(target, block.columns.schema))
                columns.write_table(block.columns)
    ids = np.concatenate(all_ids)
    ids = numbered(ids) if number_repeats else ids
    ids = trimmed(ids) if trim_ids else ids
    if check_ids:
        keys_of(ids)
    folder.save_array(IDS, ids)
    folder.save_array(ITEMS, np.concatenate(all_items))
    return Filled(ids, pool_fingerprint(rows.digest, ids), dtype, n_columns, rows.digest)


def fill_parts(
    folder: folders.NewFolder, blocks: Iterable[Block], sizes: Iterable[int] | int
) -> dict[str, Any]:
    """Writes a pool whose rows are cut into parts, or one that is not if all fit into a part.

    Args:
        folder: folder of the pool that is being written.
        blocks: at least one block.
        sizes: number of rows of each part but the last; or the bound of a part in bytes.

    Returns:
        Entries of the card of the folder.

    Raises:
        InputError: an embedding has a NaN or an infinity, or two ids are equal.
    """
    cutter = BlockCutter(blocks)
    first = cutter.peek()
    if isinstance(sizes, int):
        sizes = itertools.repeat(1 if first is None else rows_of_part(first.embeddings, sizes))
    sizes = iter(sizes)
    filled = fill_pool(folder, cutter.take(next(sizes)))
    if cutter.peek() is None:
        return filled.about()
    cards = []
    with folder.subfolder(part_name(0), about := {}, KIND) as below:
        filled = _moved(filled, folder, below)
        about |= filled.about_part()
    cards.append(listed_part(filled))
    while cutter.peek() is not None:
        with folder.subfolder(part_name(len(cards)), about := {}, KIND) as below:
            filled = fill_pool(below, cutter.take(next(sizes)), check_ids=False, trim_ids=True)
            about |= filled.about_part()
        cards.append(listed_part(filled))
    about = about_parts(cards, filled.n_columns, filled.dtype)
    check_ids_of(folder, about)
    return about


def check_ids_of(folder: folders.NewFolder, about: Mapping[str, Any]) -> None:
    """Refuses equal ids in the parts of a pool that is being written.

    Args:
        folder: folder of the pool.
        about: entries of its card.

    Raises:
        InputError: two ids are equal; the message names one.
    """
    keys_of(PoolFiles(folder.path, {**about, "files": folder.files}).ids)


def _moved(filled: Filled, folder: folders.NewFolder, part: folders.NewFolder) -> Filled:
    """Moves the files of a pool into the folder of its first part."""
    ids = trimmed(filled.ids)
    if ids.dtype != filled.ids.dtype:
        (folder.path / IDS).unlink()
        del folder.files[IDS]
        part.save_array(IDS, ids)
    for name in (EMBEDDINGS, IDS, ITEMS, COLUMNS):
        if name in folder.files:
            part.adopt(folder.path / name, name, folder.files.pop(name))
    return filled._replace(ids=ids, fingerprint=pool_fingerprint(filled.digest, ids))


def part_name(index: int) -> str:
    """Returns the name of the folder of a part within that of its pool.

    Examples:
        >>> part_name(7)
        'parts/000007'
    """
    return f"{PARTS}/{index:06d}"


def listed_part(part: Filled) -> dict[str, Any]:
    """Returns the entry of a part in the list of parts in the card of a pool."""
    return {"pool": part.fingerprint, "n": len(part.ids), "ids": part.ids.dtype.str}


def about_parts(
    cards: Sequence[Mapping[str, Any]], n_columns: int, dtype: np.dtype
) -> dict[str, Any]:
    """Returns entries of the card of a pool in parts.

    Args:
        cards: entry of each part, as :func:`listed_part` returns it.
        n_columns: number of columns of the embeddings.
        dtype: type of the embeddings.
    """
    return {
        "pool": files.fingerprint([card["pool"] for card in cards]),
        "n": sum(card["n"] for card in cards),
        "dimensions": n_columns,
        PARTS: list(cards),
        **stored_as(dtype),
    }


def rows_of_part(rows: np.ndarray, part_bytes: int) -> int:
    """Returns the number of rows of a part, at least 1, for rows like those of ``[b, d]``.

    Examples:
        >>> rows_of_part(np.zeros((3, 4), np.float32), part_bytes=100)
        6
    """
    return max(1, part_bytes // (rows.shape[1] * rows.dtype.itemsize))


class PoolFiles:
    """Arrays of the pool in a folder, each read when it is used.

    Args:
        path: folder of the pool.
        card: card of the folder.
        mmap: open arrays as memory maps, which the arrays of a pool in parts are in any case.
    """

    def __init__(self, path: epath.Path, card: Mapping[str, Any], *, mmap: bool = True) -> None:
        self._path, self._card, self._mmap = path, card, mmap

    @property
    def embeddings(self) -> Any:
        """``[n, d]``, an array or :class:`~jaxcurate.artifacts.lazy_rows.JoinedRows`."""
        name = self._card.get("dtype", "float32")
        if PARTS in self._card:
            dtype = np.dtype(name)
            return self._joined(EMBEDDINGS, (self._card["dimensions"],), dtype)
        rows = files.load_array(self._path / EMBEDDINGS, mmap=self._mmap)
        return rows.view(ml_dtypes.bfloat16) if name == "bfloat16" else rows

    @property
    def ids(self) -> Any:
        """Unicode ``[n]``."""
        if PARTS in self._card:
            widest = max((np.dtype(part["ids"]) for part in self._card[PARTS]), key=_itemsize)
            return self._joined(IDS, (), widest)
        return np.asarray(files.load_array(self._path / IDS, mmap=self._mmap))

    @property
    def items(self) -> Any:
        """int64 ``[n]``."""
        if PARTS in self._card:
            return self._joined(ITEMS, (), np.dtype(np.int64))
        return np.asarray(files.load_array(self._path / ITEMS, mmap=self._mmap))

    def _joined(self, name: str, row_shape: tuple[int, ...], dtype: np.dtype) -> Any:
        in_files = []
        for index, part in enumerate(self._card[PARTS]):
            inside = f"{part_name(index)}/{name}"
            entry = self._card["files"][inside]
            in_files.append(RowsInFile(self._path / inside, part["n"], entry))
        rows = JoinedRows(in_files, row_shape, dtype)
        return rows if self._mmap else rows[:]


def _itemsize(dtype: np.dtype) -> int:
    return dtype.itemsize


def trimmed(ids: np.ndarray) -> np.ndarray:
    """Returns ids in a type that is as wide as the longest of them.

    Examples:
        >>> trimmed(np.array(["a", "bc"], "<U40")).dtype.str
        '<U2'
    """
    width = max(1, int(np.char.str_len(ids).max(initial=0)))
    return ids.astype(f"<U{width}", copy=False)


def numbered(ids: np.ndarray) -> np.ndarray:
    """Returns ids of which those that occur again have the number of the occurrence at their end.

    Args:
        ids: unicode ``[n]``.

    Examples:
        >>> numbered(np.array(["a", "b", "a", "a"])).tolist()
        ['a', 'b', 'a~2', 'a~3']
    """
    _, group = np.unique(ids, return_inverse=True)
    order = np.argsort(group, kind="stable")
    begins = np.flatnonzero(np.append(True, np.diff(group[order]) > 0))
    sizes = np.diff(np.append(begins, len(ids)))
    occurrence = np.empty(len(ids), np.int64)
    occurrence[order] = np.arange(len(ids)) - np.repeat(begins, sizes) + 1
    ends = np.where(occurrence > 1, np.char.add("~", occurrence.astype(np.str_)), "")
    return np.char.add(ids, ends)


def stored_as(dtype: np.dtype) -> dict[str, str]:
    """Returns the entry of a card on the type of embeddings, empty for float32."""
    return {} if dtype == np.float32 else {"dtype": dtype.name}


def storable(rows: np.ndarray) -> np.ndarray:
    """Returns rows in a type that ``.npy`` files know: bfloat16 as the same bits of uint16."""
    return rows.view(np.uint16) if rows.dtype == ml_dtypes.bfloat16 else rows


def faults_in(embeddings: np.ndarray, first: int) -> list[np.ndarray]:
    """Returns the result of :func:`faults_of` for a block whose first row is number ``first``."""
    if not len(embeddings):
        return []
    # With a NaN, minimum and maximum are NaN, and both comparisons are false.
    within = float(embeddings.min()) >= -LARGEST and float(embeddings.max()) <= LARGEST
    return [] if within else [faults_of(embeddings, range(first, first + len(embeddings)))]


def pool_fingerprint(digest: str, ids: np.ndarray) -> str:
    """Returns the fingerprint of rows in one part, from the digest of their embeddings."""
    return files.fingerprint([digest, files.array_digest(ids)])
