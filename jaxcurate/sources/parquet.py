"""Source of the rows of Parquet files: pictures as bytes, texts, or embeddings."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources import files, location, signatures
from jaxcurate.sources.base import Options, Source, without_splits
from jaxcurate.sources.columns import kind_of
from jaxcurate.sources.tables import TableSource

if TYPE_CHECKING:
    import pyarrow as pa

_OPENED_AT_ONCE = 16
"""Number of files of which the footers are read at once."""
_LARGEST_GROUP = 2**31
"""Largest size in bytes of a row group of which pictures or vectors are read."""
_MOST_ROWS = 2**40
"""Largest number of rows that a file may claim to have."""


class _Group(NamedTuple):
    file: int
    group: int
    first: int
    n_rows: int


class RowGroups:
    """Row groups of Parquet files.

    Args:
        paths: paths of the files, which have the same columns.

    Raises:
        InputError: a file cannot be read, or has other columns than the first.

    Examples:
        >>> import tempfile
        >>> import pyarrow as pa
        >>> import pyarrow.parquet as pq
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = pa.table({"text": ["a", "b", "c"]})
        ...     pq.write_table(table, f"{folder}/a.parquet", row_group_size=2)
        ...     groups = RowGroups([f"{folder}/a.parquet"])
        ...     groups.ends.tolist(), groups.read(1, ["text"])["text"].to_pylist()
        ([2, 3], ['c'])
    """

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths
        with ThreadPoolExecutor(_OPENED_AT_ONCE) as threads:
            footers = list(threads.map(_footer, paths))
        self.schema: pa.Schema = footers[0][1]
        self._footers = [footer for footer, _ in footers]
        self._groups: list[_Group] = []
        for file, (footer, schema) in enumerate(footers):
            _check_same(paths[file], schema, paths[0], self.schema)
            first = 0
            for group in range(footer.num_row_groups):
                n_rows = footer.row_group(group).num_rows
                if not 0 <= n_rows <= _MOST_ROWS:
                    raise InputError(f"{paths[file]} claims to have {n_rows} rows in a row group")
                if n_rows:
                    self._groups.append(_Group(file, group, first, n_rows))
                first += n_rows
        self.ends = np.cumsum([group.n_rows for group in self._groups], dtype=np.int64)

    def place(self, part: int) -> tuple[str, int, str]:
        """Returns the name of the file of a row group, its first row, and the file's folder."""
        group = self._groups[part]
        path = self._paths[group.file]
        folder = os.path.dirname(path) if is_local(path) else ""
        return PurePosixPath(path).name, group.first, folder

    def read(self, part: int, names: Sequence[str]) -> "pa.Table":
        """Returns columns of a row group.

        Raises:
            InputError: the row group cannot be read, or is too large.
        """
        file, group, _, n_rows = self._groups[part]
        footer, path = self._footers[file], self._paths[file]
        with _errors(path):
            size = footer.row_group(group).total_byte_size
            if size > _LARGEST_GROUP and any(self._is_large(name) for name in names):
                raise InputError(
                    f"{path}: row group {group} has {size / 2**30:.1f} GiB, too much to read at "
                    "once: write the file with fewer rows in a row group"
                )
            with _opened(path, footer) as opened:
                table = opened.read_row_group(group, columns=list(names))
            table = table.select(list(names))
            table.validate(full=False)
            if len(table) != n_rows:
                raise InputError(f"{path}: row group {group} has {len(table)} of {n_rows} rows")
        return table

    def _is_large(self, name: str) -> bool:
        """Returns whether a column holds pictures or vectors, most of the bytes of its group.

        The sizes of single columns are not asked for: pyarrow ends the process where they are
        damaged.
        """
        return kind_of(self.schema.field(name).type) in ("picture", "vector")


def open_parquet(path: str, options: Options) -> Source:
    """Opens ``parquet:PATH``, a file, a pattern or a folder, on this machine or in a bucket.

    Args:
        path: path after the colon.
        options: options of the source. Keys name columns, which
            `jaxcurate.sources.columns.choose_fields` finds by default.

    Raises:
        InputError: a file cannot be read, or there is no column of contents, or several.

    Examples:
        >>> import tempfile
        >>> import pyarrow as pa
        >>> import pyarrow.parquet as pq
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = pa.table({"id": ["a"], "embedding": [[1.0, 2.0]]})
        ...     pq.write_table(table, f"{folder}/a.parquet")
        ...     open_parquet(folder, Options()).read(0)
        Item(id='a', content=array([1., 2.], dtype=float32))
    """
    name = f"parquet:{path}"
    without_splits(name, options)
    paths = location.expanded(path, (".parquet", ".pq"), "Parquet files")
    keys = (options.content_key, options.id_key, options.label_key, options.domain_key)
    about = ["parquet", *(key or "" for key in keys)]
    source = TableSource(
        name,
        RowGroups(paths),
        options,
        lambda: location.fingerprint_of(paths, options.verify, about),
    )
    return cast(Source, source)  # its fingerprint is a cached property


@contextmanager
def _opened(path: str, footer: Any = None) -> Iterator[Any]:
    """Yields a `pyarrow.parquet.ParquetFile`."""
    import pyarrow.parquet as pq

    with location.open_file(path) as file, pq.ParquetFile(file, metadata=footer) as opened:
        yield opened


def _footer(path: str) -> tuple[Any, "pa.Schema"]:
    with _errors(path), _opened(path) as opened:
        schema = opened.schema_arrow
        _ = schema.names  # names that are not UTF-8 are refused here
        return opened.metadata, schema


@contextmanager
def _errors(path: str) -> Iterator[None]:
    """Turns the errors of pyarrow for a damaged file into one line that names it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a damaged footer may raise nearly any type
        kind = ""
        if not isinstance(error, MemoryError):
            with location.open_file(path) as file:
                kind = signatures.file_kind(file.read(signatures.N_BYTES))
        if kind and kind != "a Parquet file":
            raise InputError(f"{path} is not a Parquet file: it is {kind}") from error
        line = (files.reason(error).splitlines() or [""])[0]
        raise InputError(f"{path} is not a whole Parquet file ({line[:200]})") from error


def _check_same(path: str, schema: "pa.Schema", first_path: str, first: "pa.Schema") -> None:
    """Refuses a file with other columns than the first file."""
    if schema.equals(first, check_metadata=False):
        return
    for field in first:
        if field.name not in schema.names:
            raise InputError(f"{path} has no column {field.name!r}, which {first_path} has")
        other = [of.type for of in schema if of.name == field.name]
        # A column that has nulls alone in a file may have another type there.
        if other[0] != field.type and "null" not in (str(other[0]), str(field.type)):
            raise InputError(
                f"{path}: column {field.name!r} is {other[0]}, but {field.type} in {first_path}"
            )
