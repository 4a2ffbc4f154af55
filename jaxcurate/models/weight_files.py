"""Folders of published weights: their settings in JSON, and their tensors in safetensors files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  lets NumPy know the name of bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxcurate.artifacts.local import parsed
from jaxcurate.checks import InputError

INDEX = "model.safetensors.index.json"
"""Name of the file that says which tensors lie in which of several files."""
_SINGLE = "model.safetensors"
_LARGEST_JSON = 2**26
_FLOATS = ("F64", "F32", "F16", "BF16")
_HUB = "hf:"


class Checkpoint:
    """Tensors of one or several safetensors files, which are mapped to memory and read by name.

    Args:
        paths: the files.

    Raises:
        InputError: a file is damaged, or two files have a tensor of the same name.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Shapes of all tensors, by their names."""
        self._files: dict[str, tuple[Path, Any]] = {}
        for path in paths:
            try:
                file = safe_open(path, framework="numpy")
                for name in file.keys():  # noqa: SIM118  it is no mapping
                    if name in self._files:
                        first = self._files[name][0]
                        raise InputError(f"{path}: tensor {name} is also in {first.name}")
                    self._files[name] = path, file
                    self.shapes[name] = tuple(file.get_slice(name).get_shape())
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path}: not a whole safetensors file: {_line(error)}") from error

    def read(self, name: str) -> np.ndarray:
        """Reads a tensor of floats.

        Returns:
            A new float32 array.

        Raises:
            InputError: the tensor does not hold floats, or has a NaN or an infinity.
        """
        path, file = self._files[name]
        kind = file.get_slice(name).get_dtype()
        if kind not in _FLOATS:
            raise InputError(f"{path}: tensor {name} has the type {kind}, not a float")
        array = np.asarray(file.get_tensor(name)).astype(np.float32)
        if not np.isfinite(array).all():
            raise InputError(f"{path}: tensor {name} has a NaN or an infinity")
        return array


def open_checkpoint(folder: Path) -> Checkpoint:
    """Opens the tensors of a folder: of one safetensors file, or of all that an index names.

    Raises:
        InputError: there are no such files, or they are damaged or do not have what the index says.
    """
    index = folder / INDEX
    if index.exists():
        places = read_json(index).get("weight_map")
        if not isinstance(places, Mapping) or not places:
            raise InputError(f"{index}: has no weight_map")
        names = sorted({name for name in places.values() if isinstance(name, str)})
        wrong = [name for name in places.values() if not isinstance(name, str) or "/" in name]
        if wrong:
            raise InputError(f"{index}: {wrong[0]!r} is no name of a file in the folder")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise InputError(f"{folder / missing[0]} is missing, which {INDEX} names")
        checkpoint = Checkpoint([folder / name for name in names])
        absent = sorted(set(places) - set(checkpoint.shapes))
        if absent:
            raise InputError(f"{index}: tensor {absent[0]} is in none of the files")
        return checkpoint
    files = sorted(folder.glob("*.safetensors"))
    if folder / _SINGLE in files:
        files = [folder / _SINGLE]
    if len(files) != 1:
        found = f"{len(files)} safetensors files and no {INDEX}" if files else "no safetensors file"
        raise InputError(f"{folder}: has {found}")
    return Checkpoint(files)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Raises:
        InputError: the file is missing, too large, or not such a file.
    """
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise InputError(f"{path}: too large for settings in JSON")
        value = parsed(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not JSON: {_line(error)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: is no JSON object")
    return value


def local_folder(path: str | os.PathLike) -> Path:
    """Returns a folder of weights; one on the Hugging Face hub is downloaded first.

    Args:
        path: a folder, or ``hf:NAME`` or ``hf:NAME@REVISION``. Only JSON and safetensors files
            are downloaded, to the cache of ``huggingface_hub``.

    Raises:
        InputError: there is no such folder, the download failed, or ``huggingface_hub`` is not
            installed.

    Examples:
        >>> local_folder("/nowhere")
        Traceback (most recent call last):
        jaxcurate.checks.InputError: /nowhere: there is no such folder
    """
    text = os.fspath(path)
    if not text.startswith(_HUB):
        folder = Path(text).expanduser()
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder")
        return folder
    name, _, revision = text.removeprefix(_HUB).partition("@")
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(f"{text} needs another package: pip install 'jaxcurate[hub]'") from error
    try:
        found = huggingface_hub.snapshot_download(
            name, revision=revision or None, allow_patterns=["*.json", "*.safetensors"]
        )
    except (OSError, ValueError) as error:  # the errors of the hub are of these two kinds
        raise InputError(f"{text} cannot be downloaded: {_line(error)}") from error
    return Path(found)


def _line(error: BaseException) -> str:
    """Returns the first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
