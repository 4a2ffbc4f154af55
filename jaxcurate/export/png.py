"""Export of images as PNG files, each named after the id of its item."""

from collections.abc import Iterable
from typing import IO, cast

import numpy as np
from PIL import Image

from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.checks import InputError
from jaxcurate.export.names import path_of


def write(folder: NewFolder, items: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes each image to the path that :func:`jaxcurate.export.names.path_of` gives its id.

    Args:
        folder: the folder to write to.
        items: pairs of an id and an image, uint8 ``[h, w, 3]``.

    Raises:
        InputError: an item is not an image.
    """
    for id_, image in items:
        if image.ndim != 3 or image.dtype != np.uint8:
            raise InputError(f"item {id_!r} is not an image: export it as 'npy'")
        with folder.create(path_of(id_)) as file:
            Image.fromarray(image).save(cast(IO[bytes], file), "PNG")
