"""Writing of a ``.npy`` file block by block, when the number of rows is not known in advance."""

from types import TracebackType

import numpy as np

from jaxcurate.artifacts import files
from jaxcurate.checks import InputError


class RowFile:
    """Writer of rows to a ``.npy`` file with the same bytes as a file of ``numpy.save``.

    ::

        with folder.create("x.npy") as file, RowFile(file) as rows:
            for block in blocks:
                rows.append(block)

    Args:
        file: empty file, open for writing. It is not closed.
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
            InputError: the rows differ from earlier rows in type or shape, or are Python objects,
                or the disk is full.
        """
        rows = np.ascontiguousarray(rows)
        if rows.dtype.hasobject:
            raise InputError("Object arrays cannot be saved without a pickle")
        header = np.lib.format.header_data_from_array_1_0(rows)
        like = {**header, "shape": header["shape"][1:]}
        if self._header is None:
            self._header = like
            self._write_header(0)
            self._begin = self._file.tell()
        if like != self._header:
            before = _description(self._header)
            raise InputError(f"a block of {_description(like)} follows one of {before}")
        self._file.write(rows.view(np.uint8).data)
        self._digest.update(rows)

    def __len__(self) -> int:
        """Returns the number of rows that are written."""
        return len(self._digest)

    @property
    def digest(self) -> str:
        """Digest of all rows, equal to :func:`jaxcurate.artifacts.files.array_digest`."""
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


def _description(header: dict) -> str:
    return f"rows {list(header['shape'])} of {header['descr']}"
