"""Subsets on disk: a manifest, the row indices, and a card."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.checks import InputError, checked_rows

KIND = "subset"


class Subset(NamedTuple):
    """Rows of a pool, and the card that says where they come from."""

    indices: np.ndarray
    """int64, sorted; a row that is taken twice stands there twice."""
    card: dict[str, Any]


def save_subset(
    path: epath.PathLike,
    indices: np.ndarray,
    pool: Pool,
    tree: ClusterTree,
    about: Mapping[str, Any],
    why: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes ``manifest.parquet``, ``indices.npy`` and ``card.json``, whole or not at all.

    Args:
        path: the folder.
        indices: int64, sorted, from :func:`jaxcurate.sample`.
        pool: what they index.
        tree: over the pool; the manifest tells the cluster of each row at every level.
        about: joins the card.
        why: the rows that were kept for each reason, such as :func:`jaxcurate.curation.mixing.mix`
            tells; the manifest then says why each row was kept, and the card how many were for
            what.

    Raises:
        ValueError: the tree is over another pool; or a row of ``indices`` is kept for no reason
            or for two, or a reason names another row.
    """
    tree.check_over(pool.fingerprint, len(pool))
    checked_rows(np.unique(indices), len(pool), "indices")
    rows, counts = np.unique(indices, return_counts=True)
    columns = {"id": pool.ids[rows], "row": rows, "count": counts.astype(np.int32)}
    for level in range(1, len(tree.levels) + 1):
        columns[f"cluster_l{level}"] = tree.point_labels(level)[rows]
    columns["distance"] = tree.levels[0].distances[rows]
    if why is not None:
        columns["why"] = _reasons(rows, why)
        about = {**about, "why": {reason: len(kept) for reason, kept in why.items()}}
    about = {**about, "pool": pool.fingerprint, "size": len(indices), "distinct": len(rows)}
    with folders.new_folder(path, about, KIND) as folder:
        with folder.create("manifest.parquet") as file:
            pq.write_table(pa.table({k: pa.array(v) for k, v in columns.items()}), file)
        folder.save_array("indices.npy", indices)


def load_subset(path: epath.PathLike, pool: Pool) -> Subset:
    """Reads a subset's folder.

    Raises:
        DamagedError: a file is missing, truncated or altered; it is named.
        ValueError: the subset was drawn from another pool; both fingerprints are named.
    """
    card = folders.check_files(path)
    if card["pool"] != pool.fingerprint:
        raise InputError(
            f"{path} was drawn from pool {card['pool']}, but the pool here is {pool.fingerprint}"
        )
    return Subset(files.load_array(epath.Path(path) / "indices.npy"), card)


def _reasons(rows: np.ndarray, why: Mapping[str, np.ndarray]) -> pa.DictionaryArray:
    """Returns the reason of each row, as a column that stores every name once."""
    named = np.concatenate([np.zeros(0, np.int64), *why.values()])
    order = np.argsort(named, kind="stable")
    if not np.array_equal(named[order], rows):
        raise InputError(
            f"why names {len(named)} rows, of which {len(np.intersect1d(named, rows))} are among "
            f"the {len(rows)} of the subset; it must name each of these once"
        )
    codes = np.repeat(np.arange(len(why), dtype=np.int8), [len(kept) for kept in why.values()])
    return pa.DictionaryArray.from_arrays(codes[order], list(why))
