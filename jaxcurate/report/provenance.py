"""Provenance of the run: stages, versions, checksums, what could not be read."""

from collections.abc import Mapping
from typing import Any, NamedTuple

_FILES = 40
_UNREADABLE = 50


class Stage(NamedTuple):
    """One stage that is done."""

    name: str
    seconds: float | None
    devices: str
    mapper: str
    digests: dict[str, str]
    """Fingerprints, by name, of what it was made from."""
    files: list[tuple[str, int, str]]
    """Name, bytes, SHA-256; the first of them where there are many."""
    n_files: int
    n_bytes: int


class Provenance(NamedTuple):
    """Provenance of a run."""

    stages: list[Stage]
    versions: list[tuple[str, dict[str, str]]]
    """The stages that ran with them, and version by package."""
    unreadable: list[tuple[str, str]]
    """Id and reason; the first of them where there are many."""
    n_unreadable: int
    shortfall: int
    """Items that the subset has fewer than was asked for."""


def provenance(cards: Mapping[str, Mapping[str, Any]]) -> Provenance:
    """Reads the cards of the stages."""
    versions: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, card in cards.items():
        if card.get("versions"):
            versions.setdefault(tuple(sorted(card["versions"].items())), []).append(name)
    unreadable = cards.get("embed", {}).get("unreadable", [])
    return Provenance(
        [_stage(name, card) for name, card in cards.items()],
        [(", ".join(stages), dict(found)) for found, stages in versions.items()],
        [(str(id_), str(reason)) for id_, reason in unreadable[:_UNREADABLE]],
        len(unreadable),
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
        [(file, one["bytes"], one["sha256"]) for file, one in sorted(files.items())[:_FILES]],
        len(files),
        sum(one["bytes"] for one in files.values()),
    )
