"""The items of a subset as files that any loader reads."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from jaxcurate import workdir
from jaxcurate.checks import InputError
from jaxcurate.export.names import path_of
from jaxcurate.rowfile import RowFile

FORMATS = ("auto", "png", "npy")


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
    with workdir.new_folder(path, about) as folder:
        if format == "png":
            for id_, image in items:
                if image.ndim != 3 or image.dtype != np.uint8:
                    raise InputError(f"item {id_!r} is not an image: export it as 'npy'")
                file = folder / path_of(id_)
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("wb") as out:
                    Image.fromarray(image).save(out, "PNG")
        else:
            ids = []
            with RowFile(folder / "items.npy") as file:
                for id_, array in items:
                    ids.append(id_)
                    file.append(array[None])
            workdir.save_array(folder / "ids.npy", np.array(ids, np.str_))
