"""A ``.npy`` file whose rows come block by block, their number being known at the end."""

from types import TracebackType

import numpy as np

from jaxcurate.artifacts import files
from jaxcurate.checks import InputError


class RowFile:
    """Writes rows to a ``.npy`` file, the bytes of which are those of ``numpy.save``.

    ::

        with folder.create("x.npy") as file, RowFile(file) as rows:
            for block in blocks:
                rows.append(block)

    Args:
        file: open for writing, and empty. It is not closed.
    """

    def __init__(self, file: files.NewFile) -> None:
        self._file = file
        self._digest = files.ArrayDigest()
        self._header: dict | None = None
        self._begin = 0

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()

    def append(self, rows: np.ndarray) -> None:
        """Writes a block ``[b, ...]``.

        Raises:
            InputError: its rows are not of the type and shape of those before, or Python objects;
                or the disk is full.
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
        """Returns the number of rows so far."""
        return len(self._digest)

    @property
    def digest(self) -> str:
        """The :func:`jaxcurate.artifacts.files.array_digest` of all rows."""
        return self._digest.hexdigest()

    def _write_header(self, n: int) -> None:
        assert self._header is not None
        header = {**self._header, "shape": (n, *self._header["shape"])}
        np.lib.format.write_array_header_1_0(self._file, header)

    def _finish(self) -> None:
        if self._header is None:
            raise InputError(f"{self._file.path} has got no rows")
        self._file.seek(0)
        self._write_header(len(self))
        # numpy leaves room in the header for any number of rows.
        if self._file.tell() != self._begin:
            raise RuntimeError(f"the header of {self._file.path} takes more than was left for it")


def _told(header: dict) -> str:
    return f"rows {list(header['shape'])} of {header['descr']}"
