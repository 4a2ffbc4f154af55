"""A pool: embeddings with the ids of the items they stand for."""

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
    """Embeddings that curation works on. A row is one item that could be read."""

    embeddings: np.ndarray
    """float32 ``[n, d]``, possibly a memory map."""
    ids: np.ndarray
    """Unicode ``[n]``, distinct: the item of each row."""
    items: np.ndarray
    """int64 ``[n]``: the position of each row's item in its source."""
    fingerprint: str
    """Changes whenever the rows do; what is made from a pool carries it."""

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator["Block"]:
        """Yields all rows, some megabytes at a time."""
        for part in files.blocks(self.embeddings):
            yield Block(self.embeddings[part], self.ids[part], self.items[part])

    def save(self, path: epath.PathLike, about: Mapping[str, Any] | None = None) -> None:
        """Writes the pool to a folder, whole or not at all; ``about`` joins its card."""
        about = {**(about or {}), "pool": self.fingerprint, "n": len(self)}
        with folders.new_folder(path, about, KIND) as folder:
            folder.save_array("embeddings.npy", self.embeddings)
            folder.save_array("ids.npy", self.ids)
            folder.save_array("items.npy", self.items)

    @classmethod
    def load(cls, path: epath.PathLike, *, mmap: bool = True) -> "Pool":
        """Opens a pool's folder; with ``mmap`` everything is read when it is asked for.

        Raises:
            DamagedError: a file is missing, truncated or altered; it is named.
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
    """Some rows of a pool, as a :class:`Pool` has them all."""

    embeddings: np.ndarray
    ids: np.ndarray
    items: np.ndarray


def make_pool(
    embeddings: np.ndarray, ids: np.ndarray | None = None, items: np.ndarray | None = None
) -> Pool:
    """Returns a pool from arrays.

    Args:
        embeddings: ``[n, d]`` of real numbers that float32 can hold; kept as float32. A memory
            map of these stays one.
        ids: distinct strings ``[n]``; the row numbers by default.
        items: positions in the source ``[n]``; the row numbers by default.

    Raises:
        ValueError: naming the argument that cannot be used.

    Example:
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
    keys_of(ids)  # refuses one that is there twice
    return Pool(embeddings, ids, items, _fingerprint(files.array_digest(embeddings), ids))


def write_pool(
    path: epath.PathLike,
    blocks: Iterable[Block],
    about: Callable[[], Mapping[str, Any]],
    run: str | None = None,
) -> Pool:
    """Writes a pool that comes block by block, whole or not at all.

    No more of the embeddings is held than a block. The fingerprint is that which
    :func:`make_pool` gives all rows together.

    Args:
        path: the folder.
        blocks: at least one; float32, unicode and int64.
        about: called once all blocks are there; what it gives joins the card.
        run: the run that writes; what another one wrote is not replaced.

    Returns:
        The pool, its embeddings a memory map.

    Raises:
        ValueError: an embedding has a NaN or an infinity, or an id is there twice.
    """
    path, card = epath.Path(path), {} if run is None else {"run": run}
    with folders.new_folder(path, card, KIND) as folder:
        ids, items, fingerprint = fill_pool(folder, blocks)
        card |= {**about(), "pool": fingerprint, "n": len(ids)}
    return Pool(files.load_array(path / "embeddings.npy", mmap=True), ids, items, fingerprint)


def fill_pool(
    folder: folders.NewFolder, blocks: Iterable[Block]
) -> tuple[np.ndarray, np.ndarray, str]:
    """Writes the files of a pool, as :func:`write_pool` does.

    Returns:
        Ids, items and fingerprint.

    Raises:
        InputError: an embedding has a NaN or an infinity, or an id is there twice.
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
    """Returns numbers of rows as ids, unicode ``[n]`` no wider than the largest needs."""
    return np.asarray(rows).astype(f"<U{len(str(np.max(rows)))}")


def _faults(embeddings: np.ndarray, first: int) -> list[np.ndarray]:
    """Returns what :func:`faults_of` finds in a block whose first row has the number ``first``."""
    if not len(embeddings):
        return []
    # Where there is a NaN both are NaN, and not within.
    within = float(embeddings.min()) >= -LARGEST and float(embeddings.max()) <= LARGEST
    return [] if within else [faults_of(embeddings, range(first, first + len(embeddings)))]


def _fingerprint(digest: str, ids: np.ndarray) -> str:
    return files.fingerprint([digest, files.array_digest(ids)])
