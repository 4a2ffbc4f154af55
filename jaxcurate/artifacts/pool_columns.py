"""Columns with facts about the items of a pool, in one file or in one for each part."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcurate.artifacts import folders
from jaxcurate.artifacts.pool_files import COLUMNS, PARTS, part_name
from jaxcurate.artifacts.verified import check_file
from jaxcurate.checks import InputError


def column_names(path: epath.PathLike) -> list[str]:
    """Returns the names of the columns with facts about the items of the pool in a folder."""
    for file in _column_files(epath.Path(path))[:1]:
        with file.open("rb") as opened:
            return pq.ParquetFile(opened).schema_arrow.names
    return []


def read_columns(
    path: epath.PathLike, names: Sequence[str] | None = None, rows: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Returns facts about the items of the pool in a folder, by name.

    Args:
        path: folder of the pool.
        names: names of columns. All by default.
        rows: sorted rows of the pool, int64 ``[m]``. All by default.

    Returns:
        Arrays ``[n]``, or ``[m]``; values that are missing are NaN or None.

    Raises:
        InputError: the pool has no such column.
    """
    in_files = _column_files(epath.Path(path))
    if not in_files:
        if names:
            raise InputError(
                f"{path} has no columns, and so no {names[0]!r}; config.columns names columns of "
                "the source that `embed` takes along"
            )
        return {}
    known = column_names(path)
    for name in names or ():
        if name not in known:
            raise InputError(f"{path} has no column {name!r}, only {', '.join(known)}")
    tables, begin = [], 0
    for file in in_files:
        with file.open("rb") as opened:
            table = pq.ParquetFile(opened).read(list(names) if names is not None else None)
        n = table.num_rows
        if rows is not None:
            first, last = np.searchsorted(rows, [begin, begin + n])
            table = table.take(rows[first:last] - begin)
        tables.append(table)
        begin += n
    table = pa.concat_tables(tables, promote_options="default") if len(tables) > 1 else tables[0]
    return {name: table[name].to_numpy() for name in table.column_names}


def _column_files(path: epath.Path) -> list[epath.Path]:
    """Returns the files with the columns of a pool, after a check of those of parts."""
    if (path / COLUMNS).exists():
        return [path / COLUMNS]
    if not (path / PARTS).exists():
        return []
    card, found = folders.check_sizes(path), []
    for index in range(len(card[PARTS])):
        name = f"{part_name(index)}/{COLUMNS}"
        if name in card["files"]:
            check_file(path / name, card["files"][name])
            found.append(path / name)
    return found
