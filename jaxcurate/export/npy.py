"""Export of items of any shape as one array, and of their ids as another."""

from collections.abc import Iterable

import numpy as np

from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.artifacts.row_file import RowFile


def write(folder: NewFolder, items: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes all items to ``items.npy`` and their ids to ``ids.npy``.

    Args:
        folder: the folder to write to.
        items: pairs of an id and an array, all of one shape.
    """
    ids = []
    with folder.create("items.npy") as file, RowFile(file) as rows:
        for id_, array in items:
            ids.append(id_)
            rows.append(array[None])
    folder.save_array("ids.npy", np.array(ids, np.str_))
