"""Files of a source, on this machine or in a bucket, named by a path, a folder or a pattern."""

import glob
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

from jaxcurate.artifacts import bucket_errors
from jaxcurate.artifacts.files import fingerprint
from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources import files


class Stamp(NamedTuple):
    """Size and version of a file, which change with its content unless somebody hides it."""

    n_bytes: int
    """Size in bytes."""
    version: str
    """Time of change in nanoseconds, or what the bucket calls the version of an object."""


def filesystem(path: str) -> tuple[Any, str]:
    """Returns the file system of a path in a bucket, and the path within it.

    Args:
        path: path with a protocol, such as ``gs://bucket/pool``.

    Raises:
        InputError: the protocol is unknown, or its package is not installed.

    Examples:
        >>> filesystem("memory://pool/x.npy")[1]
        '/pool/x.npy'
    """
    import fsspec

    try:
        system, inner = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be opened: {_first_line(error)}") from error
    return system, inner


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Turns an error of a store, or of a package that it needs, into one line with a path.

    Args:
        path: path of the file or folder that the block reads.

    Raises:
        InputError: replaces the error.

    Examples:
        >>> with store_errors("s3://bucket/x.npy"):
        ...     raise PermissionError(13, "Forbidden")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: s3://bucket/x.npy cannot be read: access is refused \
(Forbidden): check the credentials and their rights
    """
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file or bucket") from error
    except ImportError as error:
        raise InputError(f"{path} cannot be read: {_first_line(error)}") from error
    except Exception as error:
        if not bucket_errors.is_of_store(error):
            raise
        raise InputError(f"{path} cannot be read: {bucket_errors.reason(error)}") from error


def expanded(path: str, suffixes: tuple[str, ...], what: str) -> list[str]:
    """Returns the files that a path, a pattern or a folder stands for, in the order of names.

    Args:
        path: path of a file, a pattern with ``*``, ``?`` or ``[...]``, or a folder, of which the
            files with one of the suffixes are taken. It may begin with ``~`` or a protocol.
        suffixes: suffixes of the files of a folder, in lower case.
        what: kind of the files, for errors.

    Returns:
        At least one path.

    Raises:
        InputError: there is no such file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.npy", "a.npy", "notes.txt"):
        ...         open(f"{folder}/{name}", "w").close()
        ...     [os.path.basename(path) for path in expanded(folder, (".npy",), "arrays")]
        ['a.npy', 'b.npy']
    """
    if is_local(path):
        path = os.path.expanduser(path)
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                # A file that cannot be read is refused where it is opened, not left out here.
                found = [entry.path for entry in entries if not entry.is_dir()]
            found = [file for file in found if file.lower().endswith(suffixes)]
        elif os.path.lexists(path) or not glob.has_magic(path):
            return [path]
        else:
            found = [file for file in glob.glob(path, recursive=True) if not os.path.isdir(file)]
    else:
        system, inner = filesystem(path)
        with store_errors(path):
            if glob.has_magic(inner):
                names = system.glob(inner)
            elif system.isdir(inner):
                names = [
                    name
                    for name in system.ls(inner, detail=False)
                    if name.lower().endswith(suffixes)
                ]
            else:
                return [path]
            found = [system.unstrip_protocol(name) for name in names]
    if not found:
        raise InputError(f"{path} holds no {what} ({', '.join(suffixes)})")
    return sorted(found)


def open_file(path: str) -> BinaryIO:
    """Opens a regular file, or an object of a bucket, for reading at any position.

    Raises:
        InputError: it cannot be opened; the message names it.

    Examples:
        >>> open_file("/nowhere/x.npy")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: /nowhere/x.npy: there is no such file
    """
    if is_local(path):
        files.check_regular(path)
        try:
            return files.open_regular(path)
        except OSError as error:
            raise InputError(f"{path} cannot be opened ({files.reason(error)})") from error
    system, inner = filesystem(path)
    with store_errors(path):
        return system.open(inner, "rb")


def stamp(path: str) -> Stamp:
    """Returns the size and version of a file.

    Raises:
        InputError: there is no such file.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     stamp(file.name).n_bytes
        0
    """
    if is_local(path):
        files.check_regular(path)
        status = os.stat(path)
        return Stamp(status.st_size, str(status.st_mtime_ns))
    system, inner = filesystem(path)
    with store_errors(path):
        return stamp_of(system.info(inner))


def stamp_of(info: dict[str, Any]) -> Stamp:
    """Returns the size and version of an object from the description by its file system.

    Examples:
        >>> stamp_of({"name": "x", "size": 3, "ETag": "abc"})
        Stamp(n_bytes=3, version='abc')
    """
    keys = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created")
    version = next((str(info[key]) for key in keys if info.get(key)), "")
    return Stamp(int(info.get("size") or 0), version)


def fingerprint_of(paths: list[str], verify: str, about: list[str]) -> str:
    """Returns a fingerprint of files, by their names, sizes and versions, or by their content.

    Args:
        paths: paths of the files.
        verify: ``stat`` or ``content``.
        about: further parts of the fingerprint.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     len(fingerprint_of([file.name], "content", ["text"]))
        16
    """
    parts = [*about, verify]
    for path in paths:
        parts += [
            PurePosixPath(path).name,
            *(str(part) for part in stamp(path)[: 1 if verify == "content" else 2]),
        ]
        if verify == "content":
            parts.append(content_hash(path))
    return fingerprint(parts)


def content_hash(path: str) -> str:
    """Returns the SHA-256 of the content of a file, in hexadecimal.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     content_hash(file.name)[:8]
        'e3b0c442'
    """
    with open_file(path) as file:
        readable = cast(io.BufferedReader, file)  # files of buckets have all that is needed
        return hashlib.file_digest(readable, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__
