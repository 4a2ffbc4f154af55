"""Export of items as archives of WebDataset."""

import io
import json
import tarfile

import numpy as np

from jaxcurate.artifacts.files import save_array
from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.export.base import ExportItem, Plan, Shard, encoded, vector
from jaxcurate.export.names import key_of, suffix_of
from jaxcurate.sources.base import Kind


class WebDatasetFormat:
    """Archives ``data-NNNNN-of-NNNNN.tar`` in which a sample is the files of one key.

    A sample has the content, as ``KEY.png``, ``KEY.jpg`` or another suffix by its first bytes, as
    ``KEY.txt``, or as ``KEY.npy``, and ``KEY.json`` with the id and the row of the pool. The key
    is made from the id by :func:`jaxcurate.export.names.key_of`. An item that was drawn twice is
    there twice, with different keys. NumPy saves bfloat16 without its type, so that it becomes
    float32.
    """

    name = "webdataset"
    kinds: tuple[Kind, ...] = ("picture", "text", "vector")
    needs_content = True
    repeats = True
    in_shards = True

    def write_shard(self, folder: NewFolder, shard: Shard) -> int:
        """Writes one archive, whose members all have the same owner, mode and time."""
        n = 0
        with (
            folder.create(shard.name(".tar")) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for item in shard.items:
                suffix, data = _content(item)
                about = json.dumps({"id": item.id, "row": item.row}, sort_keys=True)
                for repeat in range(item.count):
                    key = key_of(item.id, repeat)
                    _add(archive, key + suffix, data)
                    _add(archive, f"{key}.json", about.encode())
                    n += 1
                archive.getmembers().clear()  # otherwise it holds the header of every member
        return n

    def finish(self, folder: NewFolder, plan: Plan) -> None:
        """Writes nothing: archives are listed by name."""


def _content(item: ExportItem) -> tuple[str, bytes]:
    if isinstance(item.content, np.ndarray):
        row, buffer = vector(item), io.BytesIO()
        save_array(buffer, row.astype(np.float32) if row.dtype.name == "bfloat16" else row)
        return ".npy", buffer.getvalue()
    data = encoded(item)
    return suffix_of(item.content or data), data


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # of user 0, mode 0644 and time 0
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
