"""Counter of the steps that all processes of a run take, which shows a process that is behind."""

_taken = 0
_latest = "the start"


def begin(name: str) -> None:
    """Counts a step that all processes of the run take, in the same order.

    Args:
        name: Name of the step, which messages about a lost process give.
    """
    global _taken, _latest
    _taken, _latest = _taken + 1, name


def taken() -> tuple[int, str]:
    """Returns the number of steps that this process has begun, and the name of the latest."""
    return _taken, _latest
