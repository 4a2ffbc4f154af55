"""Sources of the rows of an array in ``.npz`` archives and ``.safetensors`` files."""

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError, is_real
from jaxcurate.sources import location
from jaxcurate.sources.arrays import check_rows, natural, source_of
from jaxcurate.sources.base import Options, Source, without_splits
from jaxcurate.sources.layout import Layout, load, npz_layouts, tensor_layouts
from jaxcurate.sources.row_names import as_names, gathered


def open_npz(place: str, options: Options) -> Source:
    """Opens ``npz:PATH[:KEY]``, of a file, a pattern, or a folder of ``.npz`` archives.

    ``KEY`` is the name of the array, which may be left out if one array only is ``[n, d]``. An
    array that `numpy.savez` wrote is read from where it is; one of `numpy.savez_compressed` is
    held in memory.

    Args:
        place: path, and possibly a key, after the scheme.
        options: options of the source. `content_key` is another way to give the key, and `id_key`,
            `label_key` and `domain_key` are names of arrays ``[n]`` of strings or whole numbers.

    Raises:
        InputError: there is no such array, or it cannot be used; the message names the file.
    """
    return _open("npz", place, options, npz_layouts)


def open_safetensors(place: str, options: Options) -> Source:
    """Opens ``safetensors:PATH[:KEY]``, of a file, a pattern, or a folder of such files.

    Args:
        place: path, and possibly a key, after the scheme.
        options: options of the source, as for `open_npz`. Ids are whole numbers, because these
            files hold no strings.

    Raises:
        InputError: there is no such array, or it cannot be used; the message names the file.
    """
    return _open("safetensors", place, options, tensor_layouts)


def with_key(place: str, key: str | None) -> tuple[str, str | None]:
    """Splits a place into a path and the key after its last colon, if it has one.

    Args:
        place: path that may be followed by a colon and a key.
        key: key that is given in another way.

    Raises:
        InputError: two different keys are given.

    Examples:
        >>> with_key("gs://bucket/x.npz:rows", None), with_key("gs://bucket/x.npz", None)
        (('gs://bucket/x.npz', 'rows'), ('gs://bucket/x.npz', None))
    """
    path, colon, last = place.rpartition(":")
    exists = is_local(place) and os.path.lexists(os.path.expanduser(place))
    if not colon or not path or last.startswith("//") or exists:
        return place, key
    if key not in (None, last):
        raise InputError(f"{place} names the array {last!r}, but content_key={key!r}")
    if not last:
        raise InputError(f"{place} ends with a colon, but no name of an array follows")
    return path, last


def _open(
    scheme: str, place: str, options: Options, layouts_of: Callable[[str], Mapping[str, Layout]]
) -> Source:
    spec = f"{scheme}:{place}"
    without_splits(spec, options)
    path, key = with_key(place, options.content_key)
    paths = natural(location.expanded(path, (f".{scheme}",), "arrays"))
    layouts = [layouts_of(path) for path in paths]
    chosen = [
        _rows_among(found, key, path, spec) for found, path in zip(layouts, paths, strict=True)
    ]

    def names(key: str) -> np.ndarray:
        return np.concatenate(
            [
                as_names(load(_array_among(found, key, path)), f"{path}: {key}")
                for found, path in zip(layouts, paths, strict=True)
            ]
        )

    keys = [key, options.id_key, options.label_key, options.domain_key]
    about = [str(key) for key in keys]
    return source_of(spec, chosen, gathered(options, names), options, about=about)


def _rows_among(layouts: Mapping[str, Layout], key: str | None, path: str, spec: str) -> Layout:
    """Returns the layout of a key, or else of the only array that may hold rows."""
    if key is not None:
        layout = _array_among(layouts, key, path)
        check_rows(layout.shape, layout.dtype, f"{path}: {key}")
        return layout
    suitable = [name for name, layout in layouts.items() if _may_hold_rows(layout)]
    if len(suitable) == 1:
        return layouts[suitable[0]]
    if not suitable:
        raise InputError(
            f"{path} holds no real numbers [n, d] with n, d > 0; its arrays are {_listed(layouts)}"
        )
    raise InputError(
        f"{path} holds several arrays [n, d], {_listed(suitable)}: name one, as in "
        f"{spec}:{suitable[0]}"
    )


def _may_hold_rows(layout: Layout) -> bool:
    return len(layout.shape) == 2 and 0 not in layout.shape and is_real(layout.dtype)


def _array_among(layouts: Mapping[str, Layout], key: str, path: str) -> Layout:
    if key not in layouts:
        raise InputError(f"{path} holds no array {key!r}; its arrays are {_listed(layouts)}")
    return layouts[key]


def _listed(names: Mapping[str, Layout] | Sequence[str], most: int = 8) -> str:
    """Returns names in one line, of which the first few if there are many."""
    shown = [repr(name) for name in sorted(names)]
    more = [f"and {len(shown) - most} more"] if len(shown) > most else []
    return ", ".join(shown[:most] + more) or "none"
