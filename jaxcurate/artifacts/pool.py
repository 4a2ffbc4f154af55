"""Pools: embeddings with the ids of their items."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.row_file import RowFile
from jaxcurate.checks import LARGEST, InputError, as_real, faults_of, refuse
from jaxcurate.stateless_random import keys_of

KIND = "pool"
COLUMNS = "columns.parquet"
"""Name of the file with a column for each fact about the items."""
NARROW = ("float16", "bfloat16", "int8")
"""Types of embeddings that are stored as they are given."""


@dataclass(frozen=True)
class Pool:
    """Embeddings to curate, a row for each item that could be read.

    :func:`make_pool` makes a pool from arrays.
    """

    embeddings: np.ndarray
    """``[n, d]``, float32 or as they were given in float16, bfloat16 or int8; possibly a memory
    map."""
    ids: np.ndarray
    """Unicode ``[n]``: distinct ids of the items."""
    items: np.ndarray
    """int64 ``[n]``: positions of the items in their source."""
    fingerprint: str
    """Fingerprint of the rows and ids. Everything that is made from a pool stores it."""

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator["Block"]:
        """Yields all rows, some megabytes at a time."""
        for part in files.blocks(self.embeddings):
            yield Block(self.embeddings[part], self.ids[part], self.items[part])

    def save(self, path: epath.PathLike, about: Mapping[str, Any] | None = None) -> None:
        """Writes the pool to a folder, which appears whole or not at all.

        Args:
            path: path of the folder.
            about: further entries of its card.
        """
        about = {**(about or {}), "pool": self.fingerprint, "n": len(self)}
        about |= stored_as(self.embeddings.dtype)
        with folders.new_folder(path, about, KIND) as folder:
            folder.save_array("embeddings.npy", _storable(self.embeddings))
            folder.save_array("ids.npy", self.ids)
            folder.save_array("items.npy", self.items)

    @classmethod
    def load(cls, path: epath.PathLike, *, mmap: bool = True) -> "Pool":
        """Reads the folder of a pool.

        Args:
            path: path of the folder.
            mmap: open the embeddings as a memory map, which reads rows when they are used.

        Raises:
            DamagedError: a file is missing, truncated or altered; the message names it.
        """
        card = folders.check_files(path)
        folder = epath.Path(path)
        read = lambda name: files.load_array(folder / name, mmap=mmap)
        ids, items = np.asarray(read("ids.npy")), np.asarray(read("items.npy"))
        pool = cls(_embeddings(folder, card, mmap=mmap), ids, items, card["pool"])
        if not len(pool.embeddings) == len(pool.ids) == len(pool.items):
            raise files.DamagedError(f"{folder}: its arrays differ in length")
        return pool


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


def make_pool(
    embeddings: np.ndarray, ids: np.ndarray | None = None, items: np.ndarray | None = None
) -> Pool:
    """Returns a pool made from arrays.

    Args:
        embeddings: ``[n, d]`` of real numbers within the range of float32. They are stored as
            float32, unless they are float16, bfloat16 or int8. A memory map of one of these types
            stays a memory map.
        ids: distinct strings ``[n]``. The row numbers by default.
        items: positions ``[n]`` in the source. The row numbers by default.

    Raises:
        InputError: an argument cannot be used; the message names it.

    Examples:
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> pool = jc.make_pool(np.eye(3), ids=np.array(["a", "b", "c"]))
        >>> len(pool), pool.embeddings.dtype.name
        (3, 'float32')
    """
    embeddings = as_real(embeddings, "embeddings")
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise InputError(f"embeddings must be [n, d] with n, d > 0, not {embeddings.shape}")
    faults = []
    for part in files.blocks(embeddings):
        faults += _faults(embeddings[part], part.start)
    refuse(faults, "embeddings")
    if embeddings.dtype.name not in NARROW:
        embeddings = embeddings.astype(np.float32, copy=False)
    n = len(embeddings)
    ids = row_ids(np.arange(n)) if ids is None else np.asarray(ids, dtype=np.str_)
    items = np.arange(n) if items is None else np.asarray(items, np.int64)
    if ids.shape != (n,) or items.shape != (n,):
        raise InputError(f"ids and items must have {n} entries, one for each embedding")
    keys_of(ids)  # refuses duplicate ids
    digest = files.array_digest(_storable(embeddings))
    return Pool(embeddings, ids, items, _fingerprint(digest, ids))


def write_pool(
    path: epath.PathLike,
    blocks: Iterable[Block],
    about: Callable[[], Mapping[str, Any]],
    run: str | None = None,
    *,
    number_repeats: bool = False,
    also: Callable[[folders.NewFolder], None] | None = None,
) -> Pool:
    """Writes a pool block by block to a folder, which appears whole or not at all.

    Only one block of the embeddings is in memory at a time. The fingerprint is the same as that
    of :func:`make_pool` for all rows together.

    Args:
        path: path of the folder.
        blocks: at least one block.
        about: called after the last block. Its result joins the card.
        run: id of the run that writes. A folder of another run is not replaced.
        number_repeats: make equal ids distinct by numbers, as for ids that are hashes of contents.
        also: writes further files to the folder, after the last block.

    Returns:
        The pool, with its embeddings as a memory map.

    Raises:
        InputError: an embedding has a NaN or an infinity, or two ids are equal.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from jaxcurate.artifacts import Block, write_pool
        >>> rows = np.eye(4, dtype=np.float32)
        >>> blocks = [
        ...     Block(rows[:2], np.array(["a", "b"]), np.array([0, 1])),
        ...     Block(rows[2:], np.array(["c", "d"]), np.array([2, 3])),
        ... ]
        >>> with tempfile.TemporaryDirectory() as work:
        ...     pool = write_pool(f"{work}/pool", blocks, about=lambda: {"encoder": "none"})
        >>> pool.embeddings.shape, pool.ids.tolist()
        ((4, 4), ['a', 'b', 'c', 'd'])
    """
    path, card = epath.Path(path), {} if run is None else {"run": run}
    with folders.new_folder(path, card, KIND) as folder:
        filled = fill_pool(folder, blocks, number_repeats=number_repeats)
        if also is not None:
            also(folder)
        card |= {**about(), **filled.about()}
    return Pool(_embeddings(path, card), filled.ids, filled.items, filled.fingerprint)


class Filled(NamedTuple):
    """Facts about the files of a pool that were written."""

    ids: np.ndarray
    """Unicode ``[n]``."""
    items: np.ndarray
    """int64 ``[n]``: positions of the items in their source."""
    fingerprint: str
    """Fingerprint of the pool."""
    dtype: np.dtype
    """Type of the embeddings."""

    def about(self) -> dict[str, Any]:
        """Returns entries of the card of the folder."""
        return {"pool": self.fingerprint, "n": len(self.ids), **stored_as(self.dtype)}


def fill_pool(
    folder: folders.NewFolder,
    blocks: Iterable[Block],
    *,
    number_repeats: bool = False,
    check_ids: bool = True,
) -> Filled:
    """Writes the files of a pool to a folder, as :func:`write_pool` does.

    Args:
        folder: folder that is being written.
        blocks: at least one block. Columns are written if all blocks have them.
        number_repeats: make equal ids distinct by numbers.
        check_ids: refuse equal ids.

    Raises:
        InputError: an embedding has a NaN or an infinity, or two ids are equal.
    """
    all_ids, all_items = [], []
    dtype = np.dtype(np.float32)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(folder.create("embeddings.npy"))
        rows = stack.enter_context(RowFile(file))
        columns: pq.ParquetWriter | None = None
        for block in blocks:
            refuse(_faults(block.embeddings, len(rows)), "embeddings", so_far=True)
            dtype = block.embeddings.dtype
            rows.append(_storable(block.embeddings))
            all_ids.append(block.ids)
            all_items.append(block.items)
            if block.columns is not None:
                if columns is None:
                    target = stack.enter_context(folder.create(COLUMNS))
                    columns = stack.enter_context(pq.ParquetWriter(target, block.columns.schema))
                columns.write_table(block.columns)
    ids, items = np.concatenate(all_ids), np.concatenate(all_items)
    ids = numbered(ids) if number_repeats else ids
    if check_ids:
        keys_of(ids)
    folder.save_array("ids.npy", ids)
    folder.save_array("items.npy", items)
    return Filled(ids, items, _fingerprint(rows.digest, ids), dtype)


def stored_blocks(path: epath.PathLike) -> Iterator[Block]:
    """Yields all rows of a pool on disk with their columns, some megabytes at a time.

    Args:
        path: folder with the files that :func:`fill_pool` writes.

    Raises:
        DamagedError: a file is missing, truncated or altered; the message names it.
    """
    pool, file = Pool.load(path), epath.Path(path) / COLUMNS
    columns = None
    if file.exists():
        with file.open("rb") as opened:
            columns = pq.read_table(opened)
    begin = 0
    for block in pool.blocks():
        n = len(block.ids)
        yield block._replace(columns=None if columns is None else columns.slice(begin, n))
        begin += n


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


def read_columns(path: epath.PathLike, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Returns facts about the items of the pool in a folder, by name.

    Args:
        path: folder of the pool.
        names: names of columns. All by default.

    Returns:
        Arrays ``[n]``; values that are missing are NaN or None.

    Raises:
        InputError: the pool has no such column.
    """
    file = epath.Path(path) / COLUMNS
    if not file.exists():
        if names:
            raise InputError(f"{path} has no columns, and so no {names[0]!r}: run `embed` again")
        return {}
    with file.open("rb") as opened:
        parquet = pq.ParquetFile(opened)
        known = parquet.schema_arrow.names
        for name in names or ():
            if name not in known:
                raise InputError(f"{path} has no column {name!r}, only {', '.join(known)}")
        table = parquet.read(list(names) if names is not None else None)
    return {name: table[name].to_numpy() for name in table.column_names}


