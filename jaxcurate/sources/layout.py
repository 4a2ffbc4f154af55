"""Places of arrays in ``.npy``, ``.npz`` and ``.safetensors`` files, found without reading them."""

import json
import math
import struct
import warnings
import zipfile
from typing import Any, BinaryIO, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np

from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources import location, signatures

_BFLOAT16 = np.dtype(jnp.bfloat16)
_TENSORS = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": _BFLOAT16,
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
}
"""Types of numbers in a ``.safetensors`` file, by the names that it gives them."""
_LONGEST_HEADER = 100_000_000  # as in the safetensors package


class Layout(NamedTuple):
    """Place, shape and type of an array in a file."""

    path: str
    """Path of the file, on this machine or in a bucket."""
    offset: int
    """Position of the first byte of the array."""
    shape: tuple[int, ...]
    """Shape of the array."""
    dtype: np.dtype
    """Type of the array, as it is stored."""
    by_columns: bool = False
    """True if the array is stored column by column."""
    member: str | None = None
    """Name of the compressed member of an archive, which can only be read as a whole."""

    @property
    def n_bytes(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def npy_layout(path: str) -> Layout:
    """Returns the layout of the array in a ``.npy`` file, without ever unpickling.

    Args:
        path: path of the file.

    Raises:
        InputError: the file is of another kind, which the message names, or is not whole.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/x.npy", np.eye(3))
        ...     layout = npy_layout(f"{folder}/x.npy")
        ...     layout.offset, layout.shape, layout.dtype
        (128, (3, 3), dtype('float64'))
    """
    n_bytes = location.stamp(path).n_bytes
    with location.open_file(path) as file:
        beginning = file.read(signatures.N_BYTES)
        if not beginning.startswith(np.lib.format.MAGIC_PREFIX):
            if _holds_arrays(file):
                raise InputError(
                    f"{path} is an archive of arrays; a single .npy file is needed, or npz:{path}"
                )
            kind = signatures.file_kind(beginning) or "of another kind"
            raise InputError(f"{path} is not a whole .npy file of numbers: it is {kind}")
        file.seek(0)
        return _with_header(file, path, 0, n_bytes)


def npz_layouts(path: str) -> dict[str, Layout]:
    """Returns the layouts of the arrays in a ``.npz`` archive, by name.

    Args:
        path: path of the archive.

    Raises:
        InputError: the file is no whole archive of arrays.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/x.npz", a=np.eye(3), b=np.arange(3))
        ...     {name: layout.shape for name, layout in npz_layouts(f"{folder}/x.npz").items()}
        {'a': (3, 3), 'b': (3,)}
    """
    with location.open_file(path) as file:
        try:
            return _members(file, path)
        except InputError:
            raise
        except (zipfile.BadZipFile, struct.error) as error:
            file.seek(0)
            kind = signatures.file_kind(file.read(signatures.N_BYTES)) or "of another kind"
            raise InputError(f"{path} is not a whole .npz archive: it is {kind}") from error
        except Exception as error:  # a damaged archive may raise nearly any type
            raise InputError(f"{path} is not a whole .npz archive ({_line(error)})") from error


def tensor_layouts(path: str) -> dict[str, Layout]:
    """Returns the layouts of the arrays of numbers in a ``.safetensors`` file, by name.

    The header of the file is JSON. It is read here, because the package of this format reads
    files on this machine only. Arrays of other types, such as float8, are left out.

    Args:
        path: path of the file.

    Raises:
        InputError: the file is no whole ``.safetensors`` file.

    Examples:
        >>> import tempfile
        >>> header = b'{"x": {"dtype": "F16", "shape": [2, 1], "data_offsets": [0, 4]}}'
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     n = file.write(len(header).to_bytes(8, "little") + header + bytes(4))
        ...     file.flush()
        ...     tensor_layouts(file.name)["x"].shape
        (2, 1)
    """
    n_bytes = location.stamp(path).n_bytes
    with location.open_file(path) as file:
        beginning = file.read(8)
        length = int.from_bytes(beginning, "little")
        if len(beginning) < 8 or length > min(n_bytes - 8, _LONGEST_HEADER):
            _refuse_tensors(path, "its header is not whole")
        header = file.read(length)
    try:
        described = json.loads(header.decode("utf-8"))
        if not isinstance(described, dict):
            raise TypeError("not an object")
        described.pop("__metadata__", None)
        start = 8 + length
        end = start + max(
            (int(entry["data_offsets"][1]) for entry in described.values()), default=0
        )
        layouts = {name: _tensor(path, start, entry) for name, entry in described.items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a whole .safetensors file: its header cannot be read"
        ) from error
    if end != n_bytes:
        _refuse_tensors(path, f"its arrays end after {end} of {n_bytes} bytes")
    return {name: layout for name, layout in layouts.items() if layout is not None}


def _tensor(path: str, start: int, entry: dict[str, Any]) -> Layout | None:
    """Returns the layout of a described array, or None if it does not hold numbers."""
    begin, end = (int(offset) for offset in entry["data_offsets"])
    shape = tuple(int(size) for size in entry["shape"])
    if begin < 0 or end < begin or min(shape, default=0) < 0:
        raise ValueError("negative sizes")
    if (dtype := _TENSORS.get(entry["dtype"])) is None:
        return None
    layout = Layout(path, start + begin, shape, dtype)
    if layout.n_bytes != end - begin:
        raise ValueError("sizes that differ")
    return layout


def _refuse_tensors(path: str, reason: str) -> NoReturn:
    raise InputError(f"{path} is not a whole .safetensors file: {reason}")


def _members(file: BinaryIO, path: str) -> dict[str, Layout]:
    """Returns the layouts of the members of an archive whose names end with ``.npy``."""
    layouts = {}
    n_bytes = location.stamp(path).n_bytes
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename:
                continue
            if info.flag_bits & 1:
                raise InputError(f"{path}: {info.filename} is encrypted")
            about = f"{path}: {info.filename}"
            if info.compress_type == zipfile.ZIP_STORED:
                file.seek(info.header_offset + 26)
                start = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
                file.seek(start)
                # Beyond the end of a cut file there would be no bytes to map.
                end = min(start + info.file_size, n_bytes)
                layout = _with_header(file, path, start, end, about)
            else:
                with archive.open(info) as member:
                    layout = _with_header(member, path, 0, info.file_size, about)  # type: ignore[arg-type]
                layout = layout._replace(member=info.filename)
            layouts[name] = layout
    return layouts


def _with_header(
    file: BinaryIO, path: str, start: int, end: int, about: str | None = None
) -> Layout:
    """Returns the layout of an array whose header begins here, and that must end at ``end``."""
    about = about or path
    refused = f"{about} is not a whole .npy file of numbers"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the header is parsed as Python, which may warn
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0), (3, 0)):
                raise ValueError(f"unknown version {version}")
            # Version 3 differs from 2 in names of fields only, and fields are refused.
            is_first = version == (1, 0)
            read = np.lib.format.read_array_header_1_0 if is_first else _read_longer_header
            shape, by_columns, dtype = read(file)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({_line(error)})") from error
    except Exception as error:  # a damaged header may raise nearly any type
        line = _line(error)
        # The message of NumPy for a long header advises to trust the file.
        reason = "its header cannot be read" if "securely" in line else line
        raise InputError(f"{refused} ({reason})") from error
    if dtype.hasobject:
        raise InputError(f"{refused}: it holds Python objects, which are never unpickled")
    # NumPy writes bfloat16 without its name, as two bytes of no type, and no other type of two
    # bytes is written so.
    dtype = _BFLOAT16 if dtype == np.dtype("V2") else dtype
    layout = Layout(path, file.tell(), tuple(map(int, shape)), dtype, by_columns)
    finish = layout.offset + layout.n_bytes
    if min(layout.shape, default=0) < 0 or finish != end:
        raise InputError(f"{refused}: its array ends after {finish - start} of {end - start} bytes")
    return layout


