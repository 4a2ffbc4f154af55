"""Objects of a bucket (``gs://``, ``s3://``) by their paths, through fsspec.

A bucket has no folders, no renames and no memory maps. It has whole objects that appear at once,
ranges of bytes, and conditions on what an object was before it is written.
"""

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from etils import epath

from jaxcurate.artifacts.bucket_errors import errors
from jaxcurate.checks import InputError

PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
"""Package for each scheme, and the extra of jaxcurate that installs it."""
MADE_BY = "jaxcurate"
"""Entry in the metadata of each object of an unfinished folder: the token of its writing."""
_AT_ONCE = 16
"""Number of requests for single objects that are made at a time."""
_MOST_KNOWN = 256
_known: dict[str, tuple[str, bytes]] = {}
"""Checksum and content of small objects that were read, by their paths."""
_RANGE_BYTES = 2**24
"""Largest size of a range that one request reads."""
_MOST_KEYS = 1000
"""Largest number of objects that S3 removes in one request."""


class Found(NamedTuple):
    """Object of a bucket, as a listing tells it."""

    n_bytes: int
    """Size in bytes."""
    tag: str
    """Checksum that the store keeps, which a change of the content changes."""


def system(path: epath.PathLike) -> Any:
    """Returns the file system of fsspec for a path, the one that epath uses as well.

    Listings are not kept: other processes write to the same bucket.

    Raises:
        InputError: the scheme is none of a bucket, or its package is not installed.

    Examples:
        >>> system("ftp://host/run")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: ftp://host/run is neither a local path nor gs://... or s3://...
    """
    path = os.fspath(path)
    scheme = path.partition("://")[0]
    if scheme not in PACKAGES:
        raise InputError(f"{path} is neither a local path nor gs://... or s3://...")
    from etils.epath.backend import fsspec_backend

    try:
        found = fsspec_backend.fs(path)
    except ImportError as error:
        package, extra = PACKAGES[scheme]
        raise InputError(
            f"{path} needs the package {package}: pip install 'jaxcurate[{extra}]'"
        ) from error
    if found.dircache.use_listings_cache:
        found.dircache.use_listings_cache = False
        found.invalidate_cache()
    return found


def check_name(path: epath.PathLike) -> None:
    """Refuses a path whose characters fsspec would take for a pattern, and so for other objects.

    Raises:
        InputError: the message names the path.

    Examples:
        >>> check_name("s3://bucket/run[1]")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: s3://bucket/run[1] has one of the characters *?[] in it: \
choose another name
    """
    if set(os.fspath(path)) & set("*?[]#"):
        raise InputError(
            f"{os.fspath(path)} has one of the characters *?[] in it: choose another name"
        )


def is_file(path: epath.PathLike) -> bool:
    """Returns whether there is an object with exactly this name."""
    return info(path) is not None


def info(path: epath.PathLike) -> dict[str, Any] | None:
    """Returns the description of an object by the store, or None if there is no such object."""
    with errors(path):
        fs, name = system(path), os.fspath(path)
        try:
            if name.startswith("s3://"):  # info would look for a folder too
                bucket, key, _ = fs.split_path(name)
                if not key:
                    return None
                head = fs.call_s3("head_object", Bucket=bucket, Key=key)
                return {"size": head["ContentLength"], **head}
            found = fs.info(name)
        except FileNotFoundError:
            return None
    return found if found["type"] == "file" and not found["name"].endswith("/") else None


def is_folder(path: epath.PathLike) -> bool:
    """Returns whether there are objects below a path."""
    with errors(path):
        try:
            return system(path).info(os.fspath(path))["type"] == "directory"
        except FileNotFoundError:
            return False


def listing(folder: epath.PathLike) -> dict[str, Found]:
    """Returns size and checksum of each object below a path, by its name relative to the path."""
    with errors(folder):
        found = _listed(folder)
    begin = len(_inner(folder)) + 1
    return {
        entry["name"][begin:]: Found(int(entry["size"]), tag_of(entry))
        for entry in found
        if not entry["name"].endswith("/")  # some tools make such objects to show a folder
    }


