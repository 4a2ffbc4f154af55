"""Finding of the scheme of a bare path, by the names and first bytes of files."""

import glob
import os
import zipfile
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources import files, location, signatures
from jaxcurate.sources.pictures import is_picture
from jaxcurate.sources.walk import SUFFIXES

_BY_SUFFIX = {
    ".npy": "npy",
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".zarr": "zarr",
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".tar.gz": "webdataset",
    ".tgz": "webdataset",
    ".jsonl": "text",
    ".ndjson": "text",
    ".txt": "text",
    ".jsonl.gz": "text",
    ".ndjson.gz": "text",
    ".txt.gz": "text",
}
"""Scheme of a file, by its suffix."""
_ARROW = b"ARROW1"
_N_LOOKED_AT = 10_000
"""Largest number of files that are looked at for a picture below a folder."""


def detect(path: str, schemes: Collection[str] = ()) -> str:
    """Returns the specification of a bare path, which has no scheme.

    A file is known by its first bytes, or else by its suffix, so that a text that is called
    ``x.npy`` is refused as such where it is read. A folder is known by the files that describe a
    dataset (``zarr.json``, ``state.json``, ``features.json`` ...), or else by the files in it:
    only tars, only Parquet files, only arrays, only texts, or pictures at any depth. Texts beside
    pictures are taken for captions.

    Args:
        path: path of a file or folder, or a pattern, on this machine or in a bucket.
        schemes: schemes that are known, for errors.

    Raises:
        InputError: there is no such path, or it is not clear what it is; the message lists the
            specifications to choose from.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.NamedTemporaryFile(suffix=".data") as file:
        ...     np.save(file, np.eye(2))
        ...     file.flush()
        ...     detect(file.name) == f"npy:{file.name}"
        True
    """
    if is_local(path):
        expanded = os.path.expanduser(path)
        if os.path.isdir(expanded):
            return _folder(path, expanded, *_listed_locally(expanded))
        if os.path.lexists(expanded):
            return _file(path, expanded)
        if glob.has_magic(expanded):
            return f"{_scheme_of_name(path)}:{path}"
        raise InputError(
            f"source {path!r} is not one of {listed(schemes)}, and there is no such file or folder"
        )
    system, inner = location.filesystem(path)
    with location.store_errors(path):
        if glob.has_magic(inner):
            return f"{_scheme_of_name(path)}:{path}"
        if system.isfile(inner):
            return f"{_scheme_of_name(path)}:{path}"
        entries = system.ls(inner, detail=True)
    names = [[], []]
    for entry in entries:
        names[entry.get("type") == "directory"].append(PurePosixPath(entry["name"]).name)
    return _folder(path, path.rstrip("/"), *names)


def listed(schemes: Collection[str]) -> str:
    """Returns schemes in one line, for errors.

    Examples:
        >>> listed(["tfds", "npy"])
        'tfds:..., npy:...'
    """
    return ", ".join(f"{scheme}:..." for scheme in schemes)


def _listed_locally(path: str) -> tuple[list[str], list[str]]:
    """Returns the names of the files and of the folders in a folder."""
    names: tuple[list[str], list[str]] = ([], [])
    try:
        with files.scan(path) as entries:
            for entry in entries:
                names[entry.is_dir()].append(entry.name)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({files.reason(error)})") from error
    return names


def _suffix_scheme(name: str) -> str | None:
    name = name.lower()
    return next((scheme for end, scheme in _BY_SUFFIX.items() if name.endswith(end)), None)


def _scheme_of_name(path: str) -> str:
    """Returns the scheme of a file or of a pattern that can be known by the suffix only."""
    scheme = _suffix_scheme(path)
    if scheme is None:
        raise InputError(
            f"the kind of {path} is not known by its suffix: write a scheme before it, such as "
            f"{_choices(sorted(set(_BY_SUFFIX.values())), path)}"
        )
    return scheme


def _choices(schemes: Collection[str], path: str) -> str:
    *others, last = [f"{scheme}:{path}" for scheme in schemes]
    return f"{', '.join(others)} or {last}" if others else last


def _file(path: str, expanded: str) -> str:
    """Returns the specification of a file on this machine."""
    with location.open_file(expanded) as file:
        beginning = file.read(signatures.N_BYTES)
        scheme = _scheme_of_content(beginning)
        if beginning.startswith(b"PK"):
            try:
                with zipfile.ZipFile(file) as archive:
                    is_arrays = any(name.endswith(".npy") for name in archive.namelist())
            except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
                is_arrays = False
            scheme = "npz" if is_arrays else None
    if is_picture(beginning):
        raise InputError(f"{path} is a single picture; a folder of pictures is needed")
    scheme = scheme or _suffix_scheme(path)
    if scheme is None:
        hint = (
            "" if not beginning.startswith(_ARROW) else "; a saved dataset is opened by its folder"
        )
        kind = signatures.file_kind(beginning) or "of an unknown kind"
        raise InputError(
            f"{path} is {kind}, which is not read{hint}; sources are"
            f" {_choices(sorted(set(_BY_SUFFIX.values())), 'PATH')}"
        )
    return f"{scheme}:{path}"


