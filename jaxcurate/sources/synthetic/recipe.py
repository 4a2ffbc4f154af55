"""Recipes of made-up pools, three of which the experiments use."""

import dataclasses
import hashlib
import json
from typing import Any

from jaxcurate.checks import InputError
from jaxcurate.sources.synthetic.raw import READERS


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Distance by which a copy strays from its original; zeros leave it as it is."""

    shift: int = 0
    """Greatest shift in pixels, in each direction."""
    brightness: float = 0.0
    """Half-width of the range of the brightness's factor around 1."""
    contrast: float = 0.0
    """Half-width of the range of the contrast's factor around 1."""
    noise: float = 0.0
    """Standard deviation of the noise, as a fraction of the range of a pixel."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise InputError(f"jitter {field.name} must not be negative")


@dataclasses.dataclass(frozen=True)
class Domain:
    """One part of a pool, and what is held out of the same raw package."""

    name: str
    """Prefix of ids, labels and groups."""
    source: str = dataclasses.field(metadata={"known": READERS})
    """Raw package that the images are from."""
    n_originals: int
    """Number of distinct originals in the pool."""
    n_items: int | None = None
    """Number of items in the pool, dealt evenly to the originals; by default each is there once."""
    imbalance: float | None = None
    """Ratio of the largest class to the smallest, sizes falling geometrically; 1 balances them. By
    default originals are drawn as the package has them."""
    jitter: Jitter = Jitter()
    """Random changes of each item of the pool."""
    n_probe: int = 40
    """Largest number of held-out items of a class for training probes."""
    n_test: int = 40
    """Largest number of held-out items of a class for testing probes."""
    unclassed: tuple[str, ...] = ()
    """Labels that name no class, which are never held out."""

    def __post_init__(self) -> None:
        where = f"domain {self.name!r}"
        if not self.name or "/" in self.name:
            raise InputError(f"{where}: name must be a word without '/'")
        if self.source not in READERS:
            raise InputError(f"{where}: source {self.source!r} is not one of {', '.join(READERS)}")
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
    """A pool and its held-out items, as a function of raw images and a seed."""

    domains: tuple[Domain, ...]
    """Parts of the pool, no two of one source, so that what one holds out is in no other's pool."""
    seed: int = 0
    """Seed of every draw."""
    image_size: int = 32
    """Side of the images in pixels."""

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

    def to_dict(self) -> dict[str, Any]:
        """Returns plain mappings and lists, as JSON holds them."""
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
