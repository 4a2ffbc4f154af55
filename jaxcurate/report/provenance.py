"""Section on provenance: settings, stages, versions and checksums."""

from collections.abc import Mapping
from typing import Any, NamedTuple

_FILES = 40
"""Largest number of files of a stage that are listed."""


class Stage(NamedTuple):
    """Finished stage of a run."""

    name: str
    """Name of the stage."""
    seconds: float | None
    """Time that it took, in seconds."""
    devices: str
    """Number and kind of devices."""
    mapper: str
    """Name of the mapper that split work over devices."""
    digests: dict[str, str]
    """Fingerprints of its inputs, by name."""
    files: list[tuple[str, int, str]]
    """Name, size in bytes and SHA-256 of each file, at most the first 40."""
    n_files: int
    """Number of files."""
    n_bytes: int
    """Size of all files in bytes."""


class Provenance(NamedTuple):
    """Provenance of a run."""

    stages: list[Stage]
    """Finished stages."""
    versions: list[tuple[str, dict[str, str]]]
    """Versions by package, each set with the names of the stages that used it."""
    shortfall: int
    """Number of items that the subset has fewer than requested."""


def provenance(cards: Mapping[str, Mapping[str, Any]]) -> Provenance:
    """Returns the provenance of a run from the cards of its stages.

    Examples:
        >>> card = {"seconds": 2.0, "devices": "1 x cpu", "versions": {"jax": "0.10"}}
        >>> provenance({"embed": card, "cluster": card}).versions
        [('embed, cluster', {'jax': '0.10'})]
    """
    versions: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, card in cards.items():
        if card.get("versions"):
            versions.setdefault(tuple(sorted(card["versions"].items())), []).append(name)
    return Provenance(
        [_stage(name, card) for name, card in cards.items()],
        [(", ".join(stages), dict(packages)) for packages, stages in versions.items()],
        int(cards.get("sample", {}).get("shortfall") or 0),
    )


def _stage(name: str, card: Mapping[str, Any]) -> Stage:
    files = card.get("files", {})
    made_from = card.get("made_from", {})
    return Stage(
        name,
        card.get("seconds"),
        str(card.get("devices", "")),
        str(card.get("mapper", "")),
        {key: value for key, value in made_from.items() if isinstance(value, str)},
        [(file, entry["bytes"], entry["sha256"]) for file, entry in sorted(files.items())[:_FILES]],
        len(files),
        sum(entry["bytes"] for entry in files.values()),
    )
