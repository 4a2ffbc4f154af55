"""Parameters of a Vision Transformer as tensors of a published layout, and back."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxcurate.models.layouts.base import Layout
from jaxcurate.models.vit_config import ViTArchitecture

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
"""Published names of the parameters of linear layers and LayerNorms."""
Shape = tuple[int, ...]


class Published(NamedTuple):
    """Tensors of a published layout that one parameter consists of.

    Weights are published as ``[out, in]``, and those of the patches as ``[width, 3, p, p]``;
    parameters are ``[in, out]``.
    """

    path: str
    """Name of the parameter, such as ``blocks.3.qkv.kernel``."""
    shape: Shape
    """Shape of the parameter."""
    tensors: dict[str, Shape]
    """Shapes of the tensors, by their names in the file."""
    patch_size: int

    def join(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the parameter, float32, made of its tensors."""
        parts = [tensors[name] for name in self.tensors]
        if self.path == "embed.kernel" and parts[0].ndim == 4:
            return np.ascontiguousarray(parts[0].transpose(2, 3, 1, 0)).reshape(self.shape)
        if self._is_matrix:
            return np.ascontiguousarray(np.concatenate(parts).T)
        return np.concatenate([part.reshape(-1) for part in parts]).reshape(self.shape)

    def split(self, value: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the tensors of the parameter."""
        if self.path == "embed.kernel":
            p = self.patch_size
            value = value.reshape(p, p, 3, -1).transpose(3, 2, 0, 1)
        elif self._is_matrix:
            value = value.T
        flat, tensors, begin = np.ascontiguousarray(value).reshape(-1), {}, 0
        for name, shape in self.tensors.items():
            end = begin + math.prod(shape)
            tensors[name] = flat[begin:end].reshape(shape)
            begin = end
        return tensors

    @property
    def _is_matrix(self) -> bool:
        return self.path.endswith(".kernel")


def published(
    layout: Layout, config: ViTArchitecture, path: str, shape: Shape, prefix: str
) -> Published | None:
    """Returns the tensors of a parameter, or None if the layout has no name for it.

    Args:
        layout: the layout.
        config: the shape of the model.
        path: name of the parameter.
        shape: shape of the parameter.
        prefix: prefix of all names.

    Examples:
        >>> from jaxcurate.models.layouts import LAYOUTS
        >>> config = ViTArchitecture(width=8)
        >>> found = published(LAYOUTS["siglip"], config, "blocks.1.out.bias", (8,), "vision_model.")
        >>> found.tensors
        {'vision_model.encoder.layers.1.self_attn.out_proj.bias': (8,)}
    """
    table, local = layout.names, path
    if path.startswith("blocks."):
        _, number, local = path.split(".", 2)
        table, prefix = layout.block_names, prefix + layout.block.format(number)
    layer, _, leaf = local.rpartition(".")
    gated = f"gated_{layer}"
    if local in table:
        found, ending = table[local], ""
    elif leaf in _LEAVES and config.gated and gated in table:
        found, ending = table[gated], f".{_LEAVES[leaf]}"
    elif leaf in _LEAVES and layer in table:
        found, ending = table[layer], f".{_LEAVES[leaf]}"
    else:
        return None
    names = [found] if isinstance(found, str) else list(found)
    if path == "embed.kernel":
        theirs = (config.width, 3, config.patch_size, config.patch_size)
    elif leaf == "kernel":
        theirs = (shape[1] // len(names), shape[0])
    elif len(shape) == 1:
        theirs = (shape[0] // len(names),)
    else:
        theirs = shape
    n_axes = layout.n_axes.get(local, len(theirs))
    if n_axes < len(theirs):
        theirs = theirs[len(theirs) - n_axes :]
    theirs = (1,) * (n_axes - len(theirs)) + theirs
    full = [name[1:] if name.startswith("/") else prefix + name for name in names]
    return Published(path, shape, {f"{name}{ending}": theirs for name in full}, config.patch_size)
