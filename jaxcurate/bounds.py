"""Whole numbers that must not be too small, refused by name."""

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