def names(folder: epath.PathLike) -> list[str]:
    """Returns the names directly below a path, those of objects and of folders."""
    with errors(folder):
        try:
            found = system(folder).ls(os.fspath(folder), detail=False)
        except FileNotFoundError:
            return []
    begin = len(_inner(folder)) + 1
    return sorted({name[begin:].rstrip("/") for name in found} - {""})


def tag_of(entry: Mapping[str, Any]) -> str:
    """Returns the checksum that a store keeps of an object, from its description.

    Examples:
        >>> tag_of({"ETag": '"ab"'}), tag_of({"md5Hash": "cd", "etag": "x"})
        ('ab', 'cd')
    """
    keys = ("ETag", "md5Hash", "crc32c", "etag")
    return next((str(entry[key]).strip('"') for key in keys if entry.get(key)), "")


def read(path: epath.PathLike) -> bytes | None:
    """Returns the content of a small object, or None if there is no such object."""
    with errors(path):
        try:
            return system(path).cat_file(os.fspath(path))
        except FileNotFoundError:
            return None


def read_known(path: epath.PathLike, tag: str) -> bytes | None:
    """Returns the content of a small object, which is not read again while its checksum stays.

    Args:
        path: path of the object.
        tag: its checksum, by a listing just now.
    """
    name = os.fspath(path)
    if tag and _known.get(name, ("", b""))[0] == tag:
        return _known[name][1]
    data = read(path)
    if data is not None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[name] = tag, data
    return data


def read_all(path: epath.PathLike, n_bytes: int) -> bytes:
    """Returns the content of an object of a known size, read by several requests at a time."""
    with errors(path):
        fs, name = system(path), os.fspath(path)
        starts = list(range(0, n_bytes, _RANGE_BYTES))
        ends = [min(start + _RANGE_BYTES, n_bytes) for start in starts]
        return b"".join(fs.cat_ranges([name] * len(starts), starts, ends, on_error="raise"))


def write(path: epath.PathLike, data: bytes, made_by: str | None = None) -> None:
    """Writes an object in one request, which replaces another of this name.

    Args:
        path: path of the object.
        data: its content.
        made_by: value of :data:`MADE_BY` in its metadata.
    """
    with errors(path):
        system(path).pipe_file(os.fspath(path), data, **metadata(path, made_by))


def metadata(path: epath.PathLike, made_by: str | None) -> dict[str, Any]:
    """Returns the arguments of fsspec that give an object its metadata."""
    if made_by is None:
        return {}
    name = "Metadata" if os.fspath(path).startswith("s3://") else "metadata"
    return {name: {MADE_BY: made_by}}


def create(path: epath.PathLike, data: bytes) -> bool:
    """Writes an object unless there is one, and returns whether it was written.

    A store without conditions would replace the object: the caller reads it again.
    """
    return _on_condition(path, lambda fs: fs.pipe_file(os.fspath(path), data, mode="create"))


def version(path: epath.PathLike) -> str | None:
    """Returns the version of an object, for :func:`replace`, or None if there is no object."""
    found = info(path)
    return None if found is None else str(found.get("generation") or found.get("ETag") or "")


def replace(path: epath.PathLike, data: bytes, before: str) -> bool:
    """Writes an object if it still has a version, and returns whether it was written."""
    path = os.fspath(path)

    def put(fs: Any) -> None:
        bucket, key, _ = fs.split_path(path)
        if path.startswith("s3://"):
            fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfMatch=before)
            return
        place = f"{fs._location}/upload/storage/v1/b/{bucket}/o"
        condition = {"uploadType": "media", "name": key, "ifGenerationMatch": before}
        headers = {"Content-Type": "application/octet-stream"}
        fs.call("POST", place, headers=headers, data=data, **condition)

    return _on_condition(path, put)


