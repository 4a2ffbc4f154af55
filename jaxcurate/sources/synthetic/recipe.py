"""Recipes of synthetic pools, and the four recipes of the experiments."""

import dataclasses
import hashlib
import json
from typing import Any

from jaxcurate.checks import InputError
from jaxcurate.sources.synthetic.raw import READERS


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Strength of the random changes of a copy. With zeros, copies equal their original.

    Examples:
        >>> Jitter(brightness=0.1, noise=0.02).shift
        0
    """

    shift: int = 0
    """Largest shift in pixels, in each direction."""
    brightness: float = 0.0
    """Half-width of the range of the factor of the brightness around 1."""
    contrast: float = 0.0
    """Half-width of the range of the factor of the contrast around 1."""
    noise: float = 0.0
    """Standard deviation of the noise, as a fraction of the range of a pixel."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise InputError(f"jitter {field.name} must not be negative")


@dataclasses.dataclass(frozen=True)
class Domain:
    """Settings of the part of a pool, and of its held-out items, that is from one raw package.

    Examples:
        20 digits, of each of which the pool has 5 jittered copies:

        >>> Domain("digits", "digits", n_originals=20, n_items=100, jitter=Jitter(shift=1)).n_test
        40
    """

    name: str
    """Prefix of ids, labels and groups."""
    source: str = dataclasses.field(metadata={"known": READERS})
    """Name of the raw package of the images."""
    n_originals: int
    """Number of distinct originals in the pool."""
    n_items: int | None = None
    """Number of items in the pool, divided evenly among the originals. By default one of each."""
    imbalance: float | None = None
    """Ratio of the largest class to the smallest. Sizes fall geometrically, and 1 balances them.
    By default originals are drawn without regard to classes."""
    jitter: Jitter = Jitter()
    """Random changes of each item of the pool."""
    n_probe: int = 40
    """Largest number of held-out items of a class for training probes."""
    n_test: int = 40
    """Largest number of held-out items of a class for testing probes."""
    unclassed: tuple[str, ...] = ()
    """Labels that are no classes, and are never held out."""

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
    """Recipe of a pool and its held-out items, which determines them with the raw images.

    Examples:
        >>> recipe = Recipe(domains=(Domain("digits", "digits", 100),), seed=1)
        >>> recipe.image_size, len(recipe.digest)
        (32, 8)
    """

    domains: tuple[Domain, ...]
    """Parts of the pool, all of distinct sources, so that no held-out item is in another part."""
    seed: int = 0
    """Seed of all random numbers."""
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
        """Returns the recipe as plain mappings and lists, as in JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that differ between recipes."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


_TAIL = (
    Domain("digits", "digits", 200),
    Domain("clipart", "clipart", 600, unclassed=("unsorted",)),
    Domain("emoji", "emoji", 200),
)
"""Small parts of the web-like pools, each of another collection."""


def web_like(seed: int = 0) -> Recipe:
    """Returns the recipe of a pool with a large head of near-duplicates and a small, diverse tail.

    Its 21,000 items are 20,000 weakly jittered copies of 20 originals of Fashion-MNIST, and 200
    digits, 600 pieces of clip art and 200 emoji without copies.

    Args:
        seed: seed of all random numbers.

    Examples:
        >>> from jaxcurate.sources import web_like
        >>> {domain.name: domain.n_items or domain.n_originals for domain in web_like().domains}
        {'fashion': 20000, 'digits': 200, 'clipart': 600, 'emoji': 200}
    """
    weak = Jitter(brightness=0.1, contrast=0.1, noise=0.02)
    head = Domain("fashion", "fashion", 20, n_items=20_000, imbalance=1.0, jitter=weak)
    return Recipe(seed=seed, domains=(head, *_TAIL))


def web_like_diverse(seed: int = 0) -> Recipe:
    """Returns the recipe of a pool with a large, diverse head and a small, diverse tail.

    It is that of :func:`web_like` but for its head: 20,000 distinct items of Fashion-MNIST without
    jitter, 2,000 of each class. Removing near-duplicates cannot balance it.

    Args:
        seed: seed of all random numbers.

    Examples:
        >>> from jaxcurate.sources import web_like_diverse
        >>> {domain.name: domain.n_originals for domain in web_like_diverse().domains}
        {'fashion': 20000, 'digits': 200, 'clipart': 600, 'emoji': 200}
    """
    head = Domain("fashion", "fashion", 20_000, imbalance=1.0)
    return Recipe(seed=seed, domains=(head, *_TAIL))


def fashion_longtail(seed: int = 0) -> Recipe:
    """Returns the recipe of a long-tailed pool of 9,928 items without duplicates.

    It has one domain with ten classes, from 4,000 items down to 40.

    Args:
        seed: seed of all random numbers.

    Examples:
        >>> from jaxcurate.sources import fashion_longtail
        >>> fashion_longtail().domains[0].imbalance
        100.0
    """
    return Recipe(seed=seed, domains=(Domain("fashion", "fashion", 9_928, imbalance=100.0),))


def balanced(seed: int = 0) -> Recipe:
    """Returns the recipe of a balanced pool, which curation cannot improve.

    It has one domain with ten classes of 1,000 distinct items.

    Args:
        seed: seed of all random numbers.

    Examples:
        >>> from jaxcurate.sources import balanced
        >>> balanced().domains[0].n_originals
        10000
    """
    return Recipe(seed=seed, domains=(Domain("fashion", "fashion", 10_000, imbalance=1.0),))
