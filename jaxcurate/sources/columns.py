"""Columns of Arrow tables: the choice of the content, and values as contents, ids and notes."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.sources import files
from jaxcurate.sources.arrays import as_stored
from jaxcurate.sources.base import Content, Kind, Options
from jaxcurate.sources.names import printable
from jaxcurate.sources.pictures import is_picture
from jaxcurate.sources.usable import NOT_FINITE, UnusableContent

if TYPE_CHECKING:
    import pyarrow as pa

_NAMES: tuple[tuple[str, Kind], ...] = (
    *((name, "picture") for name in ("image", "picture", "img", "photo")),
    *((name, "picture") for name in ("jpg", "jpeg", "png", "webp")),
    *((name, "text") for name in ("text", "caption")),
    *((name, kind) for name in ("content",) for kind in ("picture", "text", "vector")),
    *((name, "vector") for name in ("embedding", "embeddings", "vector", "vectors", "features")),
)
"""Usual names of the content, and the kind that a column of this name must have, in order."""


class Fields(NamedTuple):
    """Columns of a table by their use."""

    content: str
    """Name of the column with the contents."""
    kind: Kind
    """Kind of the contents."""
    id: str | None
    """Name of the column with the ids, or None for ids that are hashes."""
    label: str | None
    """Name of the column with the labels."""
    domain: str | None
    """Name of the column with the domains."""
    metadata: tuple[str, ...]
    """Names of the other columns of single values."""
    class_names: Mapping[str, Sequence[str]]
    """Names of the classes of columns of class numbers."""


def choose_fields(schema: "pa.Schema", options: Options, name: str) -> Fields:
    """Returns the columns of a table by their use.

    The content is the column that ``content_key`` names; or the first that has a usual name and
    the type of it, as ``image``, ``text`` and ``embedding`` do; or the only column of bytes; or
    else the only one of lists of floats; or else the only one of text. Ids are the column ``id``
    or ``key``, labels the column ``label``, and domains the column ``domain``, if no key names
    others.

    Args:
        schema: schema of the table. It may hold the features of Hugging Face.
        options: options of the source with the keys.
        name: name of the table in errors.

    Raises:
        InputError: a key names no suitable column, there is no content, or there are several.

    Examples:
        >>> import pyarrow as pa
        >>> schema = pa.schema({"image": pa.binary(), "url": pa.string(), "label": pa.int64()})
        >>> choose_fields(schema, Options(), "x.parquet")[:6]
        ('image', 'picture', None, 'label', None, ('url',))
    """
    features = _features(schema)
    columns = {field.name: field.type for field in schema}
    for key in ("content_key", "id_key", "label_key", "domain_key"):
        given = getattr(options, key)
        if given is not None and schema.names.count(given) != 1:
            there = ", ".join(map(str, columns)) or "none"
            raise InputError(f"{name} has no column {given!r} ({key}); there are: {there}")
    columns = {column: type for column, type in columns.items() if schema.names.count(column) == 1}
    id_ = options.id_key or next((key for key in ("id", "key") if _is_id(columns.get(key))), None)
    label = options.label_key or ("label" if "label" in columns else None)
    domain = options.domain_key or ("domain" if "domain" in columns else None)
    notes = {id_, label, domain}
    kinds: dict[str, Kind] = {
        column: kind
        for column, type in columns.items()
        if column not in notes and features.get(column, {}).get("_type") not in ("Audio", "Video")
        if (kind := kind_of(type)) is not None
    }
    content = options.content_key or _content(kinds, columns, name)
    kind = kind_of(columns[content])
    if kind is None:
        raise InputError(
            f"{name}: column {content!r} (content_key) holds {columns[content]}, neither pictures "
            "as bytes, nor text, nor lists of numbers"
        )
    metadata = [column for column, type in columns.items() if _is_metadata(type)]
    used = {content, *notes}
    return Fields(
        content,
        kind,
        id_,
        label,
        domain,
        tuple(column for column in metadata if column not in used),
        {column: names for column, of in features.items() if (names := _class_names(of))},
    )


def kind_of(type: "pa.DataType") -> Kind | None:
    """Returns the kind of the contents that a column of this type holds, or None.

    Examples:
        >>> import pyarrow as pa
        >>> kind_of(pa.string()), kind_of(pa.list_(pa.float16(), 3)), kind_of(pa.bool_())
        ('text', 'vector', None)
    """
    import pyarrow as pa

    if _is_bytes(type):
        return "picture"
    if _is_text(type):
        return "text"
    if pa.types.is_struct(type):
        place = type.get_field_index("bytes")
        return "picture" if place >= 0 and _is_bytes(type.field(place).type) else None
    if _is_list(type):
        inner = type.value_type
        return "vector" if pa.types.is_floating(inner) or pa.types.is_integer(inner) else None
    return None


def content_of(
    column: "pa.Array | pa.ChunkedArray", row: int, kind: Kind, width: int | None, folder: str
) -> Content:
    """Returns the content of a row of a column.

    Args:
        column: column of a type that `kind_of` knows.
        row: position in the column.
        kind: kind of the contents.
        width: number of numbers that each vector must have.
        folder: folder to which the paths of pictures are relative.

    Returns:
        Bytes, text, or numbers ``[width]``.

    Raises:
        UnusableContent: the value is null, of another width, not finite, or not UTF-8.

    Examples:
        >>> import pyarrow as pa
        >>> content_of(pa.array([[1.0, 2.0]]), 0, "vector", 2, "")
        array([1., 2.], dtype=float32)
    """
    if kind == "vector":
        return _vector(column[row], width)
    try:
        value = column[row].as_py()
    except UnicodeDecodeError as error:
        raise UnusableContent("not UTF-8") from error
    if isinstance(value, dict):  # a picture as Hugging Face stores it
        data, path = value.get("bytes"), value.get("path")
        value = data if data is not None or not isinstance(path, str) else _local(path, folder)
    if value is None:
        raise UnusableContent(f"no {kind}: null")
    if not value:
        raise UnusableContent(f"an empty {kind}")
    return value


def width_of(column: "pa.Array | pa.ChunkedArray") -> int | None:
    """Returns the most common number of numbers of the lists of a column, or None without lists.

    Examples:
        >>> import pyarrow as pa
        >>> width_of(pa.array([[1.0], None, [1.0, 2.0], [3.0, 4.0]]))
        2
    """
    import pyarrow.compute as pc

    if hasattr(column.type, "list_size"):
        return column.type.list_size or None
    lengths = pc.call_function("list_value_length", [column])
    counts = lengths.drop_null().value_counts().to_pylist()
    widths = [(count["counts"], count["values"]) for count in counts if count["values"]]
    return max(widths)[1] if widths else None


def note_of(value: Any, class_names: Sequence[str] | None) -> str:
    """Returns a value as the text of an id, label or domain, or "" for null.

    Args:
        value: value of a column.
        class_names: names of the classes, of which the value is a number.

    Examples:
        >>> note_of(1, ["cat", "dog"]), note_of(None, None), note_of(7, ["cat"]), note_of("a", None)
        ('dog', '', '7', 'a')
    """
    if value is None:
        return ""
    if class_names and isinstance(value, int) and 0 <= value < len(class_names):
        return class_names[value]
    return printable(value) if isinstance(value, bytes) else str(value)


def metadata_of(column: "pa.ChunkedArray") -> np.ndarray:
    """Returns a column as an array without objects: "" or NaN stands for a text or number of null.

    Examples:
        >>> import pyarrow as pa
        >>> metadata_of(pa.chunked_array([["a", None]])), metadata_of(pa.chunked_array([[1, None]]))
        (array(['a', ''], dtype='<U1'), array([ 1., nan]))
    """
    import pyarrow as pa

    type = column.type
    if _is_text(type):
        return np.array([value or "" for value in column.to_pylist()], np.str_)
    if pa.types.is_decimal(type):
        column = column.cast(pa.float64())
    if pa.types.is_boolean(type) and column.null_count:
        column = column.cast(pa.int8())
    return column.to_numpy()


def _content(kinds: Mapping[str, Kind], columns: Mapping[str, "pa.DataType"], name: str) -> str:
    """Returns the column with the contents by its name, or by its type."""
    import pyarrow as pa

    lower = {column.lower(): column for column in reversed(list(kinds))}
    for usual, kind in _NAMES:
        if usual in lower and kinds[lower[usual]] == kind:
            return lower[usual]
    for kind in ("picture", "vector", "text"):
        found = [column for column, of in kinds.items() if of == kind]
        if kind == "vector":  # whole numbers are seldom embeddings
            found = [key for key in found if pa.types.is_floating(columns[key].value_type)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{name} has several columns that may be the content ({', '.join(found)}); "
                "content_key names one"
            )
    there = ", ".join(f"{column} ({type})" for column, type in columns.items()) or "none"
    raise InputError(f"{name} has no column of pictures, text or vectors; columns: {there[:300]}")


def _vector(scalar: Any, width: int | None) -> np.ndarray:
    if not scalar.is_valid:
        raise UnusableContent("no vector: null")
    values = scalar.values
    if len(values) != width:
        raise UnusableContent(f"has {len(values)} numbers; most rows have {width}")
    vector = as_stored(values.to_numpy(zero_copy_only=False))
    if not np.isfinite(vector).all():
        raise UnusableContent(NOT_FINITE)
    return vector


def _local(path: str, folder: str) -> bytes:
    """Returns the bytes of a picture that a table names by its path.

    Raises:
        UnusableContent: the file cannot be read, or is no picture. Other files of the machine are
            not read into a pool, whatever a table says.
    """
    if "://" in path:
        raise UnusableContent("only the address of a picture, not its bytes")
    try:
        with files.open_regular(os.path.join(folder, path)) as file:
            beginning = file.read(16)
            if not is_picture(beginning):
                raise UnusableContent(f"{PurePosixPath(path).name} is no picture")
            return beginning + file.read()
    except (OSError, ValueError) as error:
        reason = files.reason(error)
        raise UnusableContent(f"{PurePosixPath(path).name}: {reason}") from error


def _features(schema: "pa.Schema") -> dict[str, dict[str, Any]]:
    """Returns the features of Hugging Face in the metadata of a schema, by name."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = metadata["info"]["features"]
        return {key: value for key, value in features.items() if isinstance(value, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _class_names(feature: Mapping[str, Any]) -> list[str]:
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _is_bytes(type: "pa.DataType") -> bool:
    import pyarrow as pa

    return any(
        check(type)
        for check in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    )


def _is_text(type: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(type):
        type = type.value_type
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(type) for check in checks)


def _is_list(type: "pa.DataType") -> bool:
    import pyarrow as pa

    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(type) for check in checks)


def _is_id(type: "pa.DataType | None") -> bool:
    import pyarrow as pa

    return type is not None and (_is_text(type) or pa.types.is_integer(type))


def _is_metadata(type: "pa.DataType") -> bool:
    import pyarrow as pa

    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    dates = (pa.types.is_timestamp, pa.types.is_date)
    return _is_text(type) or any(check(type) for check in (*checks, *dates))