def _on_condition(path: epath.PathLike, put: Callable[[Any], None]) -> bool:
    with errors(path):
        try:
            put(system(path))
        except FileExistsError:  # gcsfs
            return False
        except FileNotFoundError:  # S3, for an object that is to be replaced and is not there
            return False
        except OSError as error:
            said = f"{error} {error.__cause__}".lower()
            if error.errno in (errno.EINVAL, errno.EBUSY) and (
                "precondition" in said or "pre-condition" in said or "conflict" in said
            ):
                return False
            raise
    return True


def copy(source: epath.PathLike, target: epath.PathLike) -> None:
    """Copies an object within the store, with its metadata; no byte passes this machine."""
    with errors(target):
        system(target).cp_file(os.fspath(source), os.fspath(target))


def copy_as(source: epath.PathLike, target: epath.PathLike, made_by: str | None) -> None:
    """Copies an object within the store, with other metadata."""
    with errors(target):
        fs, about = system(target), metadata(target, made_by)
        if os.fspath(target).startswith("s3://"):
            fs.cp_file(os.fspath(source), os.fspath(target), MetadataDirective="REPLACE", **about)
            return
        fs.cp_file(os.fspath(source), os.fspath(target))
        if made_by is not None:
            fs.setxattrs(os.fspath(target), **{MADE_BY: made_by})


def copy_all(pairs: Iterable[tuple[epath.Path, epath.Path]]) -> None:
    """Copies objects within the store, some at a time."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda pair: copy(*pair), pairs))


def remove(paths: Iterable[epath.PathLike]) -> None:
    """Removes objects, whether they exist or not."""
    texts = [os.fspath(path) for path in paths]
    if not texts:
        return
    with errors(texts[0]):
        fs = system(texts[0])
        if not texts[0].startswith("s3://"):
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(lambda path: _remove_one(fs, path), texts))
            return
        for begin in range(0, len(texts), _MOST_KEYS):
            keys = [fs.split_path(path)[:2] for path in texts[begin : begin + _MOST_KEYS]]
            objects = [{"Key": key} for _, key in keys]
            out = fs.call_s3(
                "delete_objects", Bucket=keys[0][0], Delete={"Objects": objects, "Quiet": True}
            )
            for refused in out.get("Errors", ()):
                raise PermissionError(errno.EACCES, refused.get("Message", refused.get("Code")))


def remove_below(folder: epath.PathLike) -> None:
    """Removes all objects below a path."""
    root = epath.Path(folder)
    remove([root / name for name in listing(root)])


def made_by(paths: list[epath.Path]) -> list[str | None]:
    """Returns the value of :data:`MADE_BY` of each object, or None where there is none."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(_made_by, paths))


def abort_uploads(folder: epath.PathLike) -> None:
    """Ends unfinished uploads below a path, whose parts S3 stores and bills for, but never lists.

    Google ends them by itself.
    """
    path = os.fspath(folder)
    if not path.startswith("s3://"):
        return
    with errors(path):
        fs = system(path)
        bucket, key, _ = fs.split_path(path)
        found = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{key}/")
        for upload in found.get("Uploads", ()):
            if upload["Key"].startswith(f"{key}/"):  # not every store filters
                fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])


def _made_by(path: epath.Path) -> str | None:
    with errors(path):
        fs = system(path)
        try:
            if os.fspath(path).startswith("s3://"):
                return fs.metadata(os.fspath(path)).get(MADE_BY)
            return (fs.info(os.fspath(path)).get("metadata") or {}).get(MADE_BY)
        except FileNotFoundError:
            return None


def _remove_one(fs: Any, path: str) -> None:
    with suppress(FileNotFoundError):
        fs.rm_file(path)


def _inner(path: epath.PathLike) -> str:
    return os.fspath(path).partition("://")[2].rstrip("/")


def _listed(folder: epath.PathLike) -> list[dict[str, Any]]:
    """Returns descriptions of objects below a path; an object with exactly its name is none."""
    fs, inner = system(folder), _inner(folder)
    found = fs.find(inner, detail=True).values()
    return [e for e in found if e["name"].startswith(f"{inner}/") and e["type"] == "file"]
