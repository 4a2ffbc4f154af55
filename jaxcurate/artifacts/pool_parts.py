"""A pool made of parts that were written one by one, perhaps by several processes."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.lazy_rows import PART_BYTES, JoinedRows, RowsInFile
from jaxcurate.artifacts.pool import Pool, stored_blocks
from jaxcurate.artifacts.pool_files import (
    COLUMNS,
    EMBEDDINGS,
    IDS,
    ITEMS,
    KIND,
    Block,
    Filled,
    about_parts,
    check_ids_of,
    fill_pool,
    listed_part,
    numbered,
    part_name,
    pool_fingerprint,
    trimmed,
)
from jaxcurate.checks import InputError
from jaxcurate.stateless_random import hashed


def join_pool(
    path: epath.PathLike,
    parts: Sequence[epath.PathLike],
    about: Callable[[], Mapping[str, Any]],
    run: str | None = None,
    *,
    part_bytes: int = PART_BYTES,
    number_repeats: bool = False,
    also: Callable[[folders.NewFolder], None] | None = None,
) -> Pool:
    """Makes a pool out of finished parts, in order, which appears whole or not at all.

    The embeddings are neither read nor copied: their files become those of the pool, under a
    second name until the parts are removed. Only if all rows together fit into one part, they are
    copied into a pool that is not in parts, which is the same for any number of parts.

    Args:
        path: path of the folder.
        parts: folders on the same file system with the files of :func:`fill_pool` and a card with
            the entries of :meth:`Filled.about_part`. A part without rows, ``n=0``, is passed over.
        about: called after all checks. Its result joins the card.
        run: id of the run that writes. A folder of another run is not replaced.
        part_bytes: largest size of the embeddings of a pool that is not in parts.
        number_repeats: make equal ids distinct by numbers, as for ids that are hashes of contents.
        also: writes further files to the folder.

    Returns:
        The pool, whose rows are read when they are used.

    Raises:
        DamagedError: a part is incomplete; the message names the file.
        InputError: two ids are equal, or two parts differ in the number of columns or the type.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as work:
        ...     for i in range(2):
        ...         card = {}
        ...         with folders.new_folder(f"{work}/{i}", card, "part") as folder:
        ...             rows = np.full((3, 2), i, np.float32)
        ...             ids = np.array([f"{i}{j}" for j in "abc"])
        ...             card |= fill_pool(folder, [Block(rows, ids, np.arange(3))]).about_part()
        ...     parts = [f"{work}/0", f"{work}/1"]
        ...     pool = join_pool(f"{work}/pool", parts, dict, part_bytes=30)
        ...     len(pool), pool.embeddings.sizes, pool.ids[2:4].tolist()
        (6, [3, 3], ['0c', '1a'])
    """
    path, card = epath.Path(path), {} if run is None else {"run": run}
    found = [(epath.Path(part), folders.check_sizes(part)) for part in parts]
    found = [(part, its_card) for part, its_card in found if its_card["n"]]
    _check_alike(found)
    with folders.new_folder(path, card, KIND) as folder:
        if sum(_n_bytes(its_card) for _, its_card in found) <= part_bytes:
            blocks = itertools.chain.from_iterable(stored_blocks(part) for part, _ in found)
            entries = fill_pool(folder, blocks, number_repeats=number_repeats).about()
        else:
            entries = _adopted(folder, found, _distinct(found) if number_repeats else {})
        if also is not None:
            also(folder)
        card |= {**about(), **entries}
    return Pool.load(path)


def read_parts(parts: Sequence[epath.PathLike]) -> Iterator[Block]:
    """Yields all rows of finished parts with their columns, some megabytes at a time.

    Args:
        parts: folders as :func:`join_pool` takes them.

    Raises:
        DamagedError: a file is missing, truncated or altered; the message names it.
    """
    for part in parts:
        if folders.check_sizes(part)["n"]:
            yield from stored_blocks(part)


_Found = Sequence[tuple[epath.Path, Mapping[str, Any]]]
"""Folders of parts with rows, each with its card."""


def _check_alike(found: _Found) -> None:
    kinds = {(card["dimensions"], card.get("dtype", "float32")): part for part, card in found}
    if len(kinds) > 1:
        (a, part), (b, other) = list(kinds.items())[:2]
        raise InputError(f"{part} has rows of {a[0]} {a[1]}, and {other} of {b[0]} {b[1]}")


def _n_bytes(card: Mapping[str, Any]) -> int:
    return card["n"] * card["dimensions"] * np.dtype(card.get("dtype", "float32")).itemsize


def _ids(found: _Found) -> JoinedRows:
    """Returns the ids of all parts, as they are stored in their folders."""
    in_files = [RowsInFile(part / IDS, card["n"], card["files"][IDS]) for part, card in found]
    types = [files.load_array(file.path, mmap=True).dtype for file in in_files]
    return JoinedRows(in_files, (), max(types, key=lambda dtype: dtype.itemsize))


def _distinct(found: _Found) -> dict[int, np.ndarray]:
    """Returns the ids of each part of which some get numbers, because they occur again."""
    ids = _ids(found)
    keys = hashed(ids)  # type: ignore[arg-type]
    ordered = np.sort(keys)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    rows = np.flatnonzero(np.isin(keys, twice))
    if not len(rows):
        return {}
    before = ids[rows]
    after = numbered(before)
    changed = before != after
    rows, after = rows[changed], after[changed]
    ends = np.cumsum(ids.sizes)
    new = {}
    for index in np.unique(np.searchsorted(ends, rows, side="right")).tolist():
        begin = int(ends[index]) - ids.sizes[index]
        within = (rows >= begin) & (rows < ends[index])
        width = max(ids.part(index).dtype, after.dtype, key=lambda dtype: dtype.itemsize)
        new[index] = ids.part(index).astype(width)
        new[index][rows[within] - begin] = after[within]
    return new


def _adopted(
    folder: folders.NewFolder, found: _Found, new_ids: Mapping[int, np.ndarray]
) -> dict[str, Any]:
    """Moves the files of parts into the folder of their pool, and returns entries of its card."""
    ids, listed = _ids(found), []
    dtype = np.dtype(found[0][1].get("dtype", "float32"))
    n_columns = found[0][1]["dimensions"]
    for index, (part, card) in enumerate(found):
        stored = ids.part(index)
        own = trimmed(new_ids.get(index, stored))
        fingerprint = pool_fingerprint(card["digest"], own)
        filled = Filled(own, fingerprint, dtype, n_columns, card["digest"])
        with folder.subfolder(part_name(index), filled.about_part(), KIND) as below:
            is_new = index in new_ids or own.dtype != stored.dtype
            if is_new:
                below.save_array(IDS, own)
            for name in (EMBEDDINGS, ITEMS, COLUMNS, *(() if is_new else (IDS,))):
                if name in card["files"]:
                    below.adopt(part / name, name, card["files"][name], keep=True)
        listed.append(listed_part(filled))
    about = about_parts(listed, n_columns, dtype)
    check_ids_of(folder, about)
    return about
