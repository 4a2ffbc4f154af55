"""Recipes of made-up pools, three of which the experiments use."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jaxcurate.checks import InputError
from jaxcurate.dataclass_fields import to_dataclass

RAW_SOURCES = ("fashion", "digits", "clipart", "emoji")


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Distance by which a copy strays from its original; zeros leave it as it is.

    Attributes:
        shift: pixels, at most, in each direction.
        brightness: half-width of the factor's range around 1.
        contrast: half-width of the factor's range around 1.
        noise: standard deviation of the noise, as a share of the range of a pixel.
    """

    shift: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise InputError(f"jitter {field.name} must not be negative")


@dataclasses.dataclass(frozen=True)
class Domain:
    """One part of a pool, and what is held out of the same raw package.

    Attributes:
        name: prefix of ids, labels and groups.
        source: the raw package, one of `RAW_SOURCES`.
        n_originals: distinct originals in the pool.
        n_items: items in the pool, dealt evenly to the originals; None: each once.
        imbalance: None: originals are drawn as the package has them; else the ratio of the
          largest class to the smallest, sizes falling geometrically (1: balanced).
        jitter: applied to each item of the pool.
        n_probe: held-out items per class, at most, for training probes.
        n_test: held-out items per class, at most, for testing them.
        unclassed: labels that name no class; never held out.
    """

    name: str
    source: str
    n_originals: int
    n_items: int | None = None
    imbalance: float | None = None
    jitter: Jitter = Jitter()
    n_probe: int = 40
    n_test: int = 40
    unclassed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"domain {self.name!r}"
        if not self.name or "/" in self.name:
            raise InputError(f"{where}: name must be a word without '/'")
        if self.source not in RAW_SOURCES:
            raise InputError(f"{where}: source {self.source!r} is not one of {RAW_SOURCES}")
        if self.n_originals < 1:
            raise InputError(f"{where}: n_originals must be at least 1")
        if self.n_items is not None and self.n_items < self.n_originals:
            raise InputError(f"{where}: n_items must be at least n_originals")
        if self.imbalance is not None and self.imbalance < 1:
            raise InputError(f"{where}: imbalance must be at least 1")
        if min(self.n_probe, self.n_test) < 0:
            raise InputError(f"{where}: n_probe and n_test must not be negative")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A pool and its held-out items, as a function of raw images and a seed.

    Attributes:
        domains: no two of one source, so that what one holds out is in no other's pool.
        seed: of every draw.
        image_size: side of the images in pixels.
    """

    domains: tuple[Domain, ...]
    seed: int = 0
    image_size: int = 32

    def __post_init__(self) -> None:
        if not self.domains:
            raise InputError("recipe: domains must not be empty")
        for field in ("name", "source"):
            values = [getattr(domain, field) for domain in self.domains]
            if len(set(values)) < len(values):
                raise InputError(f"recipe: two domains have the same {field}")
        if self.image_size < 8:
            raise InputError("recipe: image_size must be at least 8")
        if self.seed < 0:
            raise InputError("recipe: seed must not be negative")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Recipe":
        """Makes a recipe of plain mappings, as a configuration file holds it.

        Raises:
            ValueError: naming a field that is unknown, missing or of the wrong type.
        """
        return to_dataclass(cls, fields, "recipe")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain mappings and lists from which `from_dict` makes an equal recipe."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that differ between recipes."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def web_like(seed: int = 0) -> Recipe:
    """Returns a crushing head of near-duplicates and a thin, diverse tail: 21,000 items.

    20,000 weakly jittered copies of 20 Fashion-MNIST originals; 200 digits, 600 pieces of clip
    art and 200 emoji, each once.
    """
    weak = Jitter(brightness=0.1, contrast=0.1, noise=0.02)
    return Recipe(
        seed=seed,
        domains=(
            Domain("fashion", "fashion", 20, n_items=20_000, imbalance=1.0, jitter=weak),
            Domain("digits", "digits", 200),
            Domain("clipart", "clipart", 600, unclassed=("unsorted",)),
            Domain("emoji", "emoji", 200),
        ),
    )


def fashion_longtail(seed: int = 0) -> Recipe:
    """Returns one domain without duplicates, ten classes from 4,000 items down to 40: 9,928
    items."""
    return Recipe(seed=seed, domains=(Domain("fashion", "fashion", 9_928, imbalance=100.0),))


def balanced(seed: int = 0) -> Recipe:
    """Returns one domain, ten classes of 1,000 distinct items: nothing for curation to repair."""
    return Recipe(seed=seed, domains=(Domain("fashion", "fashion", 10_000, imbalance=1.0),))


RECIPES = {"web_like": web_like, "fashion_longtail": fashion_longtail, "balanced": balanced}
"""Recipes by name; each takes a seed."""
