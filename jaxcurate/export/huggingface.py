"""Export of items as a dataset that Hugging Face's datasets load from disk."""

import json

import pyarrow as pa

from jaxcurate.artifacts.files import fingerprint
from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.export import tables
from jaxcurate.export.base import Plan, Shard, batches, repeated, shard_name
from jaxcurate.sources.base import Kind


class HuggingFaceFormat:
    """Folder that ``datasets.load_from_disk`` reads, as ``Dataset.save_to_disk`` writes it.

    The columns are ``id``, ``row`` and ``image``, ``text`` or ``vector``. An item that was drawn
    twice is there twice. Pictures are bytes as they are stored, which the feature ``Image``
    decodes. Vectors keep their type; Arrow has no bfloat16, which becomes float32.
    """

    name = "huggingface"
    kinds: tuple[Kind, ...] = ("picture", "text", "vector")
    needs_content = True
    repeats = True
    in_shards = True

    def write_shard(self, folder: NewFolder, shard: Shard) -> int:
        """Writes one stream of Arrow, a batch at a time."""
        n, writer, schema = 0, None, None
        with folder.create(shard.name(".arrow")) as file:
            for items in batches(repeated(shard.items)):
                columns = {"id": tables.ids(items), **tables.rows_and_counts(items, count=False)}
                table = tables.with_features(columns | tables.content(items, shard.kind))
                schema = schema or table.schema
                writer = writer or pa.ipc.new_stream(file, schema)
                writer.write_table(table.cast(schema))
                n += len(items)
            if writer is not None:
                writer.close()
        return n

    def finish(self, folder: NewFolder, plan: Plan) -> None:
        """Writes ``state.json`` and ``dataset_info.json``."""
        n = len(plan.n_records)
        names = [shard_name(index, n, ".arrow") for index in range(n)]
        with (folder.path / names[0]).open("rb") as file:
            features = tables.features_of(pa.ipc.open_stream(file).schema)
        state = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": fingerprint([folder.files[name]["sha256"] for name in names]),
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        info = {"citation": "", "description": "", "features": features} | {
            "homepage": "",
            "license": "",
        }
        folder.write_text("state.json", json.dumps(state, indent=2) + "\n")
        folder.write_text("dataset_info.json", json.dumps(info, indent=2) + "\n")
