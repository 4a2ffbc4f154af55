"""Images of the page: strips of clusters, and sheets of kept and of dropped items."""

import base64
import io
from typing import NamedTuple

import numpy as np

from jaxcurate.report.findings import Findings
from jaxcurate.report.numbers import short

N_CLUSTERS = 12
"""Number of clusters that are shown."""
N_STRIP = 12
"""Number of items of each cluster that are shown."""
N_SHEET = 60
"""Number of kept and of dropped items that are shown."""
_COLUMNS = 24
"""Number of images in a row of the sprite."""
_LARGEST = 56
"""Largest side of an image in the sprite, in pixels."""
_PNG_UP_TO = 1_000_000
"""Number of bytes above which the sprite is a JPEG."""


class Thumbnail(NamedTuple):
    """Small image of an item."""

    x: str
    """Horizontal place in the sprite, as a CSS ``background-position``."""
    y: str
    """Vertical place in the sprite, as a CSS ``background-position``."""
    kept: bool
    """True if the item is in the subset."""
    title: str
    """Id of the item, shortened."""


class Strip(NamedTuple):
    """Some items of a cluster."""

    cluster: int
    """Number of the cluster."""
    n_pool: int
    """Number of its items in the pool."""
    n_kept: int
    """Number of its distinct items in the subset."""
    thumbnails: list[Thumbnail]
    """Items that are shown."""


class Gallery(NamedTuple):
    """Items that the page shows."""

    sprite: str
    """All thumbnails in one image, as a data URI."""
    size: int
    """Side of a thumbnail in CSS pixels."""
    columns: int
    """Number of columns of the sprite."""
    rows: int
    """Number of rows of the sprite."""
    strips: list[Strip]
    """Items by cluster."""
    kept: list[Thumbnail]
    """Items of the subset."""
    dropped: list[Thumbnail]
    """Items of the pool that are not in the subset."""


def gallery(findings: Findings) -> Gallery | None:
    """Returns items of the pool to show, read by one call; None if they are not images."""
    rng = np.random.default_rng(0)
    n = findings.tree.n_points
    is_kept = np.zeros(n, bool)
    is_kept[findings.indices] = True
    labels = findings.tree.point_labels(len(findings.tree.levels))
    chosen = [
        (cluster, np.flatnonzero(labels == cluster))
        for cluster in _spread(np.bincount(labels), N_CLUSTERS)
    ]
    strips = [_choose(rows, is_kept, rng) for _, rows in chosen]
    sheets = [_some(np.flatnonzero(part), N_SHEET, rng) for part in (is_kept, ~is_kept)]
    rows = np.concatenate([*strips, *sheets])
    shown, place = np.unique(rows, return_inverse=True)
    images = findings.images(shown)
    if images.ndim != 4:
        return None
    ids = [short(str(id_), 80) for id_ in findings.pool.ids[rows]]
    columns, lines = min(_COLUMNS, len(rows)), -(-len(rows) // _COLUMNS)
    thumbnails = [
        Thumbnail(
            _position(i % columns, columns),
            _position(i // columns, lines),
            bool(is_kept[row]),
            ids[i],
        )
        for i, row in enumerate(rows)
    ]
    small = np.stack([_shrunk(image) for image in images])
    side = small.shape[1]
    ends = np.cumsum([len(part) for part in (*strips, *sheets)])
    parts = [
        thumbnails[end - len(part) : end]
        for end, part in zip(ends, (*strips, *sheets), strict=True)
    ]
    return Gallery(
        _sprite(small[place], columns),
        side * max(1, round(_LARGEST / side)),
        columns,
        lines,
        [
            Strip(int(cluster), len(members), int(is_kept[members].sum()), part)
            for (cluster, members), part in zip(chosen, parts, strict=False)
        ],
        *parts[-2:],
    )


def _spread(sizes: np.ndarray, most: int) -> np.ndarray:
    """Returns nonempty clusters from the largest to the smallest, by even ratios of size."""
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    wanted = np.linspace(0, np.log(sizes[order[0]] / sizes[order[-1]]), min(most, len(order)))
    distance = np.log(sizes[order[0]] / sizes[order])
    taken = np.zeros(len(order), bool)
    for target in wanted:
        taken[np.argmin(np.where(taken, np.inf, abs(distance - target)))] = True
    return order[taken]


def _choose(rows: np.ndarray, is_kept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns random items of a cluster: kept items in up to half of the strip, then others."""
    kept, others = rows[is_kept[rows]], rows[~is_kept[rows]]
    n_kept = min(len(kept), max(N_STRIP // 2, N_STRIP - len(others)))
    return np.concatenate([_some(kept, n_kept, rng), _some(others, N_STRIP - n_kept, rng)])


def _some(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(rows, min(most, len(rows)), replace=False)


def _position(index: int, count: int) -> str:
    """Returns a ``background-position``: 0 % for the first image, 100 % for the last."""
    return f"{100 * index / max(1, count - 1):.6g}%"


def _shrunk(image: np.ndarray) -> np.ndarray:
    """Returns an image, reduced to the largest size in the sprite if it is larger."""
    if len(image) <= _LARGEST:
        return image
    from PIL import Image

    small = Image.fromarray(image).resize((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return np.asarray(small)


def _sprite(images: np.ndarray, columns: int) -> str:
    """Returns images ``[n, s, s, 3]`` side by side, as a data URI."""
    from PIL import Image

    n, side = images.shape[:2]
    lines = -(-n // columns)
    grid = np.zeros((lines * columns, side, side, 3), np.uint8)
    grid[:n] = images
    sheet = grid.reshape(lines, columns, side, side, 3).swapaxes(1, 2)
    image = Image.fromarray(np.ascontiguousarray(sheet).reshape(lines * side, columns * side, 3))
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 88})):
        file = io.BytesIO()
        image.save(file, kind, **options)
        if file.tell() <= _PNG_UP_TO:
            break
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
