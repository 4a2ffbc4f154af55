"""The items of a subset as files that any loader reads."""

import itertools
from collections.abc import Iterable, Mapping
from typing import IO, Any, cast

import numpy as np
from etils import epath
from PIL import Image

from jaxcurate.artifacts import folders
from jaxcurate.artifacts.row_file import RowFile
from jaxcurate.checks import InputError
from jaxcurate.export.names import path_of

FORMATS = ("auto", "png", "npy")
KIND = "export"


def export_items(
    path: epath.PathLike,
    items: Iterable[tuple[str, np.ndarray]],
    format: str,
    about: Mapping[str, Any],
) -> None:
    """Writes the items of a subset to a folder, whole or not at all.

    Args:
        path: the folder.
        items: at least one pair of an id and an array: an image uint8 ``[h, w, 3]``, or any array.
        format: ``"png"``, a file for each image, at its id with ``.png`` added as
            :func:`jaxcurate.export.names.path_of` has it; ``"npy"``, all
            items in ``items.npy`` and their ids in ``ids.npy``; ``"auto"``, the former for
            images and the latter for vectors.
        about: joins the card.

    Raises:
        ValueError: an unknown format, or items that are no images in ``"png"``.
    """
    if format not in FORMATS:
        raise InputError(f"format={format!r}; known: {', '.join(FORMATS)}")
    items = iter(items)
    first = next(items)
    items = itertools.chain([first], items)
    if format == "auto":
        format = "png" if first[1].ndim == 3 else "npy"
    with folders.new_folder(path, about, KIND) as folder:
        if format == "png":
            for id_, image in items:
                if image.ndim != 3 or image.dtype != np.uint8:
                    raise InputError(f"item {id_!r} is not an image: export it as 'npy'")
                with folder.create(path_of(id_)) as file:
                    Image.fromarray(image).save(cast(IO[bytes], file), "PNG")
        else:
            ids = []
            with folder.create("items.npy") as file, RowFile(file) as rows:
                for id_, array in items:
                    ids.append(id_)
                    rows.append(array[None])
            folder.save_array("ids.npy", np.array(ids, np.str_))
