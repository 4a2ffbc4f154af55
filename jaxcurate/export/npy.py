"""Export of vectors as one array, and of their ids, rows and counts as others."""

import numpy as np

from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.artifacts.row_file import RowFile
from jaxcurate.export.base import Plan, Shard, batches, vector
from jaxcurate.sources.base import Kind


class NpyFormat:
    """Arrays ``items.npy`` ``[n, d]``, ``ids.npy``, ``rows.npy`` and ``counts.npy``, each ``[n]``.

    Vectors keep the type in which they are stored. An item that was drawn twice is one row, and
    its count is 2: ``np.repeat(items, counts, axis=0)`` repeats it.
    """

    name = "npy"
    kinds: tuple[Kind, ...] = ("vector",)
    needs_content = True
    repeats = False
    in_shards = False

    def write_shard(self, folder: NewFolder, shard: Shard) -> int:
        """Writes the arrays, the vectors some at a time."""
        ids, numbers = [], []
        with folder.create("items.npy") as file, RowFile(file) as rows:
            for items in batches(shard.items):
                rows.append(np.stack([vector(item) for item in items]))
                ids += [item.id for item in items]
                numbers += [(item.row, item.count) for item in items]
        of_rows, counts = np.array(numbers, np.int64).T
        folder.save_array("ids.npy", np.array(ids, np.str_))
        folder.save_array("rows.npy", np.ascontiguousarray(of_rows))
        folder.save_array("counts.npy", counts.astype(np.int32))
        return len(ids)

    def finish(self, folder: NewFolder, plan: Plan) -> None:
        """Writes nothing more."""
