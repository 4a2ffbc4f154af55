"""Errors of stores, networks and credentials in one line each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

from jaxcurate.checks import InputError

_LIBRARIES = frozenset(
    ("aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs")
)


@contextmanager
def errors(path: epath.PathLike) -> Iterator[None]:
    """Turns an error of the store, of the network or of credentials into one line.

    Args:
        path: path of the object or folder that the block is about.

    Raises:
        InputError: replaces the error.

    Examples:
        >>> with errors("s3://bucket/run"):
        ...     raise PermissionError(13, "Forbidden")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: s3://bucket/run: access is refused (Forbidden): check the \
credentials and their rights; what is finished stays
    """
    try:
        yield
    except Exception as error:
        if not is_of_store(error):
            raise
        raise InputError(f"{os.fspath(path)}: {reason(error)}; what is finished stays") from error


@contextmanager
def any_errors(path: epath.PathLike) -> Iterator[None]:
    """Turns errors of stores into one line, and leaves errors that come from elsewhere.

    Args:
        path: path of the folder that the block works in, which may be a local one.

    Raises:
        InputError: replaces an error of a store.

    Examples:
        >>> with any_errors("s3://bucket/run"):
        ...     open("/nowhere/x")
        Traceback (most recent call last):
        ...
        FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/x'
    """
    try:
        yield
    except Exception as error:
        names = [type(error).__module__]
        trace = error.__traceback__
        while trace is not None:
            names.append(str(trace.tb_frame.f_globals.get("__name__")))
            trace = trace.tb_next
        if not is_of_store(error) or not {name.partition(".")[0] for name in names} & _LIBRARIES:
            raise
        raise InputError(f"{os.fspath(path)}: {reason(error)}; what is finished stays") from error


def is_of_store(error: BaseException) -> bool:
    """Returns whether an error is one of the store, of the network or of credentials.

    Examples:
        >>> is_of_store(ConnectionError()), is_of_store(InputError("n=0"))
        (True, False)
    """
    if isinstance(error, InputError):
        return False
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or module in _LIBRARIES


def reason(error: BaseException) -> str:
    """Returns an error of the store in a few words.

    Examples:
        >>> reason(FileNotFoundError("bucket"))
        'there is no such bucket or object (bucket)'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (getattr(error, "strerror", None) or (lines[0] if lines else type(error).__name__))[:200]
    name, code = type(error).__name__, str(getattr(error, "code", ""))
    if isinstance(error, FileNotFoundError):
        return f"there is no such bucket or object ({text})"
    if "Credential" in name or name in ("RefreshError", "GoogleAuthError"):
        return f"no credentials were found or they are refused ({text})"
    if isinstance(error, PermissionError) or code in ("401", "403") or "Forbidden" in text:
        return f"access is refused ({text}): check the credentials and their rights"
    return f"the store cannot be reached or refuses ({name}: {text})"
