"""Fetching of raw data by `scripts/fetch`, which an installed package carries along."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from jaxcurate.checks import InputError

_PACKAGE = Path(__file__).resolve().parents[2]


def fetch_raw(names: Sequence[str], data_dir: str | os.PathLike | None = None) -> Path:
    """Fetches raw data of the demonstrations through apt and pip, and prints a line for each name.

    Data that are already there are kept. Root is not needed.

    Args:
        names: names that `scripts/fetch` knows, such as ``clipart`` (Open Clip Art).
        data_dir: folder of the data. By default ``$JAXCURATE_DATA``, or else ``data`` in the
            checkout of the repository, or in the current folder if there is no checkout.

    Returns:
        The absolute path of the folder of the data, with the raw data in ``raw/NAME``.

    Raises:
        InputError: a name is unknown, or its data cannot be fetched; the message is the line of
            the script.

    Examples:
        >>> import tempfile
        >>> from jaxcurate.sources import fetch_raw
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fetch_raw(["cats"], folder)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: fetch: error: unknown name 'cats'; known are fashion ...
    """
    script = _script()
    beside = script.parent.parent / "data" if _is_checkout(script) else Path("data")
    folder = Path(data_dir or os.environ.get("JAXCURATE_DATA") or beside).expanduser().resolve()
    command = ["bash", os.fspath(script), os.fspath(folder), f"--only={','.join(names)}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            print(line, end="", flush=True)  # of the script, which needs minutes for some names
        told = process.stderr.read().strip()
    if process.returncode:
        raise InputError(told.splitlines()[-1] if told else f"{script} failed")
    return folder


def _script() -> Path:
    """Returns the path of the script, in the checkout or in the installed package.

    Raises:
        InputError: it is in neither.
    """
    for above in (_PACKAGE, _PACKAGE.parent):
        if (script := above / "scripts" / "fetch").is_file():
            return script
    raise InputError(f"scripts/fetch is neither in {_PACKAGE} nor in {_PACKAGE.parent}")


def _is_checkout(script: Path) -> bool:
    return script.parent.parent != _PACKAGE
