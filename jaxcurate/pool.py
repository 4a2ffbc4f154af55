"""A pool: embeddings with the ids of the items they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from jaxcurate import workdir


@dataclass(frozen=True)
class Pool:
    """What curation works on. A row is one item that could be read."""

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

    def save(self, path: epath.PathLike, about: Mapping[str, Any] | None = None) -> None:
        """Writes the pool to a folder, whole or not at all; ``about`` joins its card."""
        about = {**(about or {}), "pool": self.fingerprint, "n": len(self)}
        with workdir.new_folder(path, about) as folder:
            workdir.save_array(folder / "embeddings.npy", self.embeddings)
            workdir.save_array(folder / "ids.npy", self.ids)
            workdir.save_array(folder / "items.npy", self.items)

    @classmethod
    def load(cls, path: epath.PathLike, *, mmap: bool = True) -> "Pool":
        """Opens a pool's folder; the embeddings are read lazily with ``mmap``.

        Raises:
            DamagedError: a file is missing, truncated or altered; it is named.
        """
        card = workdir.check_files(path)
        folder = epath.Path(path)
        pool = cls(
            workdir.load_array(folder / "embeddings.npy", mmap=mmap),
            workdir.load_array(folder / "ids.npy"),
            workdir.load_array(folder / "items.npy"),
            card["pool"],
        )
        if not len(pool.embeddings) == len(pool.ids) == len(pool.items):
            raise workdir.DamagedError(f"{folder}: its arrays differ in length")
        return pool


def make_pool(
    embeddings: np.ndarray, ids: np.ndarray | None = None, items: np.ndarray | None = None
) -> Pool:
    """A pool from arrays.

    Args:
        embeddings: ``[n, d]`` of finite numbers; kept as float32.
        ids: distinct strings ``[n]``; the row numbers by default.
        items: positions in the source ``[n]``; the row numbers by default.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    embeddings = np.asarray(embeddings, np.float32)
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise ValueError(f"embeddings must be [n, d] with n, d > 0, not {embeddings.shape}")
    n = len(embeddings)
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(f"embeddings has a NaN or an infinity, first in row {row}")
    ids = np.arange(n).astype(str) if ids is None else np.asarray(ids, dtype=np.str_)
    items = np.arange(n) if items is None else np.asarray(items, np.int64)
    if ids.shape != (n,) or items.shape != (n,):
        raise ValueError(f"ids and items must have {n} entries, one for each embedding")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < n:
        raise ValueError(f"ids must be distinct, but {str(unique[counts > 1][0])!r} is there twice")
    parts = [workdir.array_digest(embeddings), workdir.array_digest(ids)]
    return Pool(embeddings, ids, items, workdir.fingerprint(parts))
