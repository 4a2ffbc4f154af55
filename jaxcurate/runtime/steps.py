"""Counts the steps that every process of a run takes, so that it shows which one is behind."""

_taken = 0
_latest = "the start"


def begin(name: str) -> None:
    """Counts a step that every process of the run takes, in the same order."""
    global _taken, _latest
    _taken, _latest = _taken + 1, name


def taken() -> tuple[int, str]:
    """Returns how many steps this process has begun, and the name of the latest."""
    return _taken, _latest
