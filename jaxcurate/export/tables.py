"""Columns of exported items in Arrow, with the features that Hugging Face's datasets read."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jaxcurate.export.base import ExportItem, encoded, utf8, vector
from jaxcurate.sources.base import Kind
from jaxcurate.sources.names import printable

_CONTENT = {"picture": "image", "text": "text", "vector": "vector"}
"""Name of the column of the content, by the kind of the items."""
_NAMES = {"float": "float32", "double": "float64", "halffloat": "float16"}
"""Hugging Face's name of a type, where Arrow has another."""


def ids(items: Sequence[ExportItem]) -> pa.Array:
    """Returns the ids of items, strings ``[b]``.

    Raises:
        InputError: an id is not valid Unicode.

    Examples:
        >>> ids([ExportItem("a", None, None, 0, 1)]).to_pylist()
        ['a']
    """
    data = [utf8(item.id, f"id {item.id!r}") for item in items]
    return pa.array(data, pa.binary()).cast(pa.string())


def paths(items: Sequence[ExportItem]) -> pa.Array:
    r"""Returns the paths of items, strings ``[b]``, null where there is none.

    A byte that is not UTF-8 becomes ``\xNN``, as in ids.

    Examples:
        >>> paths([ExportItem("a", None, "/data/a.png", 0, 1)]).to_pylist()
        ['/data/a.png']
    """
    names = [None if item.path is None else printable(item.path) for item in items]
    return pa.array(names, pa.string())


def rows_and_counts(items: Sequence[ExportItem], *, count: bool) -> dict[str, pa.Array]:
    """Returns the column ``row``, and the column ``count`` if it is asked for.

    Examples:
        >>> list(rows_and_counts([ExportItem("a", None, None, 0, 1)], count=True))
        ['row', 'count']
    """
    columns = {"row": pa.array([item.row for item in items], pa.int64())}
    if count:
        columns["count"] = pa.array([item.count for item in items], pa.int32())
    return columns


def extras(items: Sequence[ExportItem]) -> dict[str, pa.Array]:
    """Returns the further columns of items, by name.

    Examples:
        >>> item = ExportItem("a", None, None, 0, 1, {"cluster_l1": np.int32(3)})
        >>> extras([item])["cluster_l1"].type
        DataType(int32)
    """
    return {name: pa.array([item.extra[name] for item in items]) for name in items[0].extra}


def content(items: Sequence[ExportItem], kind: Kind) -> dict[str, pa.Array]:
    """Returns the column of the content: ``image``, ``text`` or ``vector``.

    A picture is a struct of its bytes and of the name of its file, if it has one. A vector is a
    list of fixed size, of its own type. Arrow has no bfloat16, which becomes float32 with the
    same numbers.

    Examples:
        >>> item = ExportItem("a", np.zeros(3, np.float16), None, 0, 1)
        >>> content([item], "vector")["vector"].type
        FixedSizeListType(fixed_size_list<item: halffloat>[3])
    """
    if kind == "vector":
        block = np.stack([vector(item) for item in items])
        flat = pa.array(block.astype(arrow_dtype(block.dtype), copy=False).ravel())
        column = pa.FixedSizeListArray.from_arrays(flat, block.shape[1])
    elif kind == "text":
        column = pa.array([encoded(item) for item in items], pa.binary()).cast(pa.string())
    else:
        names = [None if item.path is None else item.path.rpartition("/")[2] for item in items]
        files = [None if name is None else printable(name) for name in names]
        data = pa.array([encoded(item) for item in items], pa.binary())
        column = pa.StructArray.from_arrays([data, pa.array(files, pa.string())], ["bytes", "path"])
    return {_CONTENT[kind]: column}


def arrow_dtype(dtype: np.dtype) -> np.dtype:
    """Returns the type of numbers in which Arrow holds those of a type without loss.

    Examples:
        >>> arrow_dtype(np.dtype(np.float16))
        dtype('float16')
    """
    return np.dtype(np.float32) if dtype.name == "bfloat16" else dtype


def with_features(columns: dict[str, pa.Array]) -> pa.Table:
    """Returns a table whose schema tells Hugging Face's datasets the features of its columns.

    Examples:
        >>> with_features({"id": pa.array(["a"])}).schema.metadata
        {b'huggingface': b'{"info": {"features": {"id": {"dtype": "string", "_type": "Value"}}}}'}
    """
    features = {name: _feature(column.type) for name, column in columns.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table(columns).replace_schema_metadata(metadata)


def features_of(schema: pa.Schema) -> dict[str, Any]:
    """Returns the features that :func:`with_features` put into a schema.

    Examples:
        >>> features_of(with_features({"id": pa.array(["a"])}).schema)
        {'id': {'dtype': 'string', '_type': 'Value'}}
    """
    return json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]


def _feature(type_: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(type_):
        return {"_type": "Image"}
    if pa.types.is_fixed_size_list(type_):
        # Releases before 4.0 have no "List"; later ones read "Sequence" as one.
        return {"feature": _feature(type_.value_type), "length": type_.list_size} | {
            "_type": "Sequence"
        }
    return {"dtype": _NAMES.get(str(type_), str(type_)), "_type": "Value"}
