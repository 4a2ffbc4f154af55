"""Items that the page shows: small pictures as data URIs, texts, and links to their files."""

import base64
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from jaxcurate.report.numbers import short

_AT_ONCE = 512
"""Largest number of rows that are read in one call."""
_CHARACTERS = 200
"""Number of characters of a text that are shown at once."""
_SCHEMES = ("file", "http", "https")
"""Schemes of the URLs that a browser may follow. Others, such as ``javascript``, are no links."""
_FEW_PIXELS = 32
"""Largest side in pixels of pictures whose pixels are shown as squares."""
_N_TRIED = 64
"""Number of pictures that are encoded to find out how many bytes all of them will take."""
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
"""Invisible characters that Unicode counts as unprintable, but that words and emoji need."""


class Size(NamedTuple):
    """Size at which items are shown."""

    display: int
    """Side of a picture in CSS pixels."""
    n_bytes: int
    """Largest number of bytes of all pictures together, as data URIs."""
    steps: tuple[tuple[int, int], ...]
    """Side in pixels and quality of WebP, from the best to the smallest. The first step with at
    most :attr:`n_bytes` is used, or else the last."""
    most_characters: int
    """Largest number of characters of a text."""


LARGE = Size(120, 3_000_000, ((160, 82), (144, 70), (112, 60), (96, 40), (80, 20)), 2000)
"""Size of items in strips."""
SMALL = Size(64, 4_500_000, ((80, 75), (64, 65), (56, 50), (48, 35), (40, 20)), 160)
"""Size of items in the list of all clusters."""


class Item(NamedTuple):
    """Item of the pool as the page shows it."""

    row: int
    """Row of the pool."""
    id: str
    """Id of the item, shortened."""
    kept: bool
    """True if the item is in the subset."""
    link: str | None
    """URL of the item's own file, if it has one that a browser can open."""
    picture: str | None
    """Picture as a data URI."""
    display: int
    """Side of the picture in CSS pixels."""
    pixelated: bool
    """True if the picture has so few pixels that they are shown as squares."""
    beginning: str | None
    """First characters of the text on one line, with an ellipsis if there are more."""
    text: str | None
    """Text with its line breaks. None if :attr:`beginning` has as many words."""
    n_more: int
    """Number of characters at the end of the text that are left out."""


Reader = Callable[[np.ndarray], Sequence[np.ndarray | str | None]]
"""Function from sorted rows of the pool to their contents."""


def read_items(
    contents: Reader,
    links: Callable[[np.ndarray], Sequence[str | None]],
    ids: np.ndarray,
    is_kept: np.ndarray,
    groups: Iterable[tuple[Size, np.ndarray]],
) -> list[dict[int, Item]]:
    """Returns items by row, for groups of rows that are shown at different sizes.

    Every row is read once, in ascending order and at most 512 rows at once.

    Args:
        contents: function from ``m`` rows to their contents: pictures uint8 ``[s, s, 3]``, texts,
            or None.
        links: function from ``m`` rows to paths or URLs, or None.
        ids: unicode ``[n]``.
        is_kept: bool ``[n]``, True for items of the subset.
        groups: size and rows of each group.
    """
    groups = [(size, np.unique(rows)) for size, rows in groups]
    rows = np.unique(np.concatenate([rows for _, rows in groups]))
    found: list[dict[int, np.ndarray | str | None]] = [{} for _ in groups]
    urls: dict[int, str | None] = {}
    for begin in range(0, len(rows), _AT_ONCE):
        part = rows[begin : begin + _AT_ONCE]
        urls |= zip(part.tolist(), map(url, links(part)), strict=True)
        for row, content in zip(part.tolist(), contents(part), strict=True):
            for (size, among), held in zip(groups, found, strict=True):
                place = np.searchsorted(among, row)
                if place < len(among) and among[place] == row:
                    picture = isinstance(content, np.ndarray)
                    held[row] = _reduced(content, size.steps[0][0]) if picture else content
    items = []
    for (size, _), held in zip(groups, found, strict=True):
        pictures = _encoded({r: c for r, c in held.items() if isinstance(c, np.ndarray)}, size)
        items.append(
            {
                row: _item(row, str(ids[row]), bool(is_kept[row]), urls[row], content,
                           pictures.get(row), size)
                for row, content in held.items()
            }
        )  # fmt: skip
    return items


def url(place: str | None) -> str | None:
    """Returns the URL of a path or URL; None for a URL that a browser may not follow.

    Examples:
        >>> url("/data/a b.png"), url("https://example.org/a.png"), url("gs://bucket/a.png")
        ('file:///data/a%20b.png', 'https://example.org/a.png', None)
    """
    if not place:
        return None
    if "://" not in place:
        return Path(os.path.abspath(place)).as_uri()
    try:
        return place if urlsplit(place).scheme.lower() in _SCHEMES else None
    except ValueError:  # such as a bracket that is not closed
        return None


def _item(
    row: int, id_: str, kept: bool, link: str | None, content: np.ndarray | str | None,
    picture: str | None, size: Size,
) -> Item:  # fmt: skip
    """Returns an item, with its text if it has one."""
    pixelated = isinstance(content, np.ndarray) and len(content) <= _FEW_PIXELS
    beginning = text = None
    n_more = 0
    if isinstance(content, str):
        text = _printable(content[: size.most_characters])
        n_more = len(content) - min(len(content), size.most_characters)
        line = " ".join(text.split())
        beginning = line[:_CHARACTERS]
        if line != beginning or n_more:
            beginning += "\N{HORIZONTAL ELLIPSIS}"
        if len(line) <= _CHARACTERS:
            text = None
    return Item(
        row, short(id_, 80), kept, link, picture, size.display, pixelated, beginning, text, n_more
    )


def _printable(text: str) -> str:
    """Returns a text with marks in the place of characters that no font has."""
    shown = lambda c: c.isprintable() or c.isspace() or c in _JOINERS
    return "".join(c if shown(c) else "\N{REPLACEMENT CHARACTER}" for c in text)


def _encoded(pictures: dict[int, np.ndarray], size: Size) -> dict[int, str]:
    """Returns pictures as data URIs, with as much detail as the size's number of bytes allows."""
    few = dict(list(pictures.items())[:: max(1, len(pictures) // _N_TRIED)])
    for side, quality in size.steps[:-1]:
        n_bytes = sum(map(len, _at(few, side, quality).values()))
        if n_bytes * len(pictures) > size.n_bytes * len(few):
            continue  # the step would take too many bytes, as some of the pictures show
        encoded = _at(pictures, side, quality)
        if sum(map(len, encoded.values())) <= size.n_bytes:
            return encoded
    return _at(pictures, *size.steps[-1])


def _at(pictures: dict[int, np.ndarray], side: int, quality: int) -> dict[int, str]:
    """Returns pictures as data URIs of a side in pixels and a quality."""
    return {row: _data_uri(_reduced(picture, side), quality) for row, picture in pictures.items()}


def _reduced(picture: np.ndarray, side: int) -> np.ndarray:
    """Returns a picture, reduced to a side in pixels if it is larger."""
    if len(picture) <= side:
        return picture
    from PIL import Image

    small = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small)


def _data_uri(picture: np.ndarray, quality: int) -> str:
    from PIL import Image

    file = io.BytesIO()
    # Squares have edges that a lossy code would blur.
    lossless = len(picture) <= _FEW_PIXELS
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.save(file, "webp", lossless=lossless, quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
