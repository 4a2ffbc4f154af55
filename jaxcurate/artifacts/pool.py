"""Pools: embeddings with the ids of their items."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.lazy_rows import JoinedRows
from jaxcurate.artifacts.pool_files import (
    COLUMNS,
    EMBEDDINGS,
    IDS,
    ITEMS,
    KIND,
    PARTS,
    Block,
    PoolFiles,
    faults_in,
    fill_parts,
    fill_pool,
    pool_fingerprint,
    storable,
    stored_as,
)
from jaxcurate.checks import InputError, as_real, refuse
from jaxcurate.stateless_random import keys_of

NARROW = ("float16", "bfloat16", "int8")
"""Types of embeddings that are stored as they are given."""


@dataclass(frozen=True)
class Pool:
    """Embeddings to curate, a row for each item that could be read.

    :func:`make_pool` makes a pool from arrays.
    """

    embeddings: Any
    """``[n, d]``, float32 or as they were given in float16, bfloat16 or int8: an array, a memory
    map, or the :class:`~jaxcurate.artifacts.lazy_rows.JoinedRows` of a pool in parts."""
    ids: Any
    """Unicode ``[n]``: distinct ids of the items. In files, as the embeddings are."""
    items: Any
    """int64 ``[n]``: positions of the items in their source. In files, as the embeddings are."""
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

        A pool that was loaded in parts is written in the same parts.

        Args:
            path: path of the folder.
            about: further entries of its card.
        """
        about = {**(about or {})}
        with folders.new_folder(path, about, KIND) as folder:
            if isinstance(self.embeddings, JoinedRows):
                about |= fill_parts(folder, self.blocks(), self.embeddings.sizes)
                return
            folder.save_array(EMBEDDINGS, storable(self.embeddings))
            folder.save_array(IDS, self.ids)
            folder.save_array(ITEMS, self.items)
            about |= {"pool": self.fingerprint, "n": len(self)}
            about |= stored_as(self.embeddings.dtype)

    @classmethod
    def load(cls, path: epath.PathLike, *, mmap: bool = True) -> "Pool":
        """Reads the folder of a pool.

        Every file is compared with its checksum, once a process: those of a pool that is one part
        now, and those of a pool in parts when one of their rows is read for the first time.

        Args:
            path: path of the folder.
            mmap: open the arrays as memory maps, which read rows when they are used.

        Raises:
            DamagedError: a file is missing, truncated or altered; the message names it.
        """
        folder = epath.Path(path)
        card = folders.check_sizes(folder)
        if PARTS not in card:
            folders.check_files(folder)
        inside = PoolFiles(folder, card, mmap=mmap)
        pool = cls(inside.embeddings, inside.ids, inside.items, card["pool"])
        if not len(pool.embeddings) == len(pool.ids) == len(pool.items):
            raise files.DamagedError(f"{folder}: its arrays differ in length")
        return pool


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
        faults += faults_in(embeddings[part], part.start)
    refuse(faults, "embeddings")
    if embeddings.dtype.name not in NARROW:
        embeddings = embeddings.astype(np.float32, copy=False)
    n = len(embeddings)
    ids = row_ids(np.arange(n)) if ids is None else np.asarray(ids, dtype=np.str_)
    items = np.arange(n) if items is None else np.asarray(items, np.int64)
    if ids.shape != (n,) or items.shape != (n,):
        raise InputError(f"ids and items must have {n} entries, one for each embedding")
    keys_of(ids)  # refuses duplicate ids
    digest = files.array_digest(storable(embeddings))
    return Pool(embeddings, ids, items, pool_fingerprint(digest, ids))


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
    inside = PoolFiles(path, card)
    return Pool(inside.embeddings, filled.ids, inside.items, filled.fingerprint)


def stored_blocks(path: epath.PathLike) -> Iterator[Block]:
    """Yields all rows of a pool on disk with their columns, some megabytes at a time.

    Args:
        path: folder with the files that :func:`~jaxcurate.artifacts.pool_files.fill_pool` writes.

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


def row_ids(rows: np.ndarray) -> np.ndarray:
    """Returns the numbers of rows as ids, unicode ``[n]`` with the width of the largest number.

    Args:
        rows: whole numbers ``[n]``.

    Examples:
        >>> row_ids(np.array([3, 12]))
        array(['3', '12'], dtype='<U2')
    """
    return np.asarray(rows).astype(f"<U{len(str(np.max(rows)))}")
