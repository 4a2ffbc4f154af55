"""Export of the ids, paths and rows of items as lists, without the items themselves."""

import csv
import io
import os

import pyarrow as pa
import pyarrow.parquet as pq

from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.export import tables
from jaxcurate.export.base import ExportItem, Plan, Shard, batches, utf8
from jaxcurate.sources.base import Kind

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


class ListFormat:
    r"""Lists ``items.parquet``, ``items.csv`` and ``items.txt``.

    The tables have the columns ``id``, ``path`` (of the item's own local file, if it has one),
    ``row``, ``count`` and further ones, such as clusters. An item that was drawn twice is listed
    once, with the count 2. The CSV is that of RFC 4180: values with commas, quotes or line breaks
    are quoted. A line of the text file is the path of one item, or its id if it has no path, in
    which a backslash is written as ``\\``, a line feed as ``\n``, and a carriage return as ``\r``.
    """

    name = "list"
    kinds: tuple[Kind, ...] = ("picture", "text", "vector")
    needs_content = False
    repeats = False
    in_shards = False

    def write_shard(self, folder: NewFolder, shard: Shard) -> int:
        """Writes the three lists, some items at a time."""
        n, writer = 0, None
        with (
            folder.create("items.parquet") as table_file,
            folder.create("items.csv") as csv_file,
            folder.create("items.txt") as text_file,
        ):
            for items in batches(shard.items):
                columns = {"id": tables.ids(items), "path": tables.paths(items)}
                columns |= tables.rows_and_counts(items, count=True) | tables.extras(items)
                table = pa.table(columns)
                writer = writer or pq.ParquetWriter(table_file, table.schema)
                writer.write_table(table)
                csv_file.write(_csv(table, header=n == 0))
                text_file.write(b"".join(_line(item) for item in items))
                n += len(items)
            if writer is not None:
                writer.close()
        return n

    def finish(self, folder: NewFolder, plan: Plan) -> None:
        """Writes nothing more."""


def _csv(table: pa.Table, *, header: bool) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\r\n")
    if header:
        rows.writerow(table.column_names)
    rows.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return text.getvalue().encode()


def _line(item: ExportItem) -> bytes:
    text = item.id if item.path is None else item.path
    for plain, escape in _ESCAPES.items():
        text = text.replace(plain, escape)
    data = utf8(text, f"id {item.id!r}") if item.path is None else os.fsencode(text)
    return data + b"\n"
