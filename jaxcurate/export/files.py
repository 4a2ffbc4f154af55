"""Export of items as files of their own: links to the original files, or copies of their bytes."""

import os
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from jaxcurate.artifacts.files import is_local
from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.checks import InputError
from jaxcurate.export import tables
from jaxcurate.export.base import ExportItem, Plan, Shard, batches, encoded
from jaxcurate.export.names import TEXT, UNKNOWN, path_of, suffix_of
from jaxcurate.sources.base import Kind
from jaxcurate.sources.files import open_regular

_FIRST_BYTES = 16


class LinkFormat:
    """Symbolic links to the original files, named by the ids of the items.

    Names are made by :func:`jaxcurate.export.names.path_of`, and keep the suffix of the id. Links
    are absolute, because they are made in a temporary folder, and the export may be moved, while
    the original files stay where they are. An item that was drawn twice has one link, and its
    ``count`` in ``items-NNNNN-of-NNNNN.parquet`` is 2; that table lists id, file, row and count.
    """

    name = "link"
    kinds: tuple[Kind, ...] = ("picture", "text")
    needs_content = False
    repeats = False
    in_shards = True

    def write_shard(self, folder: NewFolder, shard: Shard) -> int:
        """Makes the links of a shard.

        Raises:
            InputError: an item has no local file, or the file system has no links.
        """
        if not is_local(folder.path):
            raise InputError(f"{folder.path} is not a local folder: export.format='list' or 'copy'")
        return _write(folder, shard, _link)

    def finish(self, folder: NewFolder, plan: Plan) -> None:
        """Writes nothing more."""


class CopyFormat:
    """Files with the bytes of the items as they are stored, named by the ids of the items.

    Names are made by :func:`jaxcurate.export.names.path_of`. They keep the suffix of the id, or
    have that of the first bytes of the content. An item that was drawn twice has one file, and its
    ``count`` in ``items-NNNNN-of-NNNNN.parquet`` is 2; that table lists id, file, row and count.
    """

    name = "copy"
    kinds: tuple[Kind, ...] = ("picture", "text")
    needs_content = True
    repeats = False
    in_shards = True

    def write_shard(self, folder: NewFolder, shard: Shard) -> int:
        """Writes the files of a shard."""
        return _write(folder, shard, _copy)

    def finish(self, folder: NewFolder, plan: Plan) -> None:
        """Writes nothing more."""


def _write(
    folder: NewFolder, shard: Shard, write: Callable[[NewFolder, ExportItem, Kind], str]
) -> int:
    """Writes the file of each item, and the table of all."""
    n, writer = 0, None
    with folder.create(shard.name(".parquet", "items")) as file:
        for items in batches(shard.items):
            names = [write(folder, item, shard.kind) for item in items]
            columns = {"id": tables.ids(items), "file": pa.array(names, pa.string())}
            columns |= tables.rows_and_counts(items, count=True) | tables.extras(items)
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
            n += len(items)
        if writer is not None:
            writer.close()
    return n


def _link(folder: NewFolder, item: ExportItem, kind: Kind) -> str:
    if item.path is None or not is_local(item.path):
        raise InputError(
            f"item {item.id!r} is no local file, so that export.format='link' has nothing to link "
            "to: 'copy' writes the items"
        )
    name = path_of(item.id, UNKNOWN)
    if name.endswith(f"%{UNKNOWN}"):  # the id has no suffix
        try:
            with open_regular(item.path) as file:
                beginning = file.read(_FIRST_BYTES)
        except (OSError, InputError) as error:
            raise InputError(f"{item.path} cannot be read ({error})") from error
        name = path_of(item.id, TEXT if kind == "text" else suffix_of(beginning))
    folder.link(name, os.path.abspath(item.path))
    return name


def _copy(folder: NewFolder, item: ExportItem, kind: Kind) -> str:
    data = encoded(item)
    name = path_of(item.id, TEXT if kind == "text" else suffix_of(data))
    with folder.create(name) as file:
        file.write(data)
    return name
