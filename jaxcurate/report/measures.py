"""Section on measures of the subset, and on the reasons why its rows were kept, from the card."""

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
