"""Outputs of stages: a folder with a card, or the page of the report."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.report import is_report, is_whole


def as_json(value: Any) -> Any:
    """Returns what JSON makes of a value: tuples turn into lists.

    Example:
        >>> as_json({"size": (1, 2)})
        {'size': [1, 2]}
    """
    return json.loads(json.dumps(value))


class Output(Protocol):
    """Where a stage writes, and how what lies there stands."""

    @property
    def path(self) -> epath.Path:
        """Folder or file."""
        ...

    def card(self) -> dict[str, Any] | None:
        """Returns what is known of what lies there; None where nothing does.

        Raises:
            DamagedError: it is not whole, as far as a glance tells.
        """
        ...

    def is_made_from(self, inputs: Mapping[str, Any], card: Mapping[str, Any]) -> bool:
        """Tells whether it was made from these inputs, by its card."""
        ...

    def check_replaceable(self, run: str) -> None:
        """Refuses what this run must not replace.

        Raises:
            InputError: telling what stands there.
        """
        ...


@dataclass(frozen=True)
class Folder:
    """A folder that tells in its card what it was made from."""

    path: epath.Path
    kind: str
    """Kind of the folder's content; only a folder of this kind is replaced."""

    def card(self) -> dict[str, Any] | None:
        """Returns the card; None where there is no folder."""
        return folders.read_card(self.path)

    def is_made_from(self, inputs: Mapping[str, Any], card: Mapping[str, Any]) -> bool:
        """Tells whether the card names these inputs."""
        return card.get("made_from") == as_json(inputs)

    def check_replaceable(self, run: str) -> None:
        """Refuses a folder that this run did not write."""
        folders.check_replaceable(self.path, self.kind, run)


@dataclass(frozen=True)
class Page:
    """A page of HTML with the fingerprint of what it was made from in it."""

    path: epath.Path

    def card(self) -> dict[str, Any] | None:
        """Returns the text of a whole page, which is its own card; None where there is none."""
        if not self.path.is_file():  # a pipe would be read forever
            return None
        text = self.path.read_text()
        if not is_whole(text):
            raise files.DamagedError(f"{self.path} is cut short")
        return {"text": text}

    def is_made_from(self, inputs: Mapping[str, Any], card: Mapping[str, Any]) -> bool:
        """Tells whether the page has the fingerprint of these inputs."""
        return files.fingerprint(dict(inputs)) in card["text"]

    def check_replaceable(self, run: str) -> None:
        """Refuses a file that is no report."""
        files.check_text(self.path, is_report)
