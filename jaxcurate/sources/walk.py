"""Search for pictures below a folder, in which nothing is skipped without a reason."""

import heapq
import os
import stat
from pathlib import PurePath, PurePosixPath
from typing import NamedTuple

from jaxcurate.checks import InputError
from jaxcurate.sources import files, location
from jaxcurate.sources.pictures import is_picture

WORK_DIRECTORY = "the work directory"
"""Reason for skipping the work directory."""
HIDDEN = "hidden"
"""Reason for skipping a file or folder whose name begins with a dot."""
OF_THE_SYSTEM = "a file of the system"
"""Reason for skipping files and folders that systems put beside pictures."""
NO_PICTURE = "not a picture"
"""Reason for skipping a file that does not begin like a picture."""
NO_ITEMS = frozenset({WORK_DIRECTORY, HIDDEN, OF_THE_SYSTEM, NO_PICTURE})
"""Reasons for skipping what nobody takes for an item, so that even a strict run skips it."""
SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif"),
        *(".tiff", ".avif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".ico"),
    }
)
"""Suffixes of pictures, in lower case. A file with one of them is not opened to be found."""
_SYSTEM = frozenset(
    {
        *("@eadir", "#recycle", "@recycle", "__macosx", "thumbs.db", "desktop.ini", "lost+found"),
        *("$recycle.bin", "system volume information"),
    }
)


class Entry(NamedTuple):
    """File that is an item."""

    path: str
    """Path relative to the root, with forward slashes."""
    n_bytes: int
    """Size in bytes."""
    version: str
    """Time of change in nanoseconds, or the version of an object in a bucket."""


def walk(root: str, leave_out: str | None) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Returns the pictures below a local folder, and what was skipped.

    Links to files and folders are followed. A folder that is reached twice is read once, by its
    own path if that is below the root, else by the first link in the order of paths.

    Args:
        root: path of the folder.
        leave_out: path of a folder that is not searched, by whatever path it is reached.

    Returns:
        The pictures, and (path, reason) of each skipped file or folder, both in order of paths.

    Raises:
        InputError: the folder cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, data in (("a", b"GIF89a"), ("notes.txt", b"no picture"), (".b", b"")):
        ...         _ = Path(folder, name).write_bytes(data)
        ...     entries, skipped = walk(folder, None)
        >>> [entry.path for entry in entries], skipped
        (['a'], [('.b', 'hidden'), ('notes.txt', 'not a picture')])
    """
    pictures: list[Entry] = []
    skipped: list[tuple[str, str]] = []
    links: list[str] = []
    read: dict[str, str] = {}
    left_out = None if leave_out is None else os.path.realpath(leave_out)
    _walk_from("", root, left_out, pictures, skipped, links, read)
    # All folders below the root come before links to them, wherever these lie.
    while links:
        link = heapq.heappop(links)
        known = read.get(os.path.realpath(os.path.join(root, link)))
        if known is None:
            _walk_from(f"{link}/", root, left_out, pictures, skipped, links, read)
        else:
            skipped.append((f"{link}/", f"a link to {known or './'}, which is read already"))
    return sorted(pictures), sorted(skipped)


def objects(root: str, leave_out: str | None = None) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Returns the pictures below a folder in a bucket, and what was skipped.

    Args:
        root: path of the folder, with its protocol and without a slash at its end.
        leave_out: path of a folder that is not searched.

    Raises:
        InputError: the folder cannot be read, or is the one that is not searched.

    Examples:
        >>> import fsspec
        >>> bucket = fsspec.filesystem("memory")
        >>> bucket.pipe({"/walked/a/b.png": b"...", "/walked/notes.txt": b"..."})
        >>> objects("memory://walked")[1]
        [('notes.txt', 'not a picture')]
    """
    system, inner = location.filesystem(root)
    with location.store_errors(root):
        found = system.find(inner, detail=True)
    apart = None if leave_out is None else leave_out.rstrip("/")
    if apart == root:
        raise InputError(f"{root} is the work directory; pictures belong in a folder of their own")
    pictures, skipped, within = [], [], f"{(apart or '').removeprefix(f'{root}/')}/"
    for name, info in sorted(found.items()):
        path = str(PurePosixPath(name).relative_to(inner))
        if apart is not None and f"{root}/{path}".startswith(f"{apart}/"):
            if (within, WORK_DIRECTORY) not in skipped[-1:]:
                skipped.append((within, WORK_DIRECTORY))
            continue
        reason = _unwanted_parts(path)
        if reason is None and not _begins_like_a_picture(root, path):
            reason = NO_PICTURE
        if reason is None:
            pictures.append(Entry(path, *location.stamp_of(info)))
        else:
            skipped.append((path, reason))
    return pictures, skipped