def _read_longer_header(file: BinaryIO) -> Any:
    return np.lib.format.read_array_header_2_0(file)


def _holds_arrays(file: BinaryIO) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error):
        return False


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def load(layout: Layout) -> np.ndarray:
    """Returns an array: a memory map of a file on this machine, or else a copy in memory.

    Raises:
        InputError: the file cannot be read, or a compressed array does not fit into memory.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/x.npy", np.arange(3))
        ...     load(npy_layout(f"{folder}/x.npy")).tolist()
        [0, 1, 2]
    """
    path, offset, shape, dtype, by_columns, member = layout
    order = "F" if by_columns else "C"
    try:
        if member is not None:
            with (
                location.open_file(path) as file,
                zipfile.ZipFile(file) as archive,
                archive.open(member) as stream,
            ):
                array = np.lib.format.read_array(stream, allow_pickle=False)
            return array.view(dtype) if array.dtype == np.dtype("V2") else array
        if not layout.n_bytes:
            return np.zeros(shape, dtype)
        if is_local(path):
            return np.memmap(path, dtype, "r", offset, shape, order)
        with location.open_file(path) as file:
            file.seek(offset)
            data = file.read(layout.n_bytes)
        return np.frombuffer(data, dtype).reshape(shape, order=order)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{path}: a compressed array of {layout.n_bytes} bytes needs more memory than there is;"
            " np.savez stores it without compression"
        ) from error
    except Exception as error:  # a damaged archive may raise nearly any type
        raise InputError(f"{path} cannot be read ({_line(error)})") from error
