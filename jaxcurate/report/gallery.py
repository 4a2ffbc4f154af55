"""Section with items: strips of some clusters, and sheets of kept and of dropped items."""

from typing import NamedTuple

from jaxcurate.report.choose import Choices
from jaxcurate.report.items import Item


class Strip(NamedTuple):
    """Some items of a cluster."""

    cluster: int
    """Number of the cluster."""
    n_pool: int
    """Number of its items in the pool."""
    n_kept: int
    """Number of its distinct items in the subset."""
    items: list[Item]
    """Items that are shown."""


class Gallery(NamedTuple):
    """Items of some clusters, of the subset and of the rest of the pool."""

    strips: list[Strip]
    """Items by cluster."""
    kept: list[Item]
    """Items of the subset."""
    dropped: list[Item]
    """Items of the pool that are not in the subset."""


def gallery(choices: Choices, items: dict[int, Item]) -> Gallery:
    """Returns the items of the section.

    Args:
        choices: rows to show.
        items: items by row.
    """
    show = lambda rows: [items[row] for row in rows.tolist()]
    return Gallery(
        [Strip(c.cluster, c.n_pool, c.n_kept, show(c.rows)) for c in choices.strips],
        show(choices.kept),
        show(choices.dropped),
    )