def _walk_from(
    start: str,
    root: str,
    left_out: str | None,
    pictures: list[Entry],
    skipped: list[tuple[str, str]],
    links: list[str],
    read: dict[str, str],
) -> None:
    """Adds the pictures below a folder, and notes the links to folders without following them."""
    # Folders are known by their real paths, since some file systems number them all alike.
    waiting = [(start, os.path.realpath(os.path.join(root, start)))]
    while waiting:
        prefix, real = waiting.pop()
        if prefix and real == left_out:
            skipped.append((prefix, WORK_DIRECTORY))
            continue
        # Below a link there may be folders that were reached in another way.
        if (known := read.get(real)) is not None:
            skipped.append((prefix, f"the same folder as {known or './'}, which is read already"))
            continue
        try:
            with files.scan(os.path.join(root, prefix)) as entries:
                read[real] = prefix
                for entry in entries:
                    path = prefix + entry.name
                    if (reason := _unwanted(entry.name)) is not None:
                        is_folder = entry.is_dir(follow_symlinks=False)
                        skipped.append((f"{path}/" if is_folder else path, reason))
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{path}/", os.path.join(real, entry.name)))
                    else:
                        _add_entry(entry, path, root, pictures, skipped, links)
        except OSError as error:
            if not prefix:
                raise InputError(f"{root} cannot be read ({files.reason(error)})") from error
            skipped.append((prefix, files.reason(error)))


def _add_entry(
    entry: os.DirEntry,
    path: str,
    root: str,
    pictures: list[Entry],
    skipped: list[tuple[str, str]],
    links: list[str],
) -> None:
    """Adds a file or link to the pictures, the links to folders, or the skipped files."""
    try:
        status = entry.stat()
    except OSError as error:
        skipped.append((path, files.reason(error)))
        return
    if stat.S_ISDIR(status.st_mode):
        heapq.heappush(links, path)
    elif not stat.S_ISREG(status.st_mode):
        skipped.append((path, f"{files.kind(status.st_mode)}, not a file"))
    elif PurePath(entry.name).suffix.lower() in SUFFIXES:
        pictures.append(Entry(path, status.st_size, str(status.st_mtime_ns)))
    else:
        try:
            with files.open_regular(os.path.join(root, path)) as file:
                begins_well = is_picture(file.read(16))
        except (OSError, InputError) as error:
            skipped.append((path, files.reason(error)))
            return
        if begins_well:
            pictures.append(Entry(path, status.st_size, str(status.st_mtime_ns)))
        else:
            skipped.append((path, NO_PICTURE))


def _begins_like_a_picture(root: str, path: str) -> bool:
    """Returns whether an object may be a picture, by its suffix or, without one, by its bytes."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix:
        return suffix in SUFFIXES  # a request for each caption beside a picture would take hours
    with location.open_file(f"{root}/{path}") as file:
        return is_picture(file.read(16))


def _unwanted(name: str) -> str | None:
    """Returns the reason for skipping a file or folder of this name, if there is one."""
    if name.startswith("."):
        return HIDDEN
    return OF_THE_SYSTEM if name.lower() in _SYSTEM else None


def _unwanted_parts(path: str) -> str | None:
    reasons = (_unwanted(part) for part in PurePosixPath(path).parts)
    return next((reason for reason in reasons if reason is not None), None)
