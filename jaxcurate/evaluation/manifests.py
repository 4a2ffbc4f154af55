"""Subsets of a pool that were drawn elsewhere, read from their manifests."""

import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.pool import Pool
from jaxcurate.checks import InputError, checked_rows


def read_manifest(path: os.PathLike | str, pool: Pool) -> np.ndarray:
    """Returns the rows of a pool that a manifest names.

    Args:
        path: path of a manifest in Parquet, whose column `id` has ids of the pool and whose column
            `count`, if there is one, the number of times that each is taken; or of row numbers in
            `.npy`; or of a folder with `manifest.parquet`. ``~`` is the home directory.
        pool: the pool.

    Returns:
        int64, sorted. A row that is taken twice is listed twice.

    Raises:
        InputError: the file cannot be read, or names an item that the pool does not have.

    Examples:
        >>> import tempfile
        >>> import jaxcurate as jc
        >>> pool = jc.make_pool(np.eye(4), np.array(["a", "b", "c", "d"]))
        >>> with tempfile.TemporaryDirectory() as work:
        ...     pq.write_table(pa.table({"id": ["d", "b"]}), f"{work}/theirs.parquet")
        ...     read_manifest(f"{work}/theirs.parquet", pool)
        array([1, 3])
    """
    file = manifest_file(path)
    rows = _rows_of_array(file, pool) if file.suffix == ".npy" else _rows_of_ids(file, pool)
    if not len(rows):
        raise InputError(f"{file} names no item")
    return np.sort(rows)


def manifest_file(path: os.PathLike | str) -> epath.Path:
    """Returns the file of a manifest, which may be given by its folder.

    Raises:
        InputError: there is no such file.

    Examples:
        >>> manifest_file("/nowhere/theirs.parquet")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: there is no manifest /nowhere/theirs.parquet
    """
    file = epath.Path(path).expanduser()
    if file.is_dir():
        file = file / "manifest.parquet"
    if not file.exists():
        raise InputError(f"there is no manifest {file}")
    return file


def _rows_of_ids(file: epath.Path, pool: Pool) -> np.ndarray:
    try:
        with file.open("rb") as opened:
            table = pq.read_table(opened)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file} cannot be read as Parquet: {reason}") from error
    if "id" not in table.column_names:
        raise InputError(f"{file} has no column 'id', only {', '.join(table.column_names)}")
    ids = np.array([str(id_) for id_ in table["id"].to_pylist()], np.str_)
    wanted, place = np.unique(ids, return_inverse=True)
    row_of = np.full(len(wanted), -1, np.int64)
    for block in files.blocks(pool.ids) if len(wanted) else ():  # a pool has more than fit
        known = pool.ids[block]
        places = np.minimum(np.searchsorted(wanted, known), len(wanted) - 1)
        found = np.flatnonzero(wanted[places] == known)
        row_of[places[found]] = block.start + found
    rows = row_of[place]
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        raise InputError(
            f"{file} names {len(missing)} item(s) that the pool does not have, the first "
            f"{str(ids[missing[0]])!r}"
        )
    if "count" in table.column_names:
        rows = np.repeat(rows, _counts(file, table["count"]))
    return rows.astype(np.int64)


def _counts(file: epath.Path, column: Any) -> np.ndarray:
    counts = column.to_pylist()
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise InputError(f"{file}: the column 'count' must have whole numbers of at least 0")
    return np.array(counts, np.int64)


def _rows_of_array(file: epath.Path, pool: Pool) -> np.ndarray:
    """Returns the rows of an array of row numbers, which a card beside it ties to a pool."""
    try:
        rows = files.load_array(file)
    except (ValueError, OSError) as error:
        raise InputError(f"{file} cannot be read as row numbers: {error}") from error
    made_from = (folders.read_card(file.parent) or {}).get("pool")
    if made_from is not None and made_from != pool.fingerprint:
        raise InputError(f"{file} was drawn from pool {made_from}, but this is {pool.fingerprint}")
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise InputError(f"{file} must hold whole numbers [m], not {rows.dtype} {rows.shape}")
    checked_rows(np.unique(rows), len(pool), str(file))
    return rows.astype(np.int64)
