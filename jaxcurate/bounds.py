"""Whole numbers out of their bounds, refused by name."""

from numbers import Integral
from typing import Any


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuses what is no whole number, or is below ``least``.

    Raises:
        ValueError: naming it.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name}={value!r} must be a whole number")
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}")


def check_seed(seed: int) -> None:
    """Refuses a seed of which jax would take the remainder only.

    Raises:
        ValueError: naming it.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must be within [0, 2**32)")
