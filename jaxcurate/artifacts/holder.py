"""Holders of locks, as lock files name them, and how long a silent one is believed to run."""

from typing import NamedTuple

from etils import epath

from jaxcurate.artifacts.local import parsed
from jaxcurate.artifacts.owner import Owner
from jaxcurate.checks import InputError

BEAT_SECONDS = 10.0
"""Seconds between two touches of the file, which show other machines that its holder runs."""
SILENT_SECONDS = 120.0
"""Age of the last touch beyond which a holder on another machine is observed."""
OBSERVED_SECONDS = 35.0
"""Observed seconds without a touch after which that holder counts as ended."""
POLL_SECONDS = 0.5
"""Seconds between two looks at a lock that is waited for."""


class Holder(NamedTuple):
    """Holder of a lock, as named in its file."""

    token: str
    """Token that all processes of one run share."""
    owner: Owner
    """Process that took the lock."""
    since: str
    """Date and time at which the lock was taken."""

    def __str__(self) -> str:
        return f"{self.owner}, since {self.since}"


def parsed_holder(text: str) -> Holder | None:
    """Returns the holder, or None if a killed process left the file empty or half written.

    Examples:
        >>> parsed_holder("{") is None
        True
    """
    try:
        plain = parsed(text)
        return Holder(str(plain["token"]), Owner.from_plain(plain), str(plain["since"]))
    except (ValueError, KeyError, TypeError):
        return None


def in_use(folder: epath.Path, holder: Holder | None) -> InputError:
    """Returns the error about a work directory that another run has locked."""
    return InputError(
        f"{folder} is in use by {holder or 'a process that starts'}; wait for it (--wait does), "
        "end it, or choose another work directory"
    )
