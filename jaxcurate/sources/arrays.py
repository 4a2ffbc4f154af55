"""Sources of the rows of arrays, such as embeddings that were made elsewhere."""

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast

import numpy as np

from jaxcurate.artifacts.local import is_local
from jaxcurate.artifacts.pool import NARROW, row_ids
from jaxcurate.checks import InputError, is_real
from jaxcurate.sources import location
from jaxcurate.sources.base import Annotations, Item, Kind, Options, Source, without_splits
from jaxcurate.sources.layout import Layout, load, npy_layout
from jaxcurate.sources.row_names import RowNames, names_from_files

_BLOCK_BYTES = 1 << 24
_NEAR_BYTES = 1 << 16
"""Largest gap between rows of a bucket that are read by one request."""


class Rows(Protocol):
    """Protocol of an array ``[n, d]`` of which some rows are read."""

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers, as they are stored."""
        ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows ``[b, d]`` in their order; ``rows`` is int64 ``[b]`` with ``b > 0``."""
        ...


class LoadedRows:
    """Rows of an array in memory or of a memory map.

    Args:
        array: real numbers ``[n, d]``.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape: tuple[int, int] = array.shape
        self.dtype = array.dtype

    def read(self, rows: np.ndarray) -> np.ndarray:
        first, n = int(rows[0]), len(rows)
        in_a_run = np.array_equal(rows, np.arange(first, first + n))
        return self.array[first : first + n] if in_a_run else self.array[rows]


class RowsInBucket:
    """Rows of an array in a file of a bucket, of which no other part is read.

    Args:
        layout: layout of the array, stored row by row.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._system, self._path = location.filesystem(layout.path)
        self.shape: tuple[int, int] = (layout.shape[0], layout.shape[1])
        self.dtype = layout.dtype

    def read(self, rows: np.ndarray) -> np.ndarray:
        wanted, places = np.unique(rows, return_inverse=True)
        width = self.shape[1] * self.dtype.itemsize
        far = np.flatnonzero((np.diff(wanted) - 1) * width > _NEAR_BYTES) + 1
        runs = np.split(wanted, far)
        starts = [self._layout.offset + int(run[0]) * width for run in runs]
        ends = [self._layout.offset + (int(run[-1]) + 1) * width for run in runs]
        with location.store_errors(self._layout.path):
            parts = self._system.cat_ranges([self._path] * len(runs), starts, ends)
        block = np.empty((len(wanted), self.shape[1]), self.dtype)
        done = 0
        for part, run, start, end in zip(parts, runs, starts, ends, strict=True):
            if isinstance(part, Exception) or len(part) != end - start:
                reason = part if isinstance(part, Exception) else "it became shorter"
                raise InputError(f"{self._layout.path} cannot be read ({reason})")
            read = np.frombuffer(part, self.dtype).reshape(-1, self.shape[1])
            block[done : done + len(run)] = read[run - run[0]]
            done += len(run)
        return block[places]


