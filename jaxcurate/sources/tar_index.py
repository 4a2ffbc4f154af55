"""Index of the members of a tar file, of which nothing is extracted."""

import io
import re
import tarfile
from array import array
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.sources import location, signatures
from jaxcurate.sources.names import printable
from jaxcurate.sources.walk import HIDDEN

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
"""Key of a sample and suffix of a member: the name is cut at the first dot of its last part."""
_UNPACK = {"gzip": "gunzip", "bzip2": "bunzip2", "xz": "unxz", "Zstandard": "unzstd"}
_PADDING = 2**20
"""Number of bytes after the end of a tar file that may be padding."""


class TarIndex(NamedTuple):
    """Samples of a tar file in the order of their first members, and their wanted members."""

    keys: bytes
    """Keys of the samples, one after the other, in UTF-8 as `printable` writes it."""
    key_ends: np.ndarray
    """int64 ``[n]``, the end of each key within `keys`."""
    sample: np.ndarray
    """int64 ``[m]``, the sample of each member."""
    suffix: np.ndarray
    """uint16 ``[m]``, the place of the suffix of each member in `suffixes`."""
    offset: np.ndarray
    """int64 ``[m]``, the position of the content of each member in the file."""
    size: np.ndarray
    """int64 ``[m]``, the size of the content of each member in bytes."""
    suffixes: tuple[str, ...]
    """Suffixes of the members, in lower case."""
    skipped: list[tuple[str, str]]
    """Name and reason of each member that is not part of a sample."""


def index_tar(path: str, wanted: Collection[str]) -> TarIndex:
    """Returns the index of a tar file, on this machine or in a bucket.

    The members of a sample have the same key, which is the name up to the first dot of its last
    part. Links, devices, sparse files, and names that lead out of the archive are skipped, and so
    is all that follows a damaged header.

    Args:
        path: path of the file.
        wanted: suffixes of the members to keep, in lower case and without the first dot.

    Raises:
        InputError: the file cannot be read, is compressed, or is no tar file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with tarfile.open(f"{folder}/a.tar", "w") as archive:
        ...         for name in ("cats/1.jpg", "cats/1.cls", "notes"):
        ...             archive.addfile(tarfile.TarInfo(name))
        ...     index = index_tar(f"{folder}/a.tar", {"jpg", "cls"})
        >>> index.keys, index.sample.tolist(), index.suffixes, index.skipped
        (b'cats/1', [0, 0], ('jpg', 'cls'), [('a.tar/notes', 'a name without a suffix')])
    """
    name = PurePosixPath(path).name
    skipped: list[tuple[str, str]] = []
    samples: dict[str, int] = {}
    codes: dict[str, int] = {}
    table = [array("q") for _ in range(4)]
    with location.open_file(path) as file:
        n_bytes = _checked_size(path, file)
        for member, reason in _members(file, n_bytes):
            if isinstance(member, str):
                skipped.append((printable(f"{name}/{member}" if member else name), reason))
                continue
            match = _NAME.fullmatch(member.name)
            if match is None or (suffix := match[2].lower()) not in wanted:
                if match is None:
                    skipped.append((printable(f"{name}/{member.name}"), _nameless(member.name)))
                else:  # the sample exists, whether or not a wanted member follows
                    samples.setdefault(match[1], len(samples))
                continue
            sample = samples.setdefault(match[1], len(samples))
            code = codes.setdefault(suffix, len(codes))
            for column, value in zip(
                table, (sample, code, member.offset_data, member.size), strict=True
            ):
                column.append(value)
    keys = [printable(key).encode() for key in samples]
    members = np.array([np.frombuffer(column, np.int64) for column in table])
    _, first = np.unique(members[0] << 16 | members[1], return_index=True)
    if len(first) < members.shape[1]:
        names, suffixes = list(samples), list(codes)
        for place in np.delete(np.arange(members.shape[1]), first):
            second = f"{name}/{names[members[0, place]]}.{suffixes[members[1, place]]}"
            skipped.append((printable(second), "a second member of this name"))
        members = members[:, np.sort(first)]
    sample, code, offset, size = members
    return TarIndex(
        b"".join(keys),
        np.cumsum([len(key) for key in keys], dtype=np.int64),
        sample,
        code.astype(np.uint16),
        offset,
        size,
        tuple(codes),
        skipped,
    )


def _checked_size(path: str, file: BinaryIO) -> int:
    """Returns the size of a file, or refuses a file that does not begin like a tar file."""
    beginning = file.read(signatures.N_BYTES)
    kind = signatures.file_kind(beginning)
    compression = kind.removeprefix("a file compressed by ")
    if compression in _UNPACK:
        raise InputError(
            f"{path} is compressed by {compression}, so that its members cannot be read in any "
            f"order: unpack it with {_UNPACK[compression]}"
        )
    try:
        tarfile.TarInfo.frombuf(beginning, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        if beginning.strip(b"\0") or not beginning:
            raise InputError(f"{path} is not a tar file: it is {kind or 'of another kind'}") from (
                error
            )
    n_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    return n_bytes


def _members(
    file: BinaryIO, n_bytes: int
) -> Iterator[tuple[tarfile.TarInfo, str] | tuple[str, str]]:
    """Yields members that are regular files, and the name and reason of each other member.

    An empty name stands for the rest of the file.
    """
    try:
        readable = cast(io.BufferedReader, file)  # files of buckets have all that is needed
        archive: Any = tarfile.TarFile(fileobj=readable, encoding="utf-8", errors="surrogateescape")
        archive.members.clear()  # the first member was read at once, and is read again
        archive.offset, archive.firstmember = 0, None
        file.seek(0)
        before = -1
        while True:
            # Some damaged headers lead back, and would be read for ever.
            if archive.offset <= before:
                yield "", f"damaged after byte {before}"
                return
            before = archive.offset
            member = archive.next()
            if member is None:
                break
            archive.members.clear()  # which otherwise takes a kilobyte for each member
            reason = _unwanted(member, n_bytes)
            if reason is None:
                member.name = member.name.removeprefix("./")
                yield member, ""
            elif not member.isdir():
                yield member.name, reason
        yield from _end(file, archive.offset, n_bytes)
    except Exception as error:  # a damaged header may raise nearly any type
        if isinstance(error, InputError):
            raise
        line = (str(error).splitlines() or [""])[0] or type(error).__name__
        yield "", f"damaged: {line}"


def _end(file: BinaryIO, offset: int, n_bytes: int) -> Iterator[tuple[str, str]]:
    """Yields the reason why the rest of a tar file is not read, unless it is padding."""
    file.seek(min(offset, n_bytes))
    block = file.read(tarfile.BLOCKSIZE)
    n_rest = n_bytes - offset
    if block.strip(b"\0") or n_rest < 0:
        yield "", f"damaged after byte {min(offset, n_bytes)}: what follows is not read"
    elif n_rest > _PADDING or file.read().strip(b"\0"):
        yield "", f"ends at byte {offset}: the {n_rest} bytes that follow are not read"


def _unwanted(member: tarfile.TarInfo, n_bytes: int) -> str | None:
    """Returns the reason for skipping a member, if there is one."""
    if member.issym() or member.islnk():
        return "a link"
    if not member.isreg():
        return "not a file"
    if member.issparse():
        return "a sparse file"
    if member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
        return "a name that leads out of the archive"
    if member.size < 0 or member.offset_data + member.size > n_bytes:
        return "the file ends within it"
    return None


def _nameless(name: str) -> str:
    return HIDDEN if PurePosixPath(name).name.startswith(".") else "a name without a suffix"
