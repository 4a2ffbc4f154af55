"""Section on items that are not in the pool, or that filters dropped."""

from collections.abc import Mapping
from typing import Any, NamedTuple

_LISTED = 50
"""Largest number of unreadable items that are listed."""


class LeftOut(NamedTuple):
    """Items that were left out before clustering."""

    reasons: dict[str, int]
    """Number of items by the reason why they are not in the pool, the most frequent first."""
    rules: dict[str, int]
    """Number of items of the pool that each rule of the filter dropped, the most frequent
    first."""
    items: list[tuple[str, str]]
    """Id and reason of each item that could not be used, at most the first 50."""
    n_items: int
    """Number of items that could not be used, as far as they are known one by one."""


def left_out(cards: Mapping[str, Mapping[str, Any]]) -> LeftOut | None:
    """Returns the items that were left out, from the cards; None if there were none.

    Args:
        cards: the cards of the stages. That of ``embed`` has ``left_out``, and that of ``filter``
            has ``dropped``: numbers of items by reason and by rule.

    Examples:
        >>> cards = {"embed": {"left_out": {"truncated": 2, "empty": 3}}}
        >>> left_out(cards).reasons
        {'empty': 3, 'truncated': 2}
    """
    embed = cards.get("embed", {})
    reasons = _sorted(embed.get("left_out", {}))
    rules = _sorted(dict(cards.get("filter", {}).get("dropped", {})))
    items = [(str(id_), str(reason)) for id_, reason in embed.get("unreadable", [])]
    if not (reasons or rules or items):
        return None
    return LeftOut(reasons, rules, items[:_LISTED], len(items))


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns counts above 0 in descending order, and in that of their names if they are equal."""
    filled = [(name, n) for name, n in counts.items() if n]
    return dict(sorted(filled, key=lambda entry: (-entry[1], entry[0])))