class RowsSource:
    """Source of the rows of one or several arrays, one array after another.

    The id of an item is the number of its row, counted over all arrays, unless ids are given.

    Args:
        name: name of the source.
        parts: arrays of one width and of one type after `narrow`.
        part_names: name of each array, for errors.
        row_names: ids, labels and domains of the rows.
        fingerprint: returns the fingerprint of the arrays.

    Raises:
        InputError: the arrays do not fit together, or have as many rows as there are names.

    Examples:
        >>> parts = [LoadedRows(np.eye(2)), LoadedRows(np.zeros((1, 2)))]
        >>> source = RowsSource("two", parts, ["a", "b"], RowNames(), lambda: "")
        >>> source.read_block(np.array([1, 2]))[1].tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """

    kind: Kind = "vector"

    def __init__(
        self,
        name: str,
        parts: Sequence[Rows],
        part_names: Sequence[str],
        row_names: RowNames,
        fingerprint: Callable[[], str],
    ) -> None:
        self.name = name
        self._parts = parts
        self._row_names = row_names
        self._fingerprint = fingerprint
        self.width = parts[0].shape[1]
        """Number of columns of the rows."""
        self.dtype = narrow(parts[0].dtype)
        """Type of the rows that are read."""
        for part, part_name in zip(parts, part_names, strict=True):
            if part.shape[1] != self.width:
                raise InputError(
                    f"{part_name} has rows of {part.shape[1]} numbers, and {part_names[0]} of "
                    f"{self.width}"
                )
            if narrow(part.dtype) != self.dtype:
                raise InputError(
                    f"{part_name} holds {part.dtype.name}, and {part_names[0]} holds "
                    f"{parts[0].dtype.name}"
                )
        self._ends = np.cumsum([part.shape[0] for part in parts])
        row_names.check(len(self), name)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the rows and their names."""
        return self._fingerprint()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def ids(self) -> Iterator[str]:
        """Ids of all rows, for which no row is read."""
        given = self._row_names.ids
        return map(str, range(len(self)) if given is None else given)

    def read(self, row: int) -> Item:
        ids, rows = self.read_block(np.array([row]))
        return Item(str(ids[0]), rows[0])

    def read_block(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.asarray(rows, np.int64)
        places = np.searchsorted(self._ends, rows, side="right")
        if (places == places[0]).all():
            block = self._read(int(places[0]), rows)
        else:
            block = np.empty((len(rows), self.width), self.dtype)
            for place in np.unique(places):
                chosen = places == place
                block[chosen] = self._read(int(place), rows[chosen])
        given = self._row_names.ids
        return row_ids(rows) if given is None else given[rows], block

    def _read(self, place: int, rows: np.ndarray) -> np.ndarray:
        part = self._parts[place]
        return as_stored(part.read(rows - (self._ends[place] - part.shape[0])))

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        rows = np.asarray(rows, np.int64)
        unknown = np.full(len(rows), "", np.str_)
        labels, domains = self._row_names.labels, self._row_names.domains
        return Annotations(
            unknown if labels is None else labels[rows],
            unknown if domains is None else domains[rows],
        )


class ArraySource(RowsSource):
    """Source of the rows of a 2-D ``.npy`` file of real numbers, which are read when needed.

    The id of an item is the number of its row, unless ids are given. The fingerprint is that of
    the content, so that a copy of the file has the same.

    Args:
        path: path of a file on this machine.
        row_names: ids, labels and domains of the rows.

    Attributes:
        array: content of the file, a memory map ``[n, d]`` of the dtype of the file.

    Raises:
        InputError: the file cannot be used; the message names the file and the reason.

    Examples:
        >>> import tempfile
        >>> from jaxcurate.sources import ArraySource
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/x.npy", np.eye(3))
        ...     source = ArraySource(f"{folder}/x.npy")
        ...     len(source), source.read(1).content
        (3, array([0., 1., 0.], dtype=float32))
    """

    def __init__(self, path: str | os.PathLike, row_names: RowNames | None = None) -> None:
        path = os.fspath(path)
        layout = npy_layout(path)
        check_rows(layout.shape, layout.dtype, path)
        self.array = load(layout)
        row_names = row_names or RowNames()
        super().__init__(
            f"npy:{path}", [LoadedRows(self.array)], [path], row_names, self._hash_of_content
        )

    def _hash_of_content(self) -> str:
        """Returns the SHA-256 of the content, type and shape, and of the names of the rows."""
        digest = hashlib.sha256(f"{self.array.dtype.str}{self.array.shape}".encode())
        step = max(1, _BLOCK_BYTES // (self.array.shape[1] * self.array.itemsize))
        for start in range(0, len(self.array), step):
            block = np.ascontiguousarray(self.array[start : start + step])
            digest.update(block.view(np.uint8).data)
        for names in self._row_names:
            if names is not None:
                digest.update("\0".join([str(len(names)), *names]).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def open_rows(path: str, options: Options) -> Source:
    """Opens ``npy:PATH``, of a file, a pattern, or a folder of ``.npy`` files.

    The files follow each other in the natural order of their names: ``x2.npy`` comes before
    ``x10.npy``, as ``x02.npy`` does. float16, bfloat16 and int8 stay as they are stored, and other
    numbers become float32. An array of two bytes of no type (``V2``) is read as bfloat16, since
    NumPy writes bfloat16 so.

    Args:
        path: path, which may begin with ``~`` or with the protocol of a bucket.
        options: options of the source. `id_key`, `label_key` and `domain_key` are paths of files
            with a name for each row.
    """
    spec = f"npy:{path}"
    without_splits(spec, options)
    paths = natural(location.expanded(path, (".npy",), "arrays"))
    names, files = names_from_files(options)
    if len(paths) == 1 and is_local(paths[0]):
        return cast(Source, ArraySource(paths[0], names))
    layouts = [npy_layout(path) for path in paths]
    return source_of(spec, layouts, names, options, files)


def source_of(
    spec: str,
    layouts: Sequence[Layout],
    row_names: RowNames,
    options: Options,
    more_files: Sequence[str] = (),
    about: Sequence[str] = (),
) -> Source:
    """Returns the source of the rows of arrays in files.

    Args:
        spec: specification of the source.
        layouts: layouts of the arrays, in their order.
        row_names: ids, labels and domains of the rows.
        options: options of the source.
        more_files: further files that the fingerprint depends on.
        about: further parts of the fingerprint, such as the name of an array.

    Raises:
        InputError: an array is not ``[n, d]`` of numbers, or the arrays do not fit together.
    """
    for layout in layouts:
        check_rows(layout.shape, layout.dtype, layout.path)
    paths = [layout.path for layout in layouts]

    def fingerprint() -> str:
        scheme = spec.partition(":")[0]
        return location.fingerprint_of([*paths, *more_files], options.verify, [scheme, *about])

    parts = [_rows_of(layout) for layout in layouts]
    return cast(Source, RowsSource(spec, parts, paths, row_names, fingerprint))


def _rows_of(layout: Layout) -> Rows:
    """Returns the rows of an array in a file, which are read when needed, if that is possible."""
    if is_local(layout.path) or layout.member is not None:
        return LoadedRows(load(layout))
    if layout.by_columns:
        raise InputError(
            f"{layout.path} is stored column by column, which is read on this machine only: "
            "np.ascontiguousarray gives the array to save"
        )
    return RowsInBucket(layout)


def check_rows(shape: tuple[int, ...], dtype: np.dtype, name: str) -> None:
    """Refuses an array that does not hold rows of real numbers.

    Raises:
        InputError: the message names the array.

    Examples:
        >>> check_rows((3,), np.dtype("float32"), "x.npy")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: x.npy must be [n, d] with n, d > 0, not [3]
    """
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"{name} must be [n, d] with n, d > 0, not {list(shape)}")
    if not is_real(dtype):
        raise InputError(f"{name} must hold real numbers, not {dtype}")


def natural(paths: Sequence[str]) -> list[str]:
    """Sorts paths such that numbers in them are in their order, zero-padded or not.

    Examples:
        >>> natural(["x10.npy", "x9.npy", "x08.npy"])
        ['x08.npy', 'x9.npy', 'x10.npy']
    """
    # [0-9], because int() does not take all that \d finds.
    return sorted(paths, key=lambda path: (_numbered(path), path))


def _numbered(path: str) -> list[str | tuple[int, str]]:
    parts = re.split("([0-9]+)", path)
    # Numbers are compared by length and then digit by digit, however long they are.
    pairs = [(len(part.lstrip("0")), part.lstrip("0")) for part in parts]
    return [pairs[i] if i % 2 else part for i, part in enumerate(parts)]


def narrow(dtype: np.dtype) -> np.dtype:
    """Returns the type in which rows of numbers are kept: their own if it is narrow, else float32.

    Examples:
        >>> narrow(np.dtype("float16")), narrow(np.dtype("float64"))
        (dtype('float16'), dtype('float32'))
    """
    return dtype.newbyteorder("=") if dtype.name in NARROW else np.dtype(np.float32)


def as_stored(rows: np.ndarray) -> np.ndarray:
    """Returns a copy of rows in the type in which they are kept.

    A number beyond float32 becomes infinite, so that readers skip it.

    Examples:
        >>> as_stored(np.array([1, 2], np.int64)).dtype
        dtype('float32')
    """
    with np.errstate(over="ignore"):
        return np.array(rows, narrow(rows.dtype))
