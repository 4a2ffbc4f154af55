"""Source of the rows of a Zarr array, read by TensorStore."""

import json
import os
from typing import Any, cast

import numpy as np

from jaxcurate.artifacts.files import fingerprint
from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources import location
from jaxcurate.sources.archives import with_key
from jaxcurate.sources.arrays import RowsSource, check_rows
from jaxcurate.sources.base import Options, Source, without_splits
from jaxcurate.sources.row_names import names_from_files

_CACHE_BYTES = 2**26
"""Size of the chunks that stay in memory, since a batch of rows may end within a chunk."""
_ARRAY_FILES = {"zarr.json": "zarr3", ".zarray": "zarr"}
"""Drivers of TensorStore, by the file that describes an array of the version."""


class ZarrRows:
    """Rows of a Zarr array.

    Args:
        store: array of TensorStore, ``[n, d]``.
        name: name of the array, for errors.
    """

    def __init__(self, store: Any, name: str) -> None:
        self._store, self._name = store, name
        self.shape: tuple[int, int] = tuple(store.shape)
        self.dtype: np.dtype = store.dtype.numpy_dtype

    def read(self, rows: np.ndarray) -> np.ndarray:
        first, n = int(rows[0]), len(rows)
        in_a_run = np.array_equal(rows, np.arange(first, first + n))
        chosen = self._store[first : first + n] if in_a_run else self._store[rows]
        try:
            return np.asarray(chosen.read().result())
        except Exception as error:  # a damaged chunk may raise nearly any type
            raise InputError(f"{self._name} cannot be read ({_line(error)})") from error


def open_zarr(place: str, options: Options) -> Source:
    """Opens ``zarr:PATH[:KEY]``, of an array of version 2 or 3, or of an array in a group.

    A chunk that is missing is refused, although Zarr would fill it: an interrupted copy looks
    the same.

    Args:
        place: path on this machine, or in a bucket that TensorStore reads (``gs://``, ``s3://``,
            ``http://``), and possibly the name of an array in a group.
        options: options of the source. `content_key` is another way to give the name. `id_key`,
            `label_key` and `domain_key` are paths of files with a name for each row.

    Raises:
        InputError: the array cannot be used, or TensorStore is not installed.
    """
    spec = f"zarr:{place}"
    without_splits(spec, options)
    path, key = with_key(place, options.content_key)
    path = (os.path.expanduser(path) if is_local(path) else path).rstrip("/") or "/"
    if key is not None:
        if is_local(path) and ".." in key.split("/"):
            raise InputError(f"{spec}: the name of the array must not hold '..'")
        path = f"{path}/{key}"
    driver, described = _described(path, spec)
    rows = ZarrRows(_opened(driver, path), path)
    check_rows(rows.shape, rows.dtype, path)
    row_names, files = names_from_files(options)

    def of_files() -> str:
        stamps = _stamps(path, options.verify)
        return fingerprint(
            ["zarr", described, stamps, location.fingerprint_of(files, options.verify, [])]
        )

    return cast(Source, RowsSource(spec, [rows], [path], row_names, of_files))


def _described(path: str, spec: str) -> tuple[str, str]:
    """Returns the driver of an array, and the text that describes the array.

    Raises:
        InputError: there is no array, or a group that may hold arrays.
    """
    for name, driver in _ARRAY_FILES.items():
        if _is_file(f"{path}/{name}"):
            with location.open_file(f"{path}/{name}") as file:
                text = file.read().decode("utf-8", "replace")
            if driver == "zarr3" and _node_type(text) == "group":
                break
            return driver, text
    names = _arrays_below(path)
    if names:
        raise InputError(
            f"{path} is a group of arrays, {', '.join(map(repr, names))}: name one, as in "
            f"{spec}:{names[0]}"
        )
    raise InputError(f"{path} is not a Zarr array: it has neither zarr.json nor .zarray")


def _node_type(text: str) -> str:
    try:
        return json.loads(text).get("node_type", "")
    except (ValueError, AttributeError, RecursionError):  # TensorStore tells what is wrong
        return ""


def _arrays_below(path: str) -> list[str]:
    """Returns the names of the arrays in a group on this machine."""
    if not is_local(path) or not os.path.isdir(path):
        return []
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    return [
        name for name in names if any(_is_file(f"{path}/{name}/{file}") for file in _ARRAY_FILES)
    ]


def _is_file(path: str) -> bool:
    if is_local(path):
        return os.path.lexists(path)
    system, inner = location.filesystem(path)
    with location.store_errors(path):
        return system.isfile(inner)


def _opened(driver: str, path: str) -> Any:
    try:
        import tensorstore
    except ImportError as error:
        raise InputError(
            f"zarr: sources need TensorStore ({error}): pip install tensorstore"
        ) from error
    store = (
        {"driver": "file", "path": f"{os.path.abspath(path)}/"} if is_local(path) else f"{path}/"
    )
    description = {"driver": driver, "kvstore": store, "fill_missing_data_reads": False}
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})
    try:
        return tensorstore.open(description, read=True, context=context).result()
    except Exception as error:  # TensorStore raises several types on damaged metadata
        raise InputError(f"{path} cannot be opened ({_line(error)})") from error


def _stamps(path: str, verify: str) -> list[list[str]]:
    """Returns the name, size and version of each file, or the hash of its content."""
    if is_local(path):
        found = sorted(
            os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
        )
        stamps = {file: location.stamp(file) for file in found}
    else:
        system, inner = location.filesystem(path)
        with location.store_errors(path):
            listed = system.find(inner, detail=True)
        stamps = {
            system.unstrip_protocol(file): location.stamp_of(info)
            for file, info in sorted(listed.items())
        }
    return [
        [
            file.removeprefix(path),
            str(stamp.n_bytes),
            location.content_hash(file) if verify == "content" else stamp.version,
        ]
        for file, stamp in stamps.items()
    ]


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
