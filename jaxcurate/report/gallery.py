"""Items to look at: strips of clusters, and sheets of what was kept and what was dropped."""

import base64
import io
from typing import NamedTuple

import numpy as np

from jaxcurate.report.findings import Findings
from jaxcurate.report.numbers import short

N_CLUSTERS = 12
N_STRIP = 12
N_SHEET = 60
_COLUMNS = 24
_LARGEST = 56
_PNG_UP_TO = 1_000_000


class Tile(NamedTuple):
    """One picture."""

    x: str
    """Where it is in the sprite, as a CSS ``background-position``."""
    y: str
    kept: bool
    title: str


class Strip(NamedTuple):
    """Some items of a cluster."""

    cluster: int
    n_pool: int
    n_kept: int
    """Distinct items."""
    tiles: list[Tile]


class Gallery(NamedTuple):
    """Items of the gallery."""

    sprite: str
    """All tiles in one picture, as a data URI."""
    size: int
    """Side of a tile, in CSS pixels."""
    columns: int
    rows: int
    strips: list[Strip]
    kept: list[Tile]
    dropped: list[Tile]


def gallery(findings: Findings) -> Gallery | None:
    """Chooses items and reads them, all in one go; None where items are not pictures."""
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
    tiles = [
        Tile(_at(i % columns, columns), _at(i // columns, lines), bool(is_kept[row]), ids[i])
        for i, row in enumerate(rows)
    ]
    small = np.stack([_shrunk(image) for image in images])
    side = small.shape[1]
    ends = np.cumsum([len(part) for part in (*strips, *sheets)])
    parts = [
        tiles[end - len(part) : end] for end, part in zip(ends, (*strips, *sheets), strict=True)
    ]
    return Gallery(
        _sprite(small[place], columns),
        side * max(1, round(_LARGEST / side)),
        columns,
        lines,
        [
            Strip(int(cluster), len(of), int(is_kept[of].sum()), part)
            for (cluster, of), part in zip(chosen, parts, strict=False)
        ],
        *parts[-2:],
    )


def _spread(sizes: np.ndarray, most: int) -> np.ndarray:
    """Clusters from the largest to the smallest that is not empty, by even ratios of size."""
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    wanted = np.linspace(0, np.log(sizes[order[0]] / sizes[order[-1]]), min(most, len(order)))
    distance = np.log(sizes[order[0]] / sizes[order])
    taken = np.zeros(len(order), bool)
    for one in wanted:
        taken[np.argmin(np.where(taken, np.inf, abs(distance - one)))] = True
    return order[taken]


def _choose(rows: np.ndarray, is_kept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns items of a cluster: kept ones for up to half of the strip, then others, at random."""
    kept, others = rows[is_kept[rows]], rows[~is_kept[rows]]
    n_kept = min(len(kept), max(N_STRIP // 2, N_STRIP - len(others)))
    return np.concatenate([_some(kept, n_kept, rng), _some(others, N_STRIP - n_kept, rng)])


def _some(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(rows, min(most, len(rows)), replace=False)


def _at(index: int, of: int) -> str:
    """Returns a ``background-position``: the first at 0 %, the last at 100 %."""
    return f"{100 * index / max(1, of - 1):.6g}%"


def _shrunk(image: np.ndarray) -> np.ndarray:
    """Returns an image at the size it is shown at, if that is smaller."""
    if len(image) <= _LARGEST:
        return image
    from PIL import Image

    small = Image.fromarray(image).resize((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return np.asarray(small)


def _sprite(tiles: np.ndarray, columns: int) -> str:
    """Tiles ``[n, s, s, 3]`` side by side, as a data URI."""
    from PIL import Image

    n, side = tiles.shape[:2]
    lines = -(-n // columns)
    grid = np.zeros((lines * columns, side, side, 3), np.uint8)
    grid[:n] = tiles
    sheet = grid.reshape(lines, columns, side, side, 3).swapaxes(1, 2)
    image = Image.fromarray(np.ascontiguousarray(sheet).reshape(lines * side, columns * side, 3))
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 88})):
        out = io.BytesIO()
        image.save(out, kind, **options)
        if out.tell() <= _PNG_UP_TO:
            break
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
