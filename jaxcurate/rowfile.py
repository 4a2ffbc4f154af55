"""A ``.npy`` file whose rows come block by block, their number being known at the end."""

import shutil
import tempfile
from types import TracebackType
from typing import IO

import numpy as np
from etils import epath

from jaxcurate import workdir
from jaxcurate.checks import InputError


class RowFile:
    """Writes rows to a ``.npy`` file, the bytes of which are those of ``numpy.save``.

    ::

        with RowFile(path) as file:
            for rows in blocks:
                file.append(rows)

    On a path that is not local the rows are gathered in a temporary file and copied at the end.
    """

    def __init__(self, path: epath.Path) -> None:
        self._path = path
        self._digest = workdir.ArrayDigest()
        self._header: dict | None = None
        self._begin = 0

    def __enter__(self) -> "RowFile":
        # Only a local file can be gone back in, to where it tells how many rows there are.
        local = workdir.is_local(self._path)
        self._file: IO[bytes] = self._path.open("wb") if local else tempfile.TemporaryFile()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._file:
            if kind is None:
                self._finish()

    def append(self, rows: np.ndarray) -> None:
        """Writes a block ``[b, ...]``.

        Raises:
            ValueError: its rows are not of the type and shape of those before, or Python objects.
        """
        rows = np.ascontiguousarray(rows)
        if rows.dtype.hasobject:
            raise InputError("Object arrays cannot be saved: that would be a pickle")
        header = np.lib.format.header_data_from_array_1_0(rows)
        like = {**header, "shape": header["shape"][1:]}
        if self._header is None:
            self._header = like
            self._write_header(0)
            self._begin = self._file.tell()
        if like != self._header:
            raise InputError(f"a block of {_told(like)} follows one of {_told(self._header)}")
        self._file.write(rows.view(np.uint8).data)
        self._digest.update(rows)

    def __len__(self) -> int:
        """How many rows there are so far."""
        return len(self._digest)

    @property
    def digest(self) -> str:
        """That of :func:`jaxcurate.workdir.array_digest` of all rows."""
        return self._digest.hexdigest()

    def _write_header(self, n: int) -> None:
        header = {**self._header, "shape": (n, *self._header["shape"])}
        np.lib.format.write_array_header_1_0(self._file, header)

    def _finish(self) -> None:
        if self._header is None:
            raise InputError(f"{self._path} has got no rows")
        self._file.seek(0)
        self._write_header(len(self))
        # numpy leaves room in the header for any number of rows.
        if self._file.tell() != self._begin:
            raise RuntimeError(f"the header of {self._path} takes more than was left for it")
        if not workdir.is_local(self._path):
            self._file.seek(0)
            with self._path.open("wb") as file:
                shutil.copyfileobj(self._file, file, 2**24)


def _told(header: dict) -> str:
    return f"rows {list(header['shape'])} of {header['descr']}"
