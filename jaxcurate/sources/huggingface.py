"""Source of a dataset of Hugging Face: its saved Arrow files, or by name through `datasets`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxcurate.artifacts.local import is_local, parsed
from jaxcurate.checks import InputError
from jaxcurate.sources import files, location
from jaxcurate.sources.base import Options, Source
from jaxcurate.sources.tables import TableSource

if TYPE_CHECKING:
    import pyarrow as pa

_STATE, _SPLITS, _INFO = "state.json", "dataset_dict.json", "dataset_info.json"


class Batches:
    """Record batches of Arrow streams, which stay on disk and are mapped into memory.

    Args:
        schema: schema of all batches.
        batches: record batches, of at least one row each.
        places: name of the file of each batch, and its first row there.
        folder: folder to which the paths of pictures are relative.
        paths: paths of the files of all batches, if they are on disk. Another process, to which
            the object is sent, maps them anew, and no batch is copied.
    """

    def __init__(
        self,
        schema: "pa.Schema",
        batches: list["pa.RecordBatch"],
        places: list[tuple[str, int]],
        folder: str,
        paths: Sequence[str] = (),
    ) -> None:
        self.schema = schema
        self._paths = list(paths)
        self._batches = batches
        self._places = places
        self._folder = folder
        self.ends = np.cumsum([len(batch) for batch in batches], dtype=np.int64)

    def __getstate__(self) -> dict[str, Any]:
        """Returns the paths of the files, or all batches where there are no files."""
        kept = ("_paths", "_folder") if self._paths else self.__dict__
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Maps the files."""
        if state["_paths"]:
            state = _open_streams(state["_paths"], state["_folder"]).__dict__
        self.__dict__.update(state)

    def place(self, part: int) -> tuple[str, int, str]:
        """Returns the name of the file of a batch, its first row there, and the folder."""
        return *self._places[part], self._folder

    def read(self, part: int, names: Sequence[str]) -> "pa.Table":
        """Returns columns of a batch, whose positions within the file are checked.

        Raises:
            InputError: the batch is damaged.
        """
        import pyarrow as pa

        columns = []
        for name in names:
            column = self._batches[part].column(name)
            try:
                _check(column)
            except (pa.ArrowException, ValueError, MemoryError) as error:
                line = (str(error).splitlines() or [""])[0]
                file = self._places[part][0]
                raise InputError(f"{file}: column {name!r} is damaged ({line[:200]})") from error
            columns.append(column)
        return pa.Table.from_arrays(columns, names=list(names))


def open_dataset(name: str, options: Options) -> Source:
    """Opens ``huggingface:PATH``, a saved dataset, or ``huggingface:NAME``, a dataset by its name.

    A dataset that ``save_to_disk`` wrote is read without the package `datasets`. A name is opened
    by that package, only if ``download`` is set.

    Args:
        name: path of a folder, or ``OWNER/NAME`` or ``OWNER/NAME:CONFIG``.
        options: options of the source. Keys name columns, which
            `jaxcurate.sources.columns.choose_fields` finds by default.

    Raises:
        InputError: there is no such dataset or split, or it cannot be read.

    Examples:
        >>> import tempfile
        >>> import pyarrow as pa
        >>> table = pa.table({"id": ["a"], "text": ["a cat"]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with open(f"{folder}/state.json", "w") as file:
        ...         _ = file.write('{"_data_files": [{"filename": "0.arrow"}]}')
        ...     with pa.ipc.new_stream(f"{folder}/0.arrow", table.schema) as stream:
        ...         stream.write_table(table)
        ...     open_dataset(folder, Options()).read(0)
        Item(id='a', content='a cat')
    """
    if not is_local(name):
        raise InputError(
            f"huggingface:{name} is not on this machine: saved datasets are read from local "
            "folders, and Parquet files from buckets by parquet:"
        )
    path = os.path.expanduser(name)
    if not os.path.isdir(path):
        if not options.download:
            raise InputError(
                f"huggingface:{name}: there is no such folder; download=True lets the package "
                "datasets fetch a dataset by its name"
            )
        return _by_name(name, options)
    folder = _split_folder(path, options.split)
    paths = _data_files(folder)
    keys = (options.content_key, options.id_key, options.label_key, options.domain_key)
    about = ["huggingface", *(key or "" for key in keys)]
    notes = [os.path.join(folder, file) for file in (_STATE, _INFO)]
    known = [*paths, *(note for note in notes if os.path.isfile(note))]
    source = TableSource(
        f"huggingface:{name}:{options.split}",
        _open_streams(paths, folder),
        options,
        lambda: location.fingerprint_of(known, options.verify, about),
    )
    return cast(Source, source)  # its fingerprint is a cached property


