"""Synthetic web-like pool with held-out labeled items, made from a `Recipe`, as a TFDS dataset."""

import dataclasses
import functools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.sources.pictures import encode_png
from jaxcurate.sources.synthetic import raw
from jaxcurate.sources.synthetic.building import build, is_whole
from jaxcurate.sources.synthetic.holdout import group, hold_out
from jaxcurate.sources.synthetic.jitter import jitter
from jaxcurate.sources.synthetic.recipe import Domain, Recipe

NAME = "weblike"
SPLITS = ("train", "probe", "test")
VERSION = "1.0.0"  # increase it when a recipe gives other items than before


class Part(NamedTuple):
    """Items of one split, of one domain or of all.

    Attributes:
        id: unicode ``[n]``.
        image: uint8 ``[n, size, size, 3]``.
        label: unicode ``[n]``, ``domain/class``.
        domain: unicode ``[n]``.
        group: unicode ``[n]``. No group is in two splits.
    """

    id: np.ndarray
    image: np.ndarray
    label: np.ndarray
    domain: np.ndarray
    group: np.ndarray


def assemble(recipe: Recipe, raw_dir: str | os.PathLike) -> dict[str, Part]:
    """Makes the splits of a recipe in memory.

    Args:
        recipe: recipe of the pool.
        raw_dir: folder of the raw packages that `scripts/fetch` downloaded.

    Returns:
        ``{"train": pool, "probe": ..., "test": ...}``, each with one domain after another.

    Raises:
        InputError: raw images are missing, or too few for the recipe.
    """
    domains = [_assemble_domain(domain, recipe, raw_dir) for domain in recipe.domains]
    return {
        split: Part(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        for split, parts in zip(SPLITS, zip(*domains, strict=True), strict=True)
    }


def prepare(recipe: Recipe, data_dir: str | os.PathLike) -> Path:
    """Builds the dataset of a recipe, unless it exists and is complete.

    Args:
        recipe: recipe of the dataset.
        data_dir: folder of TFDS datasets, with the raw images of `scripts/fetch` in ``raw/``.

    Returns:
        The folder of the dataset, ``data_dir/weblike/DIGEST/VERSION``, which TFDS can open:
        ``tfds.builder_from_directory(folder)``.

    Raises:
        InputError: raw images are missing, or too few for the recipe.

    Examples:
        Without raw images, the error names the command that downloads them:

        >>> from jaxcurate.sources import prepare, web_like
        >>> prepare(web_like(), "/data")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: no raw images in /data/raw/fashion: run scripts/fetch ...
    """
    folder = Path(data_dir) / NAME / recipe.digest / VERSION
    if not is_whole(folder):
        raw_dir = Path(data_dir) / "raw"
        for domain in recipe.domains:
            raw.check(domain.source, raw_dir)
        build(folder, builder_class(), _config(recipe, raw_dir), {"recipe": recipe.to_dict()})
    return folder


def prepared(name: str, data_dir: str | os.PathLike) -> Path:
    """Returns the folder of a dataset that was built before.

    Args:
        name: name of the dataset, ``weblike/DIGEST``.
        data_dir: folder of TFDS datasets.

    Raises:
        InputError: the dataset is missing or incomplete.
    """
    folder = Path(data_dir) / name / VERSION
    if not is_whole(folder):
        raise InputError(f"no whole {name} in {data_dir}: open tfds:{NAME} with its recipe")
    return folder


@functools.cache
def builder_class() -> type:
    """Returns the class of the TFDS builder, and imports TFDS only when it is called."""
    import tensorflow_datasets as tfds

    class Weblike(tfds.core.GeneratorBasedBuilder):
        # Metadata and fingerprints of the dataset contain this text, so that its spelling stays.
        """Copies of a few originals and a thin, diverse tail, with held-out labelled items."""

        VERSION = tfds.core.Version(VERSION)
        BUILDER_CONFIGS = ()

        def _info(self) -> tfds.core.DatasetInfo:
            config: Any = self.builder_config
            size = config.recipe.image_size
            text = tfds.features.Text
            features = tfds.features.FeaturesDict(
                {
                    "id": text(),
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    "label": text(),
                    "domain": text(),
                    "group": text(),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features, description=self.__doc__)

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            config: Any = self.builder_config
            parts = assemble(config.recipe, config.raw_dir)
            return {split: self._generate_examples(part) for split, part in parts.items()}

        def _generate_examples(self, part: Part) -> Iterator[tuple[str, dict[str, Any]]]:
            for values in zip(*part, strict=True):
                example = dict(zip(Part._fields, values, strict=True))
                example["image"] = encode_png(example["image"])
                yield example["id"], example

    return Weblike


def _config(recipe: Recipe, raw_dir: Path) -> Any:
    import tensorflow_datasets as tfds

    @dataclasses.dataclass(eq=False)
    class WeblikeConfig(tfds.core.BuilderConfig):
        recipe: Recipe | None = None
        raw_dir: Path | None = None

    return WeblikeConfig(name=recipe.digest, recipe=recipe, raw_dir=raw_dir)


def _assemble_domain(
    domain: Domain, recipe: Recipe, raw_dir: str | os.PathLike
) -> tuple[Part, Part, Part]:
    images = raw.read(domain.source, raw_dir, recipe.image_size)
    # Each domain has its own random stream, so that changing one does not change the others.
    rng = np.random.default_rng((recipe.seed, zlib.crc32(domain.name.encode())))
    groups = group(images.pixels, images.origins)
    probe, test, candidates = hold_out(
        groups, images.labels, domain.n_probe, domain.n_test, unclassed=domain.unclassed, rng=rng
    )
    originals = _draw_originals(domain, candidates, images.labels, rng)

    def part(rows: np.ndarray) -> Part:
        prefix = f"{domain.name}/"
        return Part(
            id=np.char.add(prefix, images.keys[rows]),
            image=images.rgb(rows),
            label=np.char.add(prefix, images.labels[rows]),
            domain=np.full(len(rows), domain.name),
            group=np.char.add(prefix, images.keys[groups[rows]]),
        )

    n_items = domain.n_items or domain.n_originals
    copy, original = np.divmod(np.arange(n_items), domain.n_originals)
    pool = part(originals[original])
    pool = pool._replace(image=jitter(pool.image, domain.jitter, rng))
    if n_items > domain.n_originals:
        suffix = np.char.add("-copy", np.char.zfill(copy.astype(str), 4))
        pool = pool._replace(id=np.char.add(pool.id, suffix))
    return pool, part(probe), part(test)


def _draw_originals(
    domain: Domain, candidates: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws distinct originals of the pool, uniformly or with falling class sizes."""
    if domain.imbalance is None:
        if domain.n_originals > len(candidates):
            raise InputError(
                f"domain {domain.name!r}: n_originals {domain.n_originals} is more than the"
                f" {len(candidates)} that are not held out"
            )
        return np.sort(rng.choice(candidates, domain.n_originals, replace=False))
    classes = rng.permutation(np.unique(labels[candidates]))
    sizes = falling_sizes(domain.n_originals, len(classes), domain.imbalance)
    drawn = []
    for label, size in zip(classes, sizes, strict=True):
        rows = candidates[labels[candidates] == label]
        if size > len(rows):
            raise InputError(
                f"domain {domain.name!r}: n_originals asks for {size} of class '{label}', of"
                f" which {len(rows)} are not held out"
            )
        drawn.append(rng.choice(rows, size, replace=False))
    return np.sort(np.concatenate(drawn))


def falling_sizes(total: int, n_classes: int, ratio: float) -> np.ndarray:
    """Returns sizes that fall geometrically and add up to a total.

    Args:
        total: sum of the sizes.
        n_classes: number of sizes.
        ratio: ratio of the largest size to the smallest.

    Returns:
        int64 ``[n_classes]``.

    Examples:
        >>> falling_sizes(111, 3, ratio=100.0)
        array([100,  10,   1])
    """
    weights = ratio ** -np.linspace(0.0, 1.0, n_classes)
    exact = total * weights / weights.sum()
    sizes = np.floor(exact).astype(np.int64)
    short = total - sizes.sum()
    sizes[np.argsort(sizes - exact, kind="stable")[:short]] += 1
    return sizes
