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
    """Rows of a pool that were selected, with the card of their folder."""

    indices: np.ndarray
    """int64, sorted. A row that is taken twice is listed twice."""
    card: dict[str, Any]
    """Facts about the subset: its pool, its settings, its size."""


def save_subset(
    path: epath.PathLike,
    indices: np.ndarray,
    pool: Pool,
    tree: ClusterTree,
    about: Mapping[str, Any],
    why: Mapping[str, np.ndarray] | None = None,
    metadata: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes ``manifest.parquet``, ``indices.npy`` and ``card.json`` to a folder.

    The folder appears whole or not at all.

    Args:
        path: path of the folder.
        indices: rows int64, sorted, from :func:`jaxcurate.sample`.
        pool: pool that the rows belong to.
        tree: tree over the pool. The manifest lists the cluster of each row at every level.
        about: further entries of the card.
        why: rows that were kept for each reason, such as the result of
            :func:`jaxcurate.curation.mixing.mix`. The manifest then lists the reason of each row,
            and the card has the number of rows of each reason.
        metadata: values ``[n]`` of further columns of the manifest, for all rows of the pool.

    Raises:
        InputError: the tree is over another pool, or ``why`` does not name each row once.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> pool = jc.make_pool(np.eye(10))
        >>> tree = jc.ClusterTree.from_labels([np.repeat([0, 1], 5)])
        >>> with tempfile.TemporaryDirectory() as work:
        ...     save_subset(f"{work}/curated", jc.sample(tree, 4), pool, tree, {"seed": 0})
        ...     manifest = pq.read_table(f"{work}/curated/manifest.parquet")
        >>> manifest.column_names
        ['id', 'row', 'count', 'cluster_l1', 'distance']
        >>> manifest["cluster_l1"].to_pylist()
        [0, 0, 1, 1]
    """
    tree.check_over(pool.fingerprint, len(pool))
    checked_rows(np.unique(indices), len(pool), "indices")
    rows, counts = np.unique(indices, return_counts=True)
    columns = {"id": pool.ids[rows], "row": rows, "count": counts.astype(np.int32)}
    for level in range(1, len(tree.levels) + 1):
        columns[f"cluster_l{level}"] = tree.point_labels(level)[rows]
    columns["distance"] = tree.levels[0].distances[rows]
    columns |= {name: values[rows] for name, values in (metadata or {}).items()}
    if why is not None:
        columns["why"] = _reasons(rows, why)
        about = {**about, "why": {reason: len(kept) for reason, kept in why.items()}}
    about = {**about, "pool": pool.fingerprint, "size": len(indices), "distinct": len(rows)}
    with folders.new_folder(path, about, KIND) as folder:
        with folder.create("manifest.parquet") as file:
            pq.write_table(pa.table({k: pa.array(v) for k, v in columns.items()}), file)
        folder.save_array("indices.npy", indices)


def read_subset(path: epath.PathLike, pool: Pool) -> Subset:
    """Reads the folder that :func:`save_subset` wrote.

    Args:
        path: path of the folder.
        pool: pool that the subset was drawn from.

    Raises:
        DamagedError: a file is missing, truncated or altered; the message names it.
        InputError: the subset was drawn from another pool; the message names both fingerprints.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> import jaxcurate as jc
        >>> pool = jc.make_pool(np.eye(10))
        >>> tree = jc.ClusterTree.from_labels([np.repeat([0, 1], 5)])
        >>> with tempfile.TemporaryDirectory() as work:
        ...     save_subset(f"{work}/curated", np.array([2, 7]), pool, tree, {"seed": 0})
        ...     subset = read_subset(f"{work}/curated", pool)
        >>> subset.indices, subset.card["size"]
        (array([2, 7]), 2)
    """
    card = folders.check_files(path)
    if card["pool"] != pool.fingerprint:
        raise InputError(
            f"{path} was drawn from pool {card['pool']}, but the given pool is {pool.fingerprint}"
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
