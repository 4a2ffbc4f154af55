"""Published sizes of Vision Transformers, by name."""

from typing import Any

from jaxcurate.checks import check_choice
from jaxcurate.models.vit_config import ViTArchitecture

SIZES = {"Ti": (12, 192), "S": (12, 384), "B": (12, 768), "L": (24, 1024), "H": (32, 1280)}
"""Depth and width of each size. Heads have 64 features (80 in H), and MLPs four times the width."""


def vit_config(
    size: str, *, patch_size: int = 16, image_size: int = 224, **choices: Any
) -> ViTArchitecture:
    """Returns the shape of a Vision Transformer of a published size.

    Args:
        size: ``Ti``, ``S``, ``B``, ``L`` or ``H``.
        patch_size: side of a patch in pixels.
        image_size: side of the pictures in pixels.
        **choices: further fields of a :class:`ViTArchitecture`. By default there is a class
            token, which is the output, positions are learned, and the GELU is exact.

    Raises:
        InputError: the size is not known, or a choice cannot be used.

    References:
        Dosovitskiy et al.: An image is worth 16x16 words (2021),
        https://arxiv.org/abs/2010.11929, table 1.
        Touvron et al.: Training data-efficient image transformers (2021),
        https://arxiv.org/abs/2012.12877, table 1, for Ti and S.

    Examples:
        >>> config = vit_config("S", n_registers=4)
        >>> config.width, config.n_heads, config.grid
        (384, 6, 14)
    """
    check_choice("size", size, SIZES)
    depth, width = SIZES[size]
    fields: dict[str, Any] = dict(
        image_size=image_size,
        patch_size=patch_size,
        depth=depth,
        width=width,
        n_heads=width // (80 if size == "H" else 64),
        class_token=True,
        pooling="class",
        positions="learned",
        activation="gelu",
        heads_first=True,
    )
    return ViTArchitecture(**(fields | choices))
