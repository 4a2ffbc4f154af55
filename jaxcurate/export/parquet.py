"""Export of items as Parquet files."""

import pyarrow.parquet as pq

from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.export import tables
from jaxcurate.export.base import Plan, Shard, batches
from jaxcurate.sources.base import Kind


class ParquetFormat:
    """Tables ``data-NNNNN-of-NNNNN.parquet`` of ids, rows, counts, further columns and contents.

    An item that was drawn twice is one row of the table, and its column ``count`` is 2. Pictures
    are bytes as they are stored, with the schema by which ``load_dataset("parquet", ...)`` of
    Hugging Face sees pictures. Vectors keep their type; Parquet has no bfloat16, which becomes
    float32.
    """

    name = "parquet"
    kinds: tuple[Kind, ...] = ("picture", "text", "vector")
    needs_content = True
    repeats = False
    in_shards = True

    def write_shard(self, folder: NewFolder, shard: Shard) -> int:
        """Writes one table, a group of rows at a time."""
        n, writer = 0, None
        # Pictures are compressed already.
        compression = "NONE" if shard.kind == "picture" else "zstd"
        with folder.create(shard.name(".parquet")) as file:
            for items in batches(shard.items):
                columns = {"id": tables.ids(items), **tables.rows_and_counts(items, count=True)}
                columns |= tables.extras(items) | tables.content(items, shard.kind)
                table = tables.with_features(columns)
                if writer is None:
                    writer = pq.ParquetWriter(file, table.schema, compression=compression)
                writer.write_table(table.cast(writer.schema))
                n += len(items)
            if writer is not None:
                writer.close()
        return n

    def finish(self, folder: NewFolder, plan: Plan) -> None:
        """Writes nothing: each table describes itself."""