def _scheme_of_content(beginning: bytes) -> str | None:
    if beginning.startswith(b"\x93NUMPY"):
        return "npy"
    if beginning.startswith(b"PAR1"):
        return "parquet"
    if beginning[257:262] == b"ustar":
        return "webdataset"
    length = int.from_bytes(beginning[:8], "little")
    # The header of a .safetensors file is JSON after its length.
    return "safetensors" if beginning[8:10] == b'{"' and 2 <= length <= 100_000_000 else None


def _folder(path: str, full: str, names: list[str], folders: list[str]) -> str:
    """Returns the specification of a folder.

    Args:
        path: path, as it was given.
        full: path that can be opened.
        names: names of the files in the folder.
        folders: names of the folders in it.
    """
    known = set(names)
    found = _described(known)
    if found is None:
        versions = [name for name in sorted(folders) if _is_version(f"{full}/{name}")]
        if len(versions) == 1:
            return f"tfds:{path.rstrip('/')}/{versions[0]}"
        if versions:
            choices = _choices(["tfds"], path.rstrip("/"))
            raise InputError(
                f"{path} holds several versions of a dataset, {', '.join(versions)}: name one, as"
                f" in {choices}/{versions[-1]}"
            )
    if found is not None:
        return f"{found}:{path}"
    visible = [name for name in names if not name.startswith(".")]
    schemes = {scheme for name in visible if (scheme := _suffix_scheme(name)) is not None}
    texts, schemes = schemes & {"text"}, schemes - {"text", "zarr"}
    arrays = [name for name in folders if name.lower().endswith(".zarr")]
    if not schemes and arrays:
        inside = f"{path.rstrip('/')}/{sorted(arrays)[0]}"
        raise InputError(
            f"{path} holds Zarr arrays in folders of their own: name one: zarr:{inside}"
        )
    pictures = _holds_pictures(full, visible)
    if pictures:
        schemes |= {"folder"}
    if len(schemes) > 1:
        raise InputError(
            f"{path} holds files of several kinds: write the scheme before it, one of"
            f" {_choices(sorted(schemes), path)}"
        )
    if not schemes and texts:
        schemes = texts
    if not schemes and (deeper := _first_below(full)) is not None:
        name, scheme = deeper
        raise InputError(
            f"{path} holds no items itself, but {name} does:"
            f" write {scheme}:{path.rstrip('/')}/{name}"
        )
    return f"{schemes.pop() if schemes else 'folder'}:{path}"


def _described(names: set[str]) -> str | None:
    """Returns the scheme of a folder with files that describe it."""
    if names & {"zarr.json", ".zarray", ".zgroup"}:
        return "zarr"
    if "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= names:
        return "huggingface"
    return "tfds" if {"features.json", "dataset_info.json"} <= names else None


def _is_version(folder: str) -> bool:
    if not is_local(folder):
        return False
    return all(os.path.isfile(f"{folder}/{n}") for n in ("features.json", "dataset_info.json"))


def _holds_pictures(full: str, names: list[str]) -> bool:
    """Returns whether a folder holds pictures, at any depth if it is on this machine."""
    if any(PurePosixPath(name).suffix.lower() in SUFFIXES for name in names):
        return True
    if not is_local(full):
        return False
    for name in _walked(full):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in SUFFIXES or (not suffix and _begins_like_a_picture(name)):
            return True
    return False


def _begins_like_a_picture(path: str) -> bool:
    try:
        with files.open_regular(path) as file:
            return is_picture(file.read(16))
    except (OSError, InputError):
        return False


def _walked(full: str) -> Iterator[str]:
    """Yields the paths of the first files below a folder, without hidden files."""
    seen = 0
    for folder, folders, names in os.walk(full):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            seen += 1
            if seen > _N_LOOKED_AT:
                return
            if not name.startswith("."):
                yield os.path.join(folder, name)


def _first_below(full: str) -> tuple[str, str] | None:
    """Returns the first folder below with files of a known kind, and their scheme."""
    if not is_local(full):
        return None
    for path in _walked(full):
        scheme = _suffix_scheme(path)
        below = os.path.relpath(os.path.dirname(path), full)
        if scheme is not None and below != ".":
            return below, scheme
    return None
