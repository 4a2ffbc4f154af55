"""Published sizes of small BERTs, by name."""

from typing import Any

from jaxcurate.checks import check_choice
from jaxcurate.models.bert import BertConfig

SIZES = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
}
"""Depth and width of each size. Heads have 64 features, and MLPs four times the width."""


def bert_config(size: str, **choices: Any) -> BertConfig:
    """Returns the shape of a BERT of a published size.

    Args:
        size: ``tiny``, ``mini``, ``small``, ``medium`` or ``base``.
        **choices: further fields of a :class:`BertConfig`.

    Raises:
        InputError: the size is not known.

    References:
        Turc, Chang, Lee, Toutanova: Well-read students learn better (2019),
        https://arxiv.org/abs/1908.08962, table 1.

    Examples:
        >>> bert_config("mini", vocab_size=8000).n_heads
        4
    """
    check_choice("size", size, SIZES)
    depth, width = SIZES[size]
    sizes: dict[str, Any] = dict(depth=depth, width=width, n_heads=width // 64, hidden=4 * width)
    return BertConfig(**(sizes | choices))
