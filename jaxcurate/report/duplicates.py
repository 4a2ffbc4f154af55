"""Section on duplicates: their number, and dropped items beside what stands for them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxcurate.report.items import Item

_N_PAIRS = 24
"""Largest number of pairs that are shown."""


class Pair(NamedTuple):
    """Dropped item and the item that stands for it."""

    dropped: Item
    """Item that deduplication removed."""
    kept: Item
    """Item of the same group that it kept."""
    similarity: float
    """Cosine similarity of the two."""


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
    pairs: list[Pair]
    """Dropped items of the lowest similarity, beside what stands for them."""


def lowest(pairs: Sequence[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    """Returns the pairs of the lowest similarity, the lowest first, at most 24.

    Examples:
        >>> lowest([(4, 1, 0.99), (5, 2, 0.96)])
        [(5, 2, 0.96), (4, 1, 0.99)]
    """
    return sorted(pairs, key=lambda pair: (pair[2], pair[0]))[:_N_PAIRS]


def duplicates(
    cards: Mapping[str, Mapping[str, Any]],
    n_pool: int,
    pairs: Sequence[Pair] = (),
) -> Duplicates | None:
    """Returns the effect of deduplication from its card; None if there was none.

    Args:
        cards: the cards of the stages.
        n_pool: the number of items in the pool.
        pairs: pairs to show.

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
        list(pairs),
    )
