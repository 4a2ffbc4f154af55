"""Measures that the cards tell: of the subset, of why rows were kept, of deduplication."""

from collections.abc import Mapping
from typing import Any, NamedTuple

ARMS = ("random", "curated")


class LevelRow(NamedTuple):
    """One level of the tree, and how each arm is spread over its clusters."""

    number: int
    n_clusters: int
    """That have any item of the pool."""
    by_arm: dict[str, dict[str, float]]
    """Arm to ``empty``, ``entropy``, ``gini``."""


class Measures(NamedTuple):
    """The subset beside a random one with as many distinct items."""

    levels: list[LevelRow]
    coverage: dict[str, dict[str, float]]
    """Arm to ``mean``, ``error``, ``largest``, ``n_measured``."""
    kl: dict[str, float]
    """Arm to the KL divergence from the uniform distribution, for embeddings of up to
    three dimensions; else empty."""


class Duplicates(NamedTuple):
    """Effect of deduplication on the pool."""

    n_pool: int
    kept: int
    same: int
    near: int
    threshold: float | None
    """Threshold of the cosine; None, or 0 in older cards, where nearly equal items were left be."""
    content: str


def measures(cards: Mapping[str, Mapping[str, Any]]) -> Measures | None:
    """Reads the card of the subset; None where it has no measures."""
    by_arm = cards.get("sample", {}).get("measures")
    if not by_arm:
        return None
    arms = [arm for arm in ARMS if arm in by_arm]
    levels = [
        LevelRow(
            together[0]["level"],
            together[0]["n_clusters"],
            dict(zip(arms, together, strict=True)),
        )
        for together in zip(*(by_arm[arm]["levels"] for arm in arms), strict=True)
    ]
    return Measures(
        levels,
        {arm: by_arm[arm]["coverage"] for arm in arms},
        {arm: by_arm[arm]["kl_to_uniform"] for arm in arms if "kl_to_uniform" in by_arm[arm]},
    )


def reasons(cards: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Returns of a mixture how many rows were kept for what; empty where there is but one part."""
    return dict(cards.get("sample", {}).get("why", {}))


def duplicates(cards: Mapping[str, Mapping[str, Any]], n_pool: int) -> Duplicates | None:
    """Reads the card of deduplication; None where there was none."""
    card = cards.get("dedup")
    if card is None:
        return None
    how = card.get("made_from", {}).get("dedup", {})
    return Duplicates(
        n_pool,
        card["kept"],
        card["same"],
        card["near"],
        how.get("threshold"),
        how.get("content", "items"),
    )