def stored_as(dtype: np.dtype) -> dict[str, str]:
    """Returns the entry of a card on the type of embeddings, empty for float32."""
    return {} if dtype == np.float32 else {"dtype": dtype.name}


def _storable(rows: np.ndarray) -> np.ndarray:
    """Returns rows in a type that ``.npy`` files know: bfloat16 as the same bits of uint16."""
    return rows.view(np.uint16) if rows.dtype == ml_dtypes.bfloat16 else rows


def _embeddings(path: epath.Path, card: Mapping[str, Any], *, mmap: bool = True) -> np.ndarray:
    rows = files.load_array(path / "embeddings.npy", mmap=mmap)
    return rows.view(ml_dtypes.bfloat16) if card.get("dtype") == "bfloat16" else rows


def row_ids(rows: np.ndarray) -> np.ndarray:
    """Returns the numbers of rows as ids, unicode ``[n]`` with the width of the largest number.

    Args:
        rows: whole numbers ``[n]``.

    Examples:
        >>> row_ids(np.array([3, 12]))
        array(['3', '12'], dtype='<U2')
    """
    return np.asarray(rows).astype(f"<U{len(str(np.max(rows)))}")


def _faults(embeddings: np.ndarray, first: int) -> list[np.ndarray]:
    """Returns the result of :func:`faults_of` for a block whose first row is number ``first``."""
    if not len(embeddings):
        return []
    # With a NaN, minimum and maximum are NaN, and both comparisons are false.
    within = float(embeddings.min()) >= -LARGEST and float(embeddings.max()) <= LARGEST
    return [] if within else [faults_of(embeddings, range(first, first + len(embeddings)))]


def _fingerprint(digest: str, ids: np.ndarray) -> str:
    return files.fingerprint([digest, files.array_digest(ids)])
