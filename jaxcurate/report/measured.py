"""Measures from the cards: of the subset, of the reasons why rows were kept, of deduplication."""

from collections.abc import Mapping
from typing import Any, NamedTuple

ARMS = ("random", "curated")
"""Subsets that are measured, in the order of the page."""


class LevelRow(NamedTuple):
    """Spread of each arm over the clusters of one level."""

    number: int
    """Number of the level; 1 is the lowest."""
    n_clusters: int
    """Number of clusters with items of the pool."""
    by_arm: dict[str, dict[str, float]]
    """Measures ``empty``, ``entropy`` and ``gini`` by arm."""


class Measures(NamedTuple):
    """Measures of the subset, and of a random subset with as many distinct items."""

    levels: list[LevelRow]
    """Spread over the clusters of every level, bottom up."""
    coverage: dict[str, dict[str, float]]
    """Measures ``mean``, ``error``, ``largest`` and ``n_measured`` by arm."""
    kl: dict[str, float]
    """KL divergence from the uniform distribution by arm, for embeddings of up to three dimensions;
    empty otherwise."""


class Duplicates(NamedTuple):
    """Effect of deduplication on the pool."""

    n_pool: int
    """Number of items in the pool."""
    kept: int
    """Number of items that were kept."""
    same: int
    """Number of items that are equal to an earlier item."""
    near: int
    """Number of items that are near-duplicates of another."""
    threshold: float | None
    """Cosine similarity at or above which items are near-duplicates; None, or 0 in older cards, if
    near-duplicates were not removed."""
    content: str
    """Content that equal items share: `items` or embeddings."""
    rule: str
    """Rule by which near-duplicates go: `cover`, or `components` in cards of older releases."""
    n_largest: int | None
    """Number of items that the same kept item stands for, at most; None in older cards."""
    lowest_similarity: float | None
    """Lowest cosine of a removed item and the one that stands for it; None if there is none, and in
    older cards."""


def measures(cards: Mapping[str, Mapping[str, Any]]) -> Measures | None:
    """Returns the measures in the card of the subset; None if it has none."""
    by_arm = cards.get("sample", {}).get("measures")
    if not by_arm:
        return None
    arms = [arm for arm in ARMS if arm in by_arm]
    levels = [
        LevelRow(
            level[0]["level"],
            level[0]["n_clusters"],
            dict(zip(arms, level, strict=True)),
        )
        for level in zip(*(by_arm[arm]["levels"] for arm in arms), strict=True)
    ]
    return Measures(
        levels,
        {arm: by_arm[arm]["coverage"] for arm in arms},
        {arm: by_arm[arm]["kl_to_uniform"] for arm in arms if "kl_to_uniform" in by_arm[arm]},
    )


def reasons(cards: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Returns the number of rows of a mixture by the reason why they were kept.

    Args:
        cards: the cards of the stages.

    Returns:
        Reason to number of rows; empty if the subset is not a mixture.

    Examples:
        >>> reasons({"sample": {"why": {"curated": 80, "raw": 20}}})
        {'curated': 80, 'raw': 20}
    """
    return dict(cards.get("sample", {}).get("why", {}))


def duplicates(cards: Mapping[str, Mapping[str, Any]], n_pool: int) -> Duplicates | None:
    """Returns the effect of deduplication from its card; None if there was none.

    Args:
        cards: the cards of the stages.
        n_pool: the number of items in the pool.

    Examples:
        >>> card = {"kept": 90, "same": 7, "near": 3, "made_from": {"dedup": {"threshold": 0.9}}}
        >>> duplicates({"dedup": card}, n_pool=100).threshold
        0.9
    """
    card = cards.get("dedup")
    if card is None:
        return None
    settings = card.get("made_from", {}).get("dedup", {})
    return Duplicates(
        n_pool,
        card["kept"],
        card["same"],
        card["near"],
        settings.get("threshold"),
        settings.get("content", "items"),
        card.get("rule", "components"),
        (card.get("largest_group") or {}).get("n_others"),
        card.get("lowest_similarity"),
    )
