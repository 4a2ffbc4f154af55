"""Export in the format that suits the items: PNG files for images, one array for vectors."""

import itertools
from collections.abc import Iterable

import numpy as np

from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.export import npy, png


def write(folder: NewFolder, items: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes images as :mod:`jaxcurate.export.png` does, and other items as
    :mod:`jaxcurate.export.npy` does.

    Args:
        folder: the folder to write to.
        items: at least one pair of an id and an array; the first decides on the format.

    Raises:
        InputError: the first item is an image and another is not, or shapes differ.
    """
    items = iter(items)
    first = next(items)
    suited = png if first[1].ndim == 3 else npy
    suited.write(folder, itertools.chain([first], items))
