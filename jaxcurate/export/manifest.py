"""What a subset is on disk: a manifest, the row indices, and a card."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcurate import workdir
from jaxcurate.pool import Pool
from jaxcurate.tree import ClusterTree


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
) -> None:
    """Writes ``manifest.parquet``, ``indices.npy`` and ``card.json``, whole or not at all.

    Args:
        path: the folder.
        indices: int64, sorted, from :func:`jaxcurate.sample`.
        pool: what they index.
        tree: over the pool; the manifest tells the cluster of each row at every level.
        about: joins the card.
    """
    rows, counts = np.unique(indices, return_counts=True)
    columns = {"id": pool.ids[rows], "row": rows, "count": counts.astype(np.int32)}
    for level in range(1, len(tree.levels) + 1):
        columns[f"cluster_l{level}"] = tree.point_labels(level)[rows]
    columns["distance"] = tree.levels[0].distances[rows]
    about = {**about, "pool": pool.fingerprint, "size": len(indices), "distinct": len(rows)}
    with workdir.new_folder(path, about) as folder:
        with (folder / "manifest.parquet").open("wb") as file:
            pq.write_table(pa.table({k: pa.array(v) for k, v in columns.items()}), file)
        workdir.save_array(folder / "indices.npy", indices)


def load_subset(path: epath.PathLike, pool: Pool) -> Subset:
    """Reads a subset's folder.

    Raises:
        DamagedError: a file is missing, truncated or altered; it is named.
        ValueError: the subset was drawn from another pool; both fingerprints are named.
    """
    card = workdir.check_files(path)
    if card["pool"] != pool.fingerprint:
        raise ValueError(
            f"{path} was drawn from pool {card['pool']}, but the pool here is {pool.fingerprint}"
        )
    return Subset(workdir.load_array(epath.Path(path) / "indices.npy"), card)
