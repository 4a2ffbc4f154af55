"""Reader of the tensors in a known PyTorch checkpoint, by NumPy alone, that runs no code in it."""

import hashlib
import io
import math
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcurate.checks import InputError

MAX_BYTES = 2**30
"""Largest size of a checkpoint that is read, in bytes."""
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_STORAGES = {
    "HalfStorage": np.dtype("<f2"),
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "IntStorage": np.dtype("<i4"),
    "LongStorage": np.dtype("<i8"),
}


def read_torch_checkpoint(path: str | os.PathLike, sha256: str) -> dict[str, np.ndarray]:
    """Reads a state dict that ``torch.save`` wrote in its format from before version 1.6.

    Such a file consists of five pickles (magic number, version, platform, the object, the storage
    keys) and the raw storages. Two measures guard against malicious pickles: no byte is
    interpreted before the SHA-256 digest of the whole file has been checked, and the unpickler
    knows only tensors and ordered dictionaries and imports nothing.

    Args:
        path: the checkpoint.
        sha256: hexadecimal SHA-256 digest that the file must have.

    Returns:
        The tensors by name, as arrays that share no memory, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is larger than 1 GiB, has another digest, is in another format (the
            newer one is a zip archive), is damaged, or holds anything but named tensors. The
            message starts with the path.

    References:
        ``torch.serialization``, `_legacy_load`:
        https://pytorch.org/docs/stable/notes/serialization.html
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # opening a FIFO would wait for its writer
        raise InputError(f"{path}: is not a file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES} bytes, so not a checkpoint known here")
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise InputError(f"{path}: sha256 is {digest}, expected {sha256}; truncated or altered?")
    if data.startswith(b"PK\x03\x04"):
        raise InputError(f"{path}: is a zip archive; only checkpoints in the older format are read")
    try:
        return _read(io.BytesIO(data))
    except Exception as error:  # a damaged pickle may raise nearly any type
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: not a readable PyTorch checkpoint: {reason}") from error


class _Tensor(NamedTuple):
    """Place of a tensor in a storage later in the file; strides count elements."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _TensorUnpickler(pickle.Unpickler):
    """Unpickler that knows nothing but ordered dictionaries, tensors and storages.

    `storages` collects the element type and count of every storage that the pickle refers to.
    """

    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="ascii")
        self.storages: dict[str, tuple[np.dtype, int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                # A new function each time, because a pickle may set attributes on it.
                return lambda storage, offset, shape, strides, *_: _Tensor(
                    storage, offset, shape, strides
                )
            case "torch", _ if name in _STORAGES:
                return name
        raise pickle.UnpicklingError(f"refused to resolve {module}.{name}")

    def persistent_load(self, pid: Any) -> str:
        kind, storage_type, key, _location, count, view = pid
        if kind != "storage" or view is not None or not isinstance(key, str):
            raise pickle.UnpicklingError(f"refused the persistent id {pid!r}")
        entry = _STORAGES[storage_type], count
        if self.storages.setdefault(key, entry) != entry:
            raise pickle.UnpicklingError(f"storage {key} is described in two ways")
        return key


def _read(file: io.BytesIO) -> dict[str, np.ndarray]:
    """Reads the five pickles and the storages after them."""
    if _TensorUnpickler(file).load() != _MAGIC or _TensorUnpickler(file).load() != _VERSION:
        raise InputError("wrong magic number or version")
    if _TensorUnpickler(file).load().get("little_endian") is not True:
        raise InputError("written on a big-endian machine")
    unpickler = _TensorUnpickler(file)
    tensors = unpickler.load()
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, _Tensor) for name, tensor in tensors.items()
    ):
        raise InputError("holds more than named tensors")
    keys = _TensorUnpickler(file).load()
    if sorted(keys) != sorted(unpickler.storages):
        raise InputError("its list of storages does not match its tensors")
    storages = {key: _read_storage(file, *unpickler.storages[key]) for key in keys}
    if file.read(1):
        raise InputError("bytes are left behind the last storage")
    return {name: _view(storages[tensor.storage], tensor) for name, tensor in tensors.items()}


def _read_storage(file: io.BytesIO, dtype: np.dtype, count: int) -> np.ndarray:
    """Reads one storage: its number of elements as int64, and the elements."""
    if int.from_bytes(file.read(8), "little") != count:
        raise InputError("a storage has another size than its tensors say")
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise InputError("ends within a storage")
    return np.frombuffer(data, dtype)


def _view(storage: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """Copies a strided view of a storage, without ever reading outside it."""
    _, offset, shape, strides = tensor
    if min(offset, *shape, *strides, 0) < 0 or len(shape) != len(strides):
        raise InputError("a tensor has a negative or missing size or stride")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.size or (0 not in shape and last >= storage.size):
        raise InputError("a tensor reaches outside its storage")
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy(order="C")
