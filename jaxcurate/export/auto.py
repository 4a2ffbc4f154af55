"""The format that suits the items: files for images, an array for vectors."""

import itertools
from collections.abc import Iterable

import numpy as np

from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.export import npy, png


def write(folder: NewFolder, items: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes items as :mod:`jaxcurate.export.png` or :mod:`jaxcurate.export.npy` does.

    Args:
        folder: to write to.
        items: at least one pair of an id and an array.
    """
    items = iter(items)
    first = next(items)
    suited = png if first[1].ndim == 3 else npy
    suited.write(folder, itertools.chain([first], items))
