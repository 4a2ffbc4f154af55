"""Export of the items of a subset as files that any loader reads."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.artifacts import folders
from jaxcurate.checks import check_choice

FORMATS: dict[str, Callable[[folders.NewFolder, Iterable[tuple[str, np.ndarray]]], None]] = {}
"""Functions that write items, pairs of an id and an array, to a folder, by the name of the format;
filled in `jaxcurate.export`."""
KIND = "export"
"""Kind of a folder of exported items, as its card says it."""


def export_items(
    path: epath.PathLike,
    items: Iterable[tuple[str, np.ndarray]],
    format: str,
    about: Mapping[str, Any],
) -> None:
    """Writes the items of a subset to a folder, whole or not at all.

    Args:
        path: the folder, which must be absent, empty, or written by jaxcurate.
        items: at least one pair of an id and an array: an image uint8 ``[h, w, 3]``, or any array.
        format: a name in :data:`FORMATS`.
        about: entries to add to the folder's ``card.json``.

    Raises:
        InputError: the format is unknown, or it cannot hold the items.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> items = [("cats/1", np.zeros((8, 8, 3), np.uint8)), ("2", np.ones((8, 8, 3), np.uint8))]
        >>> with tempfile.TemporaryDirectory() as work:
        ...     out = Path(work) / "exported"
        ...     export_items(out, items, "png", {"subset": "curated"})
        ...     sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
        ['2.png', 'card.json', 'cats/1.png']
    """
    check_choice("format", format, FORMATS)
    with folders.new_folder(path, about, KIND) as folder:
        FORMATS[format](folder, items)
