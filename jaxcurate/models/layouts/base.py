"""Form of a published layout of a Vision Transformer, and entries that all families share."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, get_args

from jaxcurate.checks import InputError, check_choice, check_whole, short_repr
from jaxcurate.models.picture_input import Color, PictureInput, Resample
from jaxcurate.models.vit_config import Pooling, ViTArchitecture

POOLING = "jaxcurate_pooling"
"""Entry of a published ``config.json`` that names another pooling than the usual one of the family.
Other programs ignore it."""
Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by their names."""
Names = str | tuple[str, ...]
"""Names of the tensors that are joined to one parameter."""


class Layout(NamedTuple):
    """Names and settings of a family of published models.

    A parameter ``blocks.3.qkv.kernel`` has the names of ``qkv`` in `block_names`, after `block`
    with its number and before ``.weight``. A name with a leading slash has no prefix.
    """

    prefixes: tuple[str, ...]
    """Prefixes that all names may have; the first is the one that is written."""
    names: dict[str, Names]
    """Names of tensors or layers outside of the blocks."""
    block: str
    """Prefix of the names in a block, with braces in place of its number."""
    block_names: dict[str, Names]
    """Names of tensors or layers in a block; those of a gated MLP begin with ``gated_``."""
    n_axes: dict[str, int]
    """Number of axes of tensors that have leading axes of one entry."""
    ignored: tuple[str, ...]
    """Beginnings of names of tensors that features do not depend on."""
    architecture: Callable[["Settings", Collection[str], Shapes], ViTArchitecture]
    """Function of settings, of names without prefix, and of all shapes."""
    settings: Callable[[ViTArchitecture], dict[str, Any]]
    """Function that writes settings; an architecture beyond the layout reads back differently."""
    picture: Callable[[ViTArchitecture], PictureInput]
    """Preprocessing of the family, for folders that do not tell theirs."""


class Settings:
    """Entries of a ``config.json``, with their types checked; null stands for the default.

    Examples:
        >>> Settings({"hidden_size": "768"}).whole("hidden_size", 384)
        Traceback (most recent call last):
        jaxcurate.checks.InputError: hidden_size='768' must be a whole number
    """

    def __init__(self, entries: Mapping[str, Any]) -> None:
        self.entries = entries

    def get(self, name: str, default: Any) -> Any:
        """Returns an entry of any type."""
        value = self.entries.get(name)
        return default if value is None else value

    def whole(self, name: str, default: int, least: int = 1) -> int:
        """Returns a whole number."""
        value = self.get(name, default)
        check_whole(name, value, least)
        return value

    def number(self, name: str, default: float) -> float:
        """Returns a number."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{name}={short_repr(value)} must be a number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Returns true or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise InputError(f"{name}={short_repr(value)} must be true or false")
        return value

    def only(self, name: str, default: Any, supported: Any) -> None:
        """Refuses an entry of another value."""
        value = self.get(name, default)
        if value != supported:
            raise InputError(f"{name}={short_repr(value)} is not supported, {supported!r} is")


_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
}
_PUBLISHED_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
}


def common_fields(
    s: Settings, *, width: int, n_heads: int, patch: int, epsilon: float, activation: str
) -> dict[str, Any]:
    """Returns the fields that all families write under the same names."""
    s.only("num_channels", 3, 3)
    size = s.get("image_size", 224)
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    check_whole("image_size", size, 1)
    name = s.get("hidden_act", activation)
    check_choice("hidden_act", name, _ACTIVATIONS)
    return {
        "any_size": True,
        "heads_first": True,
        "image_size": size,
        "patch_size": s.whole("patch_size", patch),
        "width": s.whole("hidden_size", width),
        "depth": s.whole("num_hidden_layers", 12),
        "n_heads": s.whole("num_attention_heads", n_heads),
        "norm_epsilon": s.number("layer_norm_eps", epsilon),
        "activation": _ACTIVATIONS[name],
    }


def pooling_of(s: Settings, usual: str) -> Any:
    pooling = s.get(POOLING, usual)
    check_choice(POOLING, pooling, get_args(Pooling))
    return pooling


def common_settings(c: ViTArchitecture, usual: str) -> dict[str, Any]:
    return {
        "image_size": c.image_size,
        "patch_size": c.patch_size,
        "num_channels": 3,
        "hidden_size": c.width,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.n_heads,
        "layer_norm_eps": c.norm_epsilon,
        "hidden_act": _PUBLISHED_ACTIVATIONS[c.activation],
        **({} if c.pooling == usual else {POOLING: c.pooling}),
    }


def stretched(
    resample: Resample, mean: Color, std: Color
) -> Callable[[ViTArchitecture], PictureInput]:
    """Returns the preprocessing that stretches pictures to the size of the model."""
    return lambda c: PictureInput(c.image_size, c.image_size, resample, False, mean, std)


HALF: Color = (0.5, 0.5, 0.5)
"""Mean and standard deviation that scale colors to [-1, 1]."""
