"""Pools of the evidence: the settings of each, with items for development or for results."""

import dataclasses
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxcurate import Level
from jaxcurate.checks import InputError
from jaxcurate.config import (
    ClusterConfig,
    Config,
    DedupConfig,
    EmbedConfig,
    EvaluateConfig,
    PretrainConfig,
    Recipe,
    SampleConfig,
)
from jaxcurate.models.bert import BertConfig
from jaxcurate.models.vit_config import ViTConfig
from jaxcurate.sources import Source, open_source, web_like, web_like_diverse
from jaxcurate.sources.synthetic.holdout import hold_out
from jaxcurate.training.objectives import ObjectiveConfig

LEVELS = (Level(1000, 10, 10), Level(100, 10, 5))
"""Levels of every pool, those of ``configs/weblike.py``."""
KEEP_RATE = 0.03
"""Fraction of the pool that the primary comparisons keep."""
_SPLITS = ("pool", "probe", "test")
_PARTS = 4
"""Number of parts of the descriptions by the hash of their group; development takes one."""


class Place(NamedTuple):
    """Folders and size of a run."""

    data: Path
    """Folder of raw items and TFDS datasets, as of `scripts/fetch`."""
    inputs: Path
    """Folder for items that are taken from larger sources."""
    exploratory: bool = False
    """True for the items of development."""
    large: bool = False
    """True for all items and a larger budget, for a GPU."""


class Plan(NamedTuple):
    """Pool of the evidence."""

    settings: Callable[[Place], Config]
    """Function that returns the settings of the arm `curated`, and writes items if need be. Their
    `sample.size` is not used."""
    n_items: Callable[[Config], int]
    """Function that returns the number of items of the pool."""
    primary: str = "knn"
    """Name of the one primary measure."""
    near: float | None = None
    """Cosine at or above which the arm `deduplicated` takes rows for near-duplicates; None if it
    drops equal content alone."""


def opened(settings: Config, split: str | None = None) -> Source:
    """Returns the source of the pool, or of a held-out split."""
    named = split is not None and ":" in split
    source = cast(str, split) if named else settings.source
    return open_source(
        source,
        split=settings.split if named or split is None else split,
        data_dir=settings.data_dir,
        recipe=settings.recipe if source == "tfds:weblike" else None,
        label_key=settings.label_key,
    )


def _n_of_source(settings: Config) -> int:
    return len(opened(settings))


def pretraining(place: Place, **changes: Any) -> PretrainConfig:
    """Returns the budget of a run."""
    if place.large:
        size = 64 if changes.pop("can_be_64", False) else 32
        model = ViTConfig(image_size=size, width=192, depth=6, n_heads=6)
        changes |= dict(model=model, n_steps=3000, batch_size=512, runs_per_device=8)
    changes.pop("can_be_64", None)
    return PretrainConfig(**changes)


def _web_like(recipe: Callable[[int], Recipe]) -> Callable[[Place], Config]:
    def settings(place: Place) -> Config:
        return Config(
            source="tfds:weblike",
            recipe=recipe(0 if place.exploratory else 2),
            data_dir=str(place.data),
            embed=EmbedConfig("pca", n_components=128),
            dedup=DedupConfig(enabled=False),
            cluster=ClusterConfig(levels=LEVELS),
            sample=SampleConfig(size=1),
            evaluate=EvaluateConfig(pretraining=pretraining(place)),
        )

    return settings


def _glyphs(place: Place) -> Config:
    side = 64 if place.large else 32
    given = lambda split: open_source(f"tfds:glyphs/{side}", split=split, data_dir=str(place.data))
    paths = _paths(place, "parquet")
    if not all(path.exists() for path in paths):
        sources = [given(split) for split in ("train", "probe", "test")]
        notes = [source.annotations(np.arange(len(source))) for source in sources]
        n_pool = len(sources[0]) if place.large else 30_000
        order = np.random.default_rng(0).permutation(len(sources[0]))
        first = 0 if place.exploratory or place.large else n_pool
        rows = [np.sort(order[first : first + n_pool])]
        characters = half_of_labels([n.label for n in notes[1:]], second=not place.exploratory)
        rows += [few(n.label, characters, 3000) for n in notes[1:]]
        for path, source, note, taken in zip(paths, sources, notes, rows, strict=True):
            contents = [source.read(int(row)) for row in taken]
            table = {
                "id": [item.id for item in contents],
                "image": pa.array([item.content for item in contents], pa.binary()),
                "label": note.label[taken],
                "domain": note.domain[taken],
            }
            _write(path, lambda part, table=table: pq.write_table(pa.table(table), part))
    pool, probe, test = (f"parquet:{path}" for path in paths)
    return Config(
        source=pool,
        embed=EmbedConfig("pca", n_components=64),
        cluster=ClusterConfig(levels=LEVELS),
        sample=SampleConfig(size=1),
        evaluate=EvaluateConfig(
            probe_split=probe,
            test_split=test,
            pretraining=pretraining(place, can_be_64=True),
        ),
    )


