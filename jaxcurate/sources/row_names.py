"""Ids, labels and domains of rows of numbers, given as arrays or files with one name for each."""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources import location
from jaxcurate.sources.base import Options
from jaxcurate.sources.layout import load, npy_layout
from jaxcurate.sources.names import printable


class RowNames(NamedTuple):
    """Names of rows, of which each may be missing."""

    ids: np.ndarray | None = None
    """Unicode ``[n]``, distinct."""
    labels: np.ndarray | None = None
    """Unicode ``[n]``."""
    domains: np.ndarray | None = None
    """Unicode ``[n]``."""

    def check(self, n: int, name: str) -> None:
        """Refuses names that are not one for each row, and ids that are not distinct.

        Raises:
            InputError: the message names the source.
        """
        for what, given in self._asdict().items():
            if given is not None and len(given) != n:
                raise InputError(f"{name} has {n} rows, but {len(given)} {what}")
        if self.ids is not None:
            ordered = np.sort(self.ids)
            twice = np.flatnonzero(ordered[1:] == ordered[:-1])
            if len(twice):
                raise InputError(f"{name} has the id {str(ordered[twice[0]])!r} more than once")
            if not ordered[0]:
                raise InputError(f"{name} has an empty id")


def gathered(options: Options, read: Callable[[str], np.ndarray]) -> RowNames:
    """Returns the names of rows that the keys of a source ask for.

    Args:
        options: options of the source.
        read: returns the names, unicode ``[n]``, of a key.

    Examples:
        >>> gathered(Options(id_key="key"), lambda name: np.array(["a", "b"])).ids
        array(['a', 'b'], dtype='<U1')
    """
    keys = (options.id_key, options.label_key, options.domain_key)
    return RowNames(*(None if key is None else read(key) for key in keys))


def names_from_files(options: Options) -> tuple[RowNames, list[str]]:
    """Returns the names of rows from the files that the keys of a source name, and their paths.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as file:
        ...     n = file.write("a\\nb\\n")
        ...     file.flush()
        ...     names_from_files(Options(id_key=file.name))[0].ids
        array(['a', 'b'], dtype='<U1')
    """
    paths: list[str] = []

    def read(path: str) -> np.ndarray:
        paths.append(os.path.expanduser(path) if is_local(path) else path)
        if is_local(path) and not os.path.lexists(paths[-1]):
            raise InputError(
                f"{path}: there is no such file; keys of arrays are paths of files that hold the "
                "ids, labels or domains of the rows"
            )
        return names_in_file(paths[-1])

    return gathered(options, read), paths


def names_in_file(path: str) -> np.ndarray:
    """Returns the names in a file: a ``.npy`` file ``[n]``, or text with one name on each line.

    Args:
        path: path of the file, on this machine or in a bucket.

    Returns:
        Unicode ``[n]``.

    Raises:
        InputError: the file is neither.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        ...     np.save(file, [7, 8])
        ...     file.flush()
        ...     names_in_file(file.name)
        array(['7', '8'], dtype='<U1')
    """
    with location.open_file(path) as file:
        is_array = file.read(6) == np.lib.format.MAGIC_PREFIX
    if is_array:
        return as_names(load(npy_layout(path)), path)
    with location.open_file(path) as file:
        try:
            lines = file.read().decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is neither a .npy file nor text in UTF-8") from error
    lines = lines[:-1] if not lines[-1] else lines
    return as_names(np.array([line.removesuffix("\r") for line in lines], np.str_), path)


def as_names(array: np.ndarray, name: str) -> np.ndarray:
    """Returns an array of strings, bytes or whole numbers as names.

    Args:
        array: array ``[n]``.
        name: name of the array, for errors.

    Raises:
        InputError: the array has another type or shape.

    Examples:
        >>> as_names(np.array([b"a", b"b"]), "ids")
        array(['a', 'b'], dtype='<U1')
        >>> as_names(np.eye(2), "ids")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: ids must be strings or whole numbers [n], not float64 [2, 2]
    """
    if array.ndim != 1 or array.dtype.kind not in "USiu" or not len(array):
        raise InputError(
            f"{name} must be strings or whole numbers [n], not {array.dtype} {list(array.shape)}"
        )
    if array.dtype.kind == "S":
        return np.array([printable(value) for value in array.tolist()], np.str_)
    if array.dtype.kind == "U":
        return np.array(array)
    longest = max(len(str(array.min())), len(str(array.max())))
    return np.array(array.astype(f"<U{longest}"))