def _split_folder(path: str, split: str) -> str:
    """Returns the folder of a split, or the folder itself if it has no other splits."""
    if os.path.isfile(os.path.join(path, _SPLITS)):
        splits = _json(os.path.join(path, _SPLITS)).get("splits")
        known = [name for name in splits if _is_name(name)] if isinstance(splits, list) else []
        if split not in known:
            raise InputError(f"{path} has no split {split!r}; known are {', '.join(known)}")
        return os.path.join(path, split)
    if not os.path.isfile(os.path.join(path, _STATE)):
        with files.scan(path) as entries:
            tables = any(entry.name.endswith(".parquet") for entry in entries)
        hint = f"; parquet:{path} reads its Parquet files" if tables else ""
        raise InputError(
            f"{path} is no dataset of save_to_disk: it has no {_STATE} or {_SPLITS}{hint}"
        )
    own = _json(os.path.join(path, _STATE)).get("_split")
    if split not in ("train", own):
        raise InputError(f"{path} is a single split, {own or 'without a name'}, not {split!r}")
    return path


def _data_files(folder: str) -> list[str]:
    """Returns the paths of the Arrow files of a saved dataset, in order."""
    path = os.path.join(folder, _STATE)
    state = _json(path)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise InputError(
            f"{folder} has indices over its rows, which are not read: save it again after "
            "flatten_indices()"
        )
    entries = state.get("_data_files")
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries or ()]
    if not names or not all(map(_is_name, names)):
        raise InputError(f"{path} does not name the files of a dataset")
    return [os.path.join(folder, cast(str, name)) for name in names]


def _open_streams(paths: list[str], folder: str) -> Batches:
    """Returns the record batches of Arrow streams, mapped into memory.

    Raises:
        InputError: a file cannot be read, or has other columns than the first.
    """
    schema: Any = None
    batches: list[pa.RecordBatch] = []
    places: list[tuple[str, int]] = []
    for path in paths:
        files.check_regular(path)
        first = 0
        for item in _stream(path):
            if not hasattr(item, "num_rows"):
                schema = item if schema is None else schema
                if not schema.equals(item, check_metadata=False):
                    raise InputError(f"{path} has other columns than {paths[0]}")
            elif item.num_rows:
                batches.append(item)
                places.append((PurePath(path).name, first))
                first += item.num_rows
    return Batches(schema, batches, places, folder, paths)


def _stream(path: str) -> Iterator[Any]:
    """Yields the schema of an Arrow stream and then its record batches."""
    import pyarrow as pa

    try:
        with pa.memory_map(path) as file:
            reader = pa.ipc.open_stream(file)
            _ = reader.schema.names  # names that are not UTF-8 are refused here
            yield reader.schema
            yield from reader
    except GeneratorExit:
        raise
    except InputError:
        raise
    except Exception as error:  # a damaged stream may raise nearly any type
        line = (str(error).splitlines() or [""])[0]
        raise InputError(f"{path} is not a whole Arrow stream ({line[:200]})") from error


def _by_name(name: str, options: Options) -> Source:
    """Opens a dataset through the package `datasets`, which downloads what is missing."""
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"huggingface:{name} needs the package datasets: pip install datasets"
        ) from error
    repository, _, config = name.partition(":")
    try:
        dataset = datasets.load_dataset(repository, config or None, split=options.split)
        if dataset._indices is not None:
            dataset = dataset.flatten_indices()
        table, schema = dataset.data.table, dataset.features.arrow_schema
    except Exception as error:  # the package has many types of errors
        line = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise InputError(f"huggingface:{name} cannot be opened ({line[:300]})") from error
    batches = [batch for batch in table.to_batches() if batch.num_rows]
    firsts = np.cumsum([0, *(batch.num_rows for batch in batches)]).tolist()
    places = [(repository, first) for first in firsts[:-1]]
    keys = (options.content_key, options.id_key, options.label_key, options.domain_key)
    about = ":".join(key or "" for key in keys)
    source = TableSource(
        f"huggingface:{name}:{options.split}",
        Batches(schema, batches, places, ""),
        options,
        lambda: f"{dataset._fingerprint}:{about}",
    )
    return cast(Source, source)


def _check(column: "pa.Array") -> None:
    """Refuses a column that points beyond its memory. Text is checked when it is decoded."""
    import pyarrow as pa

    if pa.types.is_string(column.type):
        column = column.view(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.view(pa.large_binary())
    elif pa.types.is_struct(column.type):
        column.validate()
        for i in range(column.type.num_fields):
            _check(column.field(i))
        return
    column.validate(full=True)


def _json(path: str) -> dict[str, Any]:
    """Returns an object in JSON from a file."""
    with location.open_file(path) as file:
        data = file.read()
    try:
        value = parsed(data.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no object of JSON")
    return value


def _is_name(name: Any) -> bool:
    """Returns whether a value names a file within its folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and PurePath(name).name == name
