"""The items of a subset as files that any loader reads."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.artifacts import folders
from jaxcurate.checks import check_choice

FORMATS: dict[str, Callable[[folders.NewFolder, Iterable[tuple[str, np.ndarray]]], None]] = {}
"""What writes items, pairs of an id and an array, to a folder, by the name of the format; filled
in `jaxcurate.export`."""
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
        format: a name in :data:`FORMATS`.
        about: joins the card.

    Raises:
        ValueError: an unknown format, or items that it cannot hold.
    """
    check_choice("format", format, FORMATS)
    with folders.new_folder(path, about, KIND) as folder:
        FORMATS[format](folder, items)
