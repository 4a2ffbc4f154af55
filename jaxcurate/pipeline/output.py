"""Outputs of stages: a folder with a card, or the page of the report."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.local import is_file, read_text
from jaxcurate.report import is_report, is_whole


def as_json(value: Any) -> Any:
    """Returns a value in its form after JSON, in which tuples are lists.

    Examples:
        >>> as_json({"size": (1, 2)})
        {'size': [1, 2]}
    """
    return json.loads(json.dumps(value))


class Output(Protocol):
    """Protocol of the output of a stage: its path and its state."""

    @property
    def path(self) -> epath.Path:
        """Path of the folder or file."""
        ...

    def card(self) -> dict[str, Any] | None:
        """Returns the card of the output, or None if there is no output.

        Raises:
            DamagedError: the output is incomplete, as far as is known without reading all of it.
        """
        ...

    def is_made_from(self, inputs: Mapping[str, Any], card: Mapping[str, Any]) -> bool:
        """Returns whether the output was made from these inputs, by its card."""
        ...

    def check_replaceable(self, run: str) -> None:
        """Refuses an output that this run must not replace.

        Raises:
            InputError: the message names the reason.
        """
        ...


@dataclass(frozen=True)
class Folder:
    """Output that is a folder, whose card has the inputs that it was made from."""

    path: epath.Path
    """Path of the folder."""
    kind: str
    """Kind of its content. Only a folder of this kind is replaced."""

    def card(self) -> dict[str, Any] | None:
        """Returns the card, or None if there is no folder."""
        return folders.read_card(self.path)

    def is_made_from(self, inputs: Mapping[str, Any], card: Mapping[str, Any]) -> bool:
        """Returns whether the card has these inputs."""
        return card.get("made_from") == as_json(inputs)

    def check_replaceable(self, run: str) -> None:
        """Refuses a folder that this run did not write."""
        folders.check_replaceable(self.path, self.kind, run)


@dataclass(frozen=True)
class Page:
    """Output that is a page of HTML, with the fingerprint of its inputs in its text."""

    path: epath.Path
    """Path of the file."""

    def card(self) -> dict[str, Any] | None:
        """Returns the text of a complete page as its card, or None if there is no page."""
        if not is_file(self.path):  # reading a pipe would wait forever
            return None
        text = read_text(self.path)
        if not is_whole(text):
            raise files.DamagedError(f"{self.path} is cut short")
        return {"text": text}

    def is_made_from(self, inputs: Mapping[str, Any], card: Mapping[str, Any]) -> bool:
        """Returns whether the page has the fingerprint of these inputs."""
        return files.fingerprint(dict(inputs)) in card["text"]

    def check_replaceable(self, run: str) -> None:
        """Refuses a file that is no report."""
        files.check_text(self.path, is_report)
