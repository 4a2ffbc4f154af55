"""Pools: embeddings with the ids of their items."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.row_file import RowFile
from jaxcurate.checks import LARGEST, InputError, as_real, faults_of, refuse
from jaxcurate.stateless_random import keys_of

KIND = "pool"


@dataclass(frozen=True)
class Pool:
    """Embeddings to curate, a row for each item that could be read.

    :func:`make_pool` makes a pool from arrays.
    """

    embeddings: np.ndarray
    """float32 ``[n, d]``, possibly a memory map."""
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
        with folders.new_folder(path, about, KIND) as folder:
            folder.save_array("embeddings.npy", self.embeddings)
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
        pool = cls(read("embeddings.npy"), ids, items, card["pool"])
        if not len(pool.embeddings) == len(pool.ids) == len(pool.items):
            raise files.DamagedError(f"{folder}: its arrays differ in length")
        return pool


class Block(NamedTuple):
    """Consecutive rows of a pool."""

    embeddings: np.ndarray
    """float32 ``[b, d]``."""
    ids: np.ndarray
    """Unicode ``[b]``."""
    items: np.ndarray
    """int64 ``[b]``: positions of the items in their source."""


def make_pool(
    embeddings: np.ndarray, ids: np.ndarray | None = None, items: np.ndarray | None = None
) -> Pool:
    """Returns a pool made from arrays.

    Args:
        embeddings: ``[n, d]`` of real numbers within the range of float32, which are stored as
            float32. A memory map of float32 stays a memory map.
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
    embeddings = embeddings.astype(np.float32, copy=False)
    n = len(embeddings)
    ids = row_ids(np.arange(n)) if ids is None else np.asarray(ids, dtype=np.str_)
    items = np.arange(n) if items is None else np.asarray(items, np.int64)
    if ids.shape != (n,) or items.shape != (n,):
        raise InputError(f"ids and items must have {n} entries, one for each embedding")
    keys_of(ids)  # refuses duplicate ids
    return Pool(embeddings, ids, items, _fingerprint(files.array_digest(embeddings), ids))


def write_pool(
    path: epath.PathLike,
    blocks: Iterable[Block],
    about: Callable[[], Mapping[str, Any]],
    run: str | None = None,
) -> Pool:
    """Writes a pool block by block to a folder, which appears whole or not at all.

    Only one block of the embeddings is in memory at a time. The fingerprint is the same as that
    of :func:`make_pool` for all rows together.

    Args:
        path: path of the folder.
        blocks: at least one block, of float32, unicode and int64.
        about: called after the last block. Its result joins the card.
        run: id of the run that writes. A folder of another run is not replaced.

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
        ids, items, fingerprint = fill_pool(folder, blocks)
        card |= {**about(), "pool": fingerprint, "n": len(ids)}
    return Pool(files.load_array(path / "embeddings.npy", mmap=True), ids, items, fingerprint)


def fill_pool(
    folder: folders.NewFolder, blocks: Iterable[Block]
) -> tuple[np.ndarray, np.ndarray, str]:
    """Writes the files of a pool to a folder, as :func:`write_pool` does.

    Args:
        folder: folder that is being written.
        blocks: at least one block, of float32, unicode and int64.

    Returns:
        Ids, items and fingerprint of the pool.

    Raises:
        InputError: an embedding has a NaN or an infinity, or two ids are equal.
    """
    all_ids, all_items = [], []
    with folder.create("embeddings.npy") as file, RowFile(file) as rows:
        for block in blocks:
            refuse(_faults(block.embeddings, len(rows)), "embeddings", so_far=True)
            rows.append(block.embeddings)
            all_ids.append(block.ids)
            all_items.append(block.items)
    ids, items = np.concatenate(all_ids), np.concatenate(all_items)
    keys_of(ids)
    folder.save_array("ids.npy", ids)
    folder.save_array("items.npy", items)
    return ids, items, _fingerprint(rows.digest, ids)


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