def half_of_labels(labels: Iterable[np.ndarray], *, second: bool) -> set[str]:
    """Returns the labels that all arrays have, of one half of all labels by their hash."""
    common = set.intersection(*(set(of.tolist()) for of in labels))
    return {label for label in common if zlib.crc32(label.encode()) % 2 == int(second)}


def few(labels: np.ndarray, wanted: set[str], n: int) -> np.ndarray:
    """Returns at most ``n`` rows of wanted labels, all rows of a label or none, sorted.

    Labels are taken in the order of another hash, so that two arrays give the same ones first.
    """
    order = sorted(wanted, key=lambda label: (zlib.crc32(f"few {label}".encode()), label))
    taken: list[np.ndarray] = []
    for label in order:
        rows = np.flatnonzero(labels == label)
        if sum(map(len, taken)) + len(rows) > n:
            break
        taken.append(rows)
    return np.sort(np.concatenate(taken))


def _descriptions(place: Place) -> Config:
    raw = place.data / "raw" / "descriptions" / "descriptions.jsonl"
    paths = _paths(place, "jsonl")
    if not all(path.exists() for path in paths):
        if not raw.exists():
            raise InputError(f"no {raw}: run scripts/fetch --only descriptions,minilm")
        with raw.open(encoding="utf-8") as file:
            entries = [json.loads(line) for line in file]
        rows = split_texts(
            [entry["text"] for entry in entries],
            [entry["section"] for entry in entries],
            exploratory=place.exploratory,
            n_pool=len(entries) if place.large else 30_000,
        )
        for path, taken in zip(paths, rows, strict=True):
            text = "".join(json.dumps(entries[row]) + "\n" for row in taken)
            _write(path, lambda part, text=text: part.write_text(text, encoding="utf-8"))
    pool, probe, test = (f"text:{path}" for path in paths)
    bert = dict(vocab_size=8000, n_positions=64, width=128, depth=2, n_heads=4, hidden=512)
    if place.large:
        bert |= dict(width=256, depth=6, n_heads=8, hidden=1024)
    return Config(
        source=pool,
        label_key="section",
        embed=EmbedConfig("bert", weights=str(place.data / "raw" / "minilm")),
        cluster=ClusterConfig(levels=LEVELS),
        sample=SampleConfig(size=1),
        evaluate=EvaluateConfig(
            probe_split=probe,
            test_split=test,
            pretraining=pretraining(
                place,
                bert=BertConfig(**bert),
                n_tokens=32,
                objective=ObjectiveConfig("mlm"),
            ),
        ),
    )


def group_of(text: str) -> str:
    """Returns the beginning of a description, by which variants of a package agree.

    Examples:
        >>> group_of("Real-time strategy game (data files)"), group_of("389 Server - libraries")
        ('real-time strategy game', '389 server')
    """
    return text.lower().split(" - ")[0].split("(")[0].strip()


def split_texts(
    texts: Sequence[str], sections: Sequence[str], *, exploratory: bool, n_pool: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the rows of the pool, the probe set and the test set, none with a group in common.

    Development takes the groups of one part of four by their hash, and results the others.
    """
    names = [group_of(text) for text in texts]
    part = np.array([zlib.crc32(name.encode()) % _PARTS == 0 for name in names])
    mine = np.flatnonzero(part == exploratory)
    _, first, group = np.unique(np.array(names)[mine], return_index=True, return_inverse=True)
    groups = first[group].astype(np.int64)
    rng = np.random.default_rng(0)
    probe, test, _ = hold_out(groups, np.array(sections)[mine], 40, 40, rng=rng)
    free = np.flatnonzero(~np.isin(groups, np.concatenate([groups[probe], groups[test]])))
    pool = np.sort(rng.permutation(free)[:n_pool])
    return mine[pool], mine[probe], mine[test]


def _paths(place: Place, suffix: str) -> list[Path]:
    place.inputs.mkdir(parents=True, exist_ok=True)
    return [place.inputs / f"{split}.{suffix}" for split in _SPLITS]


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    part.rename(path)


PLANS = {
    "weblike": Plan(_web_like(web_like), _n_of_source, near=0.99),
    "weblike_diverse": Plan(_web_like(web_like_diverse), _n_of_source, near=0.99),
    "descriptions": Plan(_descriptions, _n_of_source),
    "glyphs": Plan(_glyphs, _n_of_source),
}
"""Pools by name."""


def with_size(settings: Config, size: int) -> Config:
    """Returns settings with another number of rows in the subset."""
    return dataclasses.replace(settings, sample=dataclasses.replace(settings.sample, size=size))
