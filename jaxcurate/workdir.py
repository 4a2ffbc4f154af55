"""Durable folders: they appear whole or not at all, with a checksum for every file."""

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.checks import InputError

_BLOCK_BYTES = 2**24

CARD = "card.json"
"""The file that makes a folder whole: written last, it names all others."""
_CHECKSUM = "checksum"
"""The card's entry for itself: the fingerprint of all that it tells besides."""


class DamagedError(InputError):
    """A file is missing, truncated or altered; the message names it."""


@contextmanager
def new_folder(path: epath.PathLike, about: Mapping[str, Any]) -> Iterator[epath.Path]:
    """A folder to write into, which takes the place of ``path`` once it is whole.

    On leaving the block every file gets its size and SHA-256 into ``card.json`` beside ``about``.
    Where the block raises, or the process dies, ``path`` is what it was.

    Args:
        path: where the folder will stand; what stands there is replaced.
        about: what the folder was made from, and anything else for its card. It is read on
            leaving the block, which may add to it what it has found.

    Yields:
        An empty folder beside ``path``.
    """
    path = epath.Path(path)
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}.*-*"):  # of a process that was killed
        stale.rmtree()
    unique = uuid.uuid4().hex[:8]
    fresh = path.parent / f".{path.name}.new-{unique}"
    fresh.mkdir()
    try:
        yield fresh
        files = {
            str(f.relative_to(fresh)): {"bytes": f.stat().length, "sha256": sha256(f)}
            for f in _files(fresh)
        }
        card = json.loads(json.dumps({**about, "files": files}))  # as it will be read
        card[_CHECKSUM] = fingerprint(card)
        (fresh / CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
        if path.exists():
            old = path.parent / f".{path.name}.old-{unique}"
            path.rename(old)
            fresh.rename(path)
            old.rmtree()
        else:
            fresh.rename(path)
    except BaseException:
        fresh.rmtree(missing_ok=True)
        for parent in made:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes one file so that it appears whole or not at all."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.parent / f".{path.name}.new-{uuid.uuid4().hex[:8]}"
    fresh.write_text(text)
    fresh.replace(path)


def read_card(path: epath.PathLike) -> dict[str, Any] | None:
    """The card of a whole folder; None where there is none.

    Raises:
        DamagedError: the card cannot be read or was altered, or a file that it names is missing
            or has another size. (Contents are checked by :func:`check_files`.)
    """
    path = epath.Path(path)
    if not (path / CARD).exists():
        return None
    try:
        card = json.loads((path / CARD).read_text())
        checksum = card.pop(_CHECKSUM, None)  # older cards have none
        sizes = {name: entry["bytes"] for name, entry in card["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path / CARD} is damaged ({error})") from error
    if checksum not in (None, fingerprint(card)):
        raise DamagedError(f"{path / CARD} is damaged: it is not what its checksum tells")
    for name, size in sizes.items():
        file = path / name
        if not file.exists():
            raise DamagedError(f"{file} is missing")
        if file.stat().length != size:
            raise DamagedError(f"{file} is damaged: {file.stat().length} bytes, not {size}")
    return card


def check_sizes(path: epath.PathLike) -> dict[str, Any]:
    """The card of a folder that has to be there, with all its files of the right size.

    Raises:
        DamagedError: naming the file that is missing or has another size.
    """
    card = read_card(path)
    if card is None:
        raise DamagedError(f"{epath.Path(path) / CARD} is missing: the folder was never completed")
    return card


def check_files(path: epath.PathLike) -> dict[str, Any]:
    """Reads every file of a folder and holds it against its checksum; returns the card.

    Raises:
        DamagedError: naming the file that is missing, truncated or altered.
    """
    path, card = epath.Path(path), check_sizes(path)
    for name, entry in card["files"].items():
        if sha256(path / name) != entry["sha256"]:
            raise DamagedError(
                f"{path / name} is damaged: its checksum is not {CARD}'s; remove the folder"
            )
    return card


def save_array(path: epath.Path, array: np.ndarray) -> None:
    """Writes a ``.npy`` file, never a pickle."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def load_array(path: epath.Path, *, mmap: bool = False) -> np.ndarray:
    """Reads a ``.npy`` file, never a pickle.

    Args:
        path: the file.
        mmap: read lazily; a file that is not local from a temporary copy.

    Raises:
        DamagedError: the file is not a whole ``.npy`` file.
    """
    try:
        if mmap and is_local(path):
            return np.load(os.fspath(path), mmap_mode="r", allow_pickle=False)
        with path.open("rb") as file:
            if not mmap:
                return np.load(file, allow_pickle=False)
            with tempfile.NamedTemporaryFile() as copy:  # the map outlives its name
                shutil.copyfileobj(file, copy, _BLOCK_BYTES)
                copy.flush()
                return np.load(copy.name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DamagedError(f"{path} is damaged ({error})") from error


def sha256(path: epath.Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ArrayDigest:
    """The SHA-256 of an array that comes block by block: of its contents, then type and shape.

    In this order, since how many rows there are may be known at the end only.
    """

    def __init__(self) -> None:
        self._sha256, self._n, self._rows = hashlib.sha256(), 0, ("", ())

    def update(self, rows: np.ndarray) -> None:
        """Takes further rows ``[b, ...]``, of the type and shape of those before."""
        self._sha256.update(np.ascontiguousarray(rows).view(np.uint8).data)
        self._n += len(rows)
        self._rows = rows.dtype.str, rows.shape[1:]

    def __len__(self) -> int:
        """How many rows there were."""
        return self._n

    def hexdigest(self) -> str:
        """Of all rows so far."""
        dtype, shape = self._rows
        whole = self._sha256.copy()
        whole.update(f"{dtype}{(self._n, *shape)}".encode())
        return whole.hexdigest()


def array_digest(array: np.ndarray) -> str:
    """The SHA-256 of an array's contents, type and shape, in hexadecimal."""
    digest = ArrayDigest()
    for part in blocks(array):
        digest.update(array[part])
    return digest.hexdigest()


def blocks(array: np.ndarray) -> Iterator[slice]:
    """Some megabytes of rows at a time: at least one slice, be it of nothing."""
    rows = max(1, _BLOCK_BYTES * len(array) // max(1, array.nbytes))
    for begin in range(0, max(1, len(array)), rows):
        yield slice(begin, begin + rows)


def is_local(path: epath.PathLike) -> bool:
    """Whether a path is one of this machine's, and not such as ``gs://bucket``."""
    return "://" not in os.fspath(path)


def fingerprint(value: Any) -> str:
    """Sixteen hexadecimal digits that change when the JSON form of ``value`` does."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            yield from _files(entry)
        else:
            yield entry
