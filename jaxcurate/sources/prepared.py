"""Opening of prepared TFDS datasets from their files, without importing modules that they name."""

import json
import os
from collections.abc import Iterator
from typing import Any

from etils import epath

from jaxcurate.checks import InputError

_TRUSTED = "tensorflow_datasets."
_CLASS_KEYS = {"type", "pythonClassName", "python_class_name"}


def import_tfds() -> Any:
    """Returns the module ``tensorflow_datasets``, which is imported when it is needed.

    Raises:
        InputError: it is not installed.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise InputError(
            f"tfds: sources need TensorFlow Datasets ({error}): pip install tensorflow-datasets"
        ) from error
    return tensorflow_datasets


def open_folder(name: str, folder: str | os.PathLike) -> Any:
    """Returns a builder of the dataset in the folder of one version.

    Args:
        name: name of the dataset, for errors.
        folder: folder with ``dataset_info.json``, ``features.json`` and the data.

    Raises:
        InputError: a file is missing or damaged, or names code of another package.
    """
    check_features(name, [epath.Path(folder) / "features.json"])
    builder = _opened(name, folder, lambda tfds: tfds.builder_from_directory(os.fspath(folder)))
    if builder is None:
        raise InputError(f"tfds:{name}: {folder} does not hold a whole dataset")
    return builder


def open_prepared(name: str, data_dir: str | os.PathLike) -> Any | None:
    """Returns a builder of a dataset that was prepared before, or None if it was not.

    Args:
        name: ``NAME``, ``NAME/CONFIG`` or ``NAME/CONFIG:VERSION``.
        data_dir: folder of TFDS datasets.

    Raises:
        InputError: a file is damaged, or names code of another package, or cannot be read.
    """
    try:
        folder = epath.Path(data_dir) / name.partition("/")[0].partition(":")[0]
        # A version is in the folder of the dataset, or in the folder of a configuration.
        files = [file for depth in ("*", "*/*") for file in folder.glob(f"{depth}/features.json")]
    except (OSError, ImportError) as error:  # ImportError: gs:// needs gcsfs
        raise InputError(f"{data_dir} cannot be read ({error})") from error
    check_features(name, files)
    if not files:
        return None
    return _opened(
        name,
        data_dir,
        lambda tfds: tfds.core.read_only_builder.builder_from_files(
            name, data_dir=os.fspath(data_dir)
        ),
    )


def check_features(name: str, files: list[epath.Path]) -> None:
    """Refuses features for which TFDS would import another package.

    TFDS imports every module that ``features.json`` names.

    Args:
        name: name of the dataset, for errors.
        files: paths of ``features.json``.

    Raises:
        InputError: the message names the class and the file, or why the file cannot be read.
    """
    for file in files:
        try:
            described = json.loads(file.read_text())
        except FileNotFoundError as error:
            raise InputError(f"tfds:{name}: {file} is missing") from error
        except (OSError, ValueError, RecursionError, ImportError) as error:
            raise InputError(f"tfds:{name}: {file} cannot be read ({error})") from error
        for class_name in _classes(described):
            if not class_name.startswith(_TRUSTED):
                raise InputError(
                    f"tfds:{name}: {file} names {class_name!r}, which would have to be imported; "
                    "only features of TFDS itself are read"
                )


def _classes(described: Any) -> Iterator[str]:
    """Yields the names of classes in the description of features."""
    waiting = [described]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            # A name without a dot is refused by TFDS, which then has nothing to import.
            named = (value.get(key) for key in _CLASS_KEYS)
            yield from (entry for entry in named if isinstance(entry, str) and "." in entry)


def _opened(name: str, where: str | os.PathLike, opening: Any) -> Any:
    tfds = import_tfds()
    try:
        return opening(tfds)
    except tfds.core.DatasetNotFoundError:
        return None
    except Exception as error:  # TFDS raises nearly any type on damaged metadata
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise InputError(f"tfds:{name} in {where} cannot be opened ({reason})") from error
