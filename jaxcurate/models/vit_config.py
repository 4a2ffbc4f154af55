"""Shapes of Vision Transformers: the few choices of training, and all choices of published ones."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from jaxcurate.checks import InputError, check_choice

Precision = Literal["float32", "bfloat16"]
Positions = Literal["sine_cosine", "learned", "rotary"]
"""Kind of positions: fixed sines and cosines, a learned table, or rotations of queries and keys."""
Interpolation = Literal["bicubic", "bicubic_antialias"]
"""Interpolation of a learned table at another image size."""
Pooling = Literal["mean", "class", "class_mean", "attention"]
"""Way to make one vector of the tokens of an image."""
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "silu"]
"""Nonlinearity: the exact GELU, its approximations by tanh and by a sigmoid, or SiLU."""
QKVBias = Literal["all", "no_key", "none"]
"""Parts of attention's input projection that have a bias."""
FinalNorm = Literal["tokens", "pooled"]
"""Name of the tokens that the last LayerNorm is applied to."""


@dataclass(frozen=True)
class ViTConfig:
    """Shape and precision of a :class:`~jaxcurate.models.vit.ViT` that is trained here.

    Raises:
        InputError: naming the field that cannot be used.

    Examples:
        >>> ViTConfig(image_size=32, patch_size=5)
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: patch_size=5 does not divide image_size=32
    """

    image_size: int = 32
    """Side of the square images in pixels."""
    patch_size: int = 8
    """Side of a patch in pixels; divides `image_size`."""
    width: int = 64
    """Number of features of a token, and of the output."""
    depth: int = 2
    """Number of transformer blocks."""
    n_heads: int = 2
    """Number of attention heads; divides `width`."""
    mlp_ratio: int = 4
    """Number of hidden units in the MLP of a block, as a multiple of `width`."""
    precision: Precision = "float32"
    """Precision of activations and matrix products. Weights are float32 either way, and `float32`
    asks the accelerator for full float32 products."""

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "width", "depth", "n_heads", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        any_size = isinstance(self, ViTArchitecture) and self.any_size
        if self.image_size % self.patch_size and not any_size:
            raise InputError(
                f"patch_size={self.patch_size} does not divide image_size={self.image_size}"
            )
        if self.width % self.n_heads:
            raise InputError(f"n_heads={self.n_heads} does not divide width={self.width}")
        if self.width % 4:
            raise InputError(f"width={self.width} must be a multiple of 4, for the positions")
        check_choice("precision", self.precision, get_args(Precision))


@dataclass(frozen=True)
class ViTArchitecture(ViTConfig):
    """Every choice in which the published Vision Transformers differ.

    By default, each choice is that of :class:`ViTConfig`.

    Raises:
        InputError: naming the field that cannot be used.

    Examples:
        DINOv2-S/14 with registers:

        >>> config = ViTArchitecture(
        ...     image_size=518, patch_size=14, width=384, depth=12, n_heads=6, class_token=True,
        ...     n_registers=4, positions="learned", activation="gelu", layer_scale=1.0,
        ...     pooling="class",
        ... )
        >>> config.n_features, config.n_hidden
        (384, 1536)
    """

    any_size: bool = False
    """True to take images of any height and width. Pixels at the right and the bottom that fill no
    patch are left out."""
    class_token: bool = False
    """True to put a learned class token before all others."""
    n_registers: int = 0
    """Number of learned tokens between the class token and the patches, without positions."""
    mask_token: bool = False
    """True to have a learned token that takes the place of masked patches."""
    positions: Positions = "sine_cosine"
    """Kind of positions."""
    interpolation: Interpolation = "bicubic"
    """Interpolation of learned positions for images of another size."""
    rotary_base: float = 100.0
    """Ratio of the highest frequency of rotary positions to the lowest one, nearly."""
    norm_epsilon: float = 1e-6
    """Number that each LayerNorm adds to the variance."""
    pre_norm: bool = False
    """True to normalize the tokens before the first block."""
    final_norm: FinalNorm = "tokens"
    """Whether the last LayerNorm is applied to all tokens, or to the pooled vector alone."""
    embed_bias: bool = True
    """False for an embedding of patches without a bias."""
    qkv_bias: QKVBias = "all"
    """Parts of attention's input projection that have a bias."""
    heads_first: bool = False
    """True to move the heads before the tokens in attention, which takes less time for hundreds of
    tokens. The result differs in rounding."""
    mlp_width: int | None = None
    """Number of hidden units in the MLP of a block; by default `width` times `mlp_ratio`."""
    activation: Activation = "gelu_tanh"
    """Nonlinearity of the MLPs."""
    gated: bool = False
    """True to multiply the hidden units with gates, which have the nonlinearity (SwiGLU)."""
    layer_scale: float | None = None
    """Initial factor of what each half of a block adds; None for no factors."""
    drop_path: float = 0.0
    """Probability in training that an image skips a half of the last block. It rises linearly with
    the depth, from 0 in the first block."""
    remat: bool = False
    """True to compute each block again in the backward pass, which takes a third more time and a
    fraction of the memory."""
    pooling: Pooling = "mean"
    """Way to make one vector of the tokens: the mean of the patches, the class token, both joined,
    or attention of a learned query to all tokens."""
    projection: int | None = None
    """Number of features that the pooled vector is projected to, without a bias; None for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {
            "positions": Positions,
            "interpolation": Interpolation,
            "final_norm": FinalNorm,
            "qkv_bias": QKVBias,
            "activation": Activation,
            "pooling": Pooling,
        }
        for name, kind in choices.items():
            check_choice(name, getattr(self, name), get_args(kind))
        for name in ("mlp_width", "projection"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} must be at least 1")
        if self.n_registers < 0:
            raise InputError(f"n_registers={self.n_registers} must not be negative")
        for name in ("rotary_base", "norm_epsilon"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)} must be positive")
        if not 0 <= self.drop_path < 1:
            raise InputError(f"drop_path={self.drop_path} must be within [0, 1)")
        if self.pooling.startswith("class") and not self.class_token:
            raise InputError(f"pooling={self.pooling!r} needs class_token=True")
        if self.positions == "rotary" and self.width // self.n_heads % 4:
            raise InputError(
                f"rotary positions need heads of a multiple of 4 features, not "
                f"{self.width // self.n_heads}"
            )

    @property
    def n_prefix(self) -> int:
        """Number of tokens before the patches."""
        return int(self.class_token) + self.n_registers

    @property
    def grid(self) -> int:
        """Number of patches along a side of an image of `image_size`."""
        return self.image_size // self.patch_size

    @property
    def n_hidden(self) -> int:
        """Number of hidden units in the MLP of a block."""
        return self.mlp_width or self.width * self.mlp_ratio

    @property
    def n_pooled(self) -> int:
        """Number of features of the pooled vector."""
        return self.width * (2 if self.pooling == "class_mean" else 1)

    @property
    def n_features(self) -> int:
        """Number of features of the output."""
        return self.projection or self.n_pooled


def as_architecture(config: ViTConfig) -> ViTArchitecture:
    """Returns a configuration with every choice spelled out.

    Examples:
        >>> as_architecture(ViTConfig(width=8)).pooling
        'mean'
    """
    if isinstance(config, ViTArchitecture):
        return config
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return ViTArchitecture(**fields)
