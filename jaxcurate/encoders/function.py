"""Function of the user's as an encoder, named as ``package.module:function``."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxcurate.checks import InputError
from jaxcurate.encoders.base import Batches, EmbedConfig, Encoder
from jaxcurate.runtime.devices import Devices


def make(settings: EmbedConfig, batches: Batches, devices: Devices) -> Encoder:
    """Returns an encoder that calls the function that ``settings.encoder`` names.

    The function takes a list of items, RGB pictures of Pillow at their full size, texts, or an
    array of vectors ``[b, d]``, and returns an array ``[b, d]`` of real numbers. It runs in this
    process, on whatever device it chooses. What it computes is not part of the fingerprint of the
    pool: after a change of the function, the folder of the pool has to be removed. The module may
    lie in the current folder.

    Raises:
        InputError: there is no such function; the message is one line.

    Examples:
        >>> from jaxcurate.encoders import EmbedConfig, embed, make_encoder
        >>> devices = Devices.first(1)
        >>> settings = EmbedConfig("numpy:atleast_2d")
        >>> encoder = make_encoder(settings, lambda prepare: [], devices, "vector")
        >>> embed(encoder, np.eye(2), batch_size=2, devices=devices).dtype
        dtype('float32')
    """
    del batches, devices
    name = settings.encoder or ""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # an installed command, unlike `python -m`, does not search it
        sys.path.append(os.getcwd())
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"embed.encoder={name!r} cannot be imported: {error}") from error
    if not callable(function):
        raise InputError(f"embed.encoder={name!r} is {type(function).__name__}, not a function")
    same = lambda content: content
    return Encoder(_Checked(name, function), (), ("picture", "text", "vector"), same, is_jax=False)


class _Checked:
    """Function whose result is checked."""

    def __init__(self, name: str, function: Callable[[Any], Any]) -> None:
        self._name, self._function = name, function

    def __call__(self, items: Sequence[Any], params: Any) -> np.ndarray:
        del params
        rows = np.asarray(self._function(items))
        if rows.ndim != 2 or len(rows) != len(items) or rows.dtype.kind not in "fiu":
            raise InputError(
                f"embed.encoder={self._name!r} returned {rows.dtype} {list(rows.shape)} for "
                f"{len(items)} items: an array [{len(items)}, d] of real numbers is needed"
            )
        return rows.astype(np.float32, copy=False)
