"""Folder that is being written, whose card lists all its files."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.artifacts.files import DamagedError, NewFile, fingerprint, save_array, sha256
from jaxcurate.artifacts.local import is_local, write_errors

CARD = "card.json"
"""Name of the file that is written last to a folder and lists all its other files."""
CHECKSUM = "checksum"
"""Entry of a card with the fingerprint of its other entries."""
WRITER = "jaxcurate"


class NewFolder:
    """Folder that is being written, with the sizes and hashes of its files for its card.

    Args:
        path: the empty folder.
        kind: kind of its content, such as ``"pool"``.
    """

    def __init__(self, path: epath.Path, kind: str) -> None:
        self.path = path
        self.kind = kind
        self.files: dict[str, dict[str, Any]] = {}
        """Size and SHA-256 of every file, by its name, as in the card."""

    @contextmanager
    def create(self, name: str) -> Iterator[NewFile]:
        """Opens a new file of the folder, such as ``"a.npy"`` or ``"below/b.png"``."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with NewFile(path) as file:
            yield file
        self.files[name] = {"bytes": file.n_bytes, "sha256": file.sha256()}

    def save_array(self, name: str, array: np.ndarray) -> None:
        """Writes an array as ``.npy``, never as a pickle."""
        with self.create(name) as file:
            save_array(file, array)

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file in UTF-8."""
        with self.create(name) as file:
            file.write(text.encode())

    def adopt(
        self,
        file: epath.PathLike,
        name: str | None = None,
        entry: dict[str, Any] | None = None,
        *,
        keep: bool = False,
    ) -> None:
        """Moves a finished file of the same file system into the folder, unless it is there.

        Args:
            file: path of the file.
            name: new name, such as ``"below/b.png"``. By default the name of the file.
            entry: size and hash of the file, if they are known.
            keep: leave the file at its old place as well, as a hard link that takes no space, so
                that a kill loses nothing. A file system without such links moves the file.
        """
        file = epath.Path(file)
        name = file.name if name is None else name
        self.files[name] = entry or {"bytes": file.stat().length, "sha256": sha256(file)}
        if file != self.path / name:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            if keep and is_local(file):
                with contextlib.suppress(OSError):
                    os.link(file, self.path / name)
                    return
            file.rename(self.path / name)

    def link(self, name: str, target: str) -> None:
        """Makes a symbolic link to a file. The card has the hash of its target's path.

        Raises:
            InputError: the file system has no links.
        """
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_errors(path):
            os.symlink(target, path)
        n_bytes = len(os.fsencode(target))
        self.files[name] = {"bytes": n_bytes, "sha256": target_sha256(path), "link": True}

    @contextmanager
    def subfolder(self, name: str, about: Mapping[str, Any], kind: str) -> Iterator["NewFolder"]:
        """Yields a subfolder, which gets its own card at the end of the block."""
        below = NewFolder(self.path / name, kind)
        below.path.mkdir(parents=True)
        yield below
        below.finish(about)
        self.files |= {f"{name}/{file}": entry for file, entry in below.files.items()}

    def finish(self, about: Mapping[str, Any]) -> None:
        """Writes the card, after a check that the folder has the files that were written.

        Raises:
            DamagedError: a file is missing or was added, or its size has changed.
        """
        there = sizes_in(self.path)
        written = {name: entry["bytes"] for name, entry in self.files.items()}
        if there != written:
            name = min(set(there.items()) ^ set(written.items()))[0]
            raise DamagedError(
                f"{self.path / name} was changed by another program while it was written: "
                f"{written.get(name, 'no')} bytes were written, {there.get(name, 'none')} are there"
            )
        card = {**about, "kind": self.kind, "written_by": WRITER, "files": dict(self.files)}
        card = json.loads(json.dumps(card))  # equal to the card that will be read
        card[CHECKSUM] = fingerprint(card)
        self.write_text(CARD, json.dumps(card, indent=2, sort_keys=True) + "\n")


def sizes_in(folder: epath.Path) -> dict[str, int]:
    """Returns the size of each file (or link) below a folder, by its relative path.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     (epath.Path(work) / "a.txt").write_text("hello")
        ...     sizes_in(epath.Path(work))
        5
        {'a.txt': 5}
    """
    sizes: dict[str, int] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        if not is_local(folder):
            for entry in (folder / prefix).iterdir():
                if entry.is_dir():
                    pending.append(f"{prefix}{entry.name}/")
                else:
                    sizes[f"{prefix}{entry.name}"] = entry.stat().length
            continue
        with os.scandir(folder / prefix) as entries:  # epath would take two calls for each file
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{prefix}{entry.name}/")
                else:
                    sizes[f"{prefix}{entry.name}"] = entry.stat(follow_symlinks=False).st_size
    return sizes


def target_sha256(path: epath.Path) -> str:
    target = os.readlink(path) if os.path.islink(path) else ""
    return hashlib.sha256(os.fsencode(target)).hexdigest()
