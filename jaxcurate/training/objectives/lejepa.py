"""LeJEPA: views predict each other, and their embeddings keep the shape of a Gaussian (SIGReg)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcurate.checks import InputError
from jaxcurate.models.vit import ViT
from jaxcurate.models.vit_blocks import linear
from jaxcurate.models.vit_config import ViTConfig, as_architecture
from jaxcurate.training.objectives.base import Batch, Crop, Objective, Outcome, Variables

T_MAX = 5.0
"""Largest frequency at which characteristic functions are compared."""
N_POINTS = 17
"""Number of frequencies from 0 to :data:`T_MAX`. Those below 0 add the same again."""


@dataclass(frozen=True)
class LeJEPA(Objective):
    """Prediction of the mean embedding of the global views of a picture from each of its views.

    The prediction alone is perfect when all pictures have the same embedding. :func:`sigreg`
    forbids this, so that neither a teacher nor a stopped gradient nor a schedule is needed.

    The defaults are for small pictures and short runs. The paper has 2 global views of 224 pixels,
    6 local ones of 98 pixels and `local_scale` (0.05, 0.3), 1024 slices, a projection head of
    2 x 2048 hidden units, and a learning rate of 5e-4.

    Raises:
        InputError: naming the field that cannot be used.

    References:
        Balestriero, LeCun: LeJEPA: provable and scalable self-supervised learning without the
        heuristics (2025), https://arxiv.org/abs/2511.08544.

    Examples:
        >>> LeJEPA(regularization=0.02).projection
        (128, 128, 16)
    """

    regularization: float = 0.05
    """Weight of SIGReg, the lambda of the paper. The prediction has 1 - `regularization`."""
    n_global: int = 2
    """Number of global views, whose mean embedding is predicted."""
    n_local: int = 2
    """Number of local views."""
    global_scale: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest area of a global view, as fractions of the picture."""
    local_scale: tuple[float, float] = (0.1, 0.3)
    """Smallest and largest area of a local view, as fractions of the picture."""
    local_size: int | None = None
    """Side of a local view in pixels, for encoders of any size; None for that of the encoder."""
    n_slices: int = 256
    """Number of random directions, new at each step, along which embeddings are compared with a
    Gaussian."""
    projection: tuple[int, ...] = (128, 128, 16)
    """Hidden units of each layer, and output dimensions, of the projection head."""

    def __post_init__(self) -> None:
        if not 0 <= self.regularization <= 1:
            raise InputError(f"regularization={self.regularization} must be within [0, 1]")
        if self.n_global + self.n_local < 2:
            raise InputError(f"n_local={self.n_local} with one global view: nothing to predict")
        for name, least in (("n_global", 1), ("n_local", 0), ("n_slices", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)} must be at least {least}")
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise InputError(f"{name}={(low, high)} must be 0 < low <= high <= 1")
        if not self.projection or min(self.projection) < 1:
            raise InputError(f"projection={self.projection} must be numbers of at least 1")
        if self.local_size is not None and self.local_size < 1:
            raise InputError(f"local_size={self.local_size} must be at least 1")

    def crops(self, model: ViTConfig) -> tuple[Crop, ...]:
        """Returns the global views and the local views."""
        size = model.image_size if self.local_size is None else self.local_size
        if size != model.image_size and not as_architecture(model).any_size:
            raise InputError(
                f"local_size={size} is not image_size={model.image_size}: the encoder needs "
                "any_size=True"
            )
        global_views = Crop(self.n_global, model.image_size, self.global_scale)
        local_views = Crop(self.n_local, size, self.local_scale)
        return (global_views, local_views) if self.n_local else (global_views,)

    def network(self, model: ViTConfig, *, rngs: nnx.Rngs) -> nnx.Module:
        """Returns an encoder with a projection head."""
        return Projected(model, self.projection, rngs=rngs)

    def loss(
        self, model: ViTConfig, variables: Variables, batch: Batch, key: jax.Array, done: jax.Array
    ) -> Outcome:
        """Returns the weighted sum of the error of prediction and of SIGReg, means over views."""
        del done
        slices_key, drop_key = jax.random.split(key)
        z = self.merged(model, variables.params)(batch.views, drop_key)
        z = z.reshape(self.n_global + self.n_local, -1, z.shape[1])
        center = jnp.mean(z[: self.n_global], axis=0, keepdims=True)
        prediction = jnp.mean(jnp.square(z - center))
        slices = directions(slices_key, z.shape[2], self.n_slices)
        shape = jnp.mean(sigreg(z, slices))
        loss = (1 - self.regularization) * prediction + self.regularization * shape
        return Outcome(loss, {"prediction": prediction, "sigreg": shape})


class Projected(nnx.Module):
    """Encoder with the projection head that is used in the loss only.

    The head is a multilayer perceptron. Its hidden units have mean 0 and variance 1 over all views
    of the batch (batch normalization); no running means are kept, because the head is not used
    after pretraining.

    Args:
        config: the shape of the encoder.
        sizes: the numbers of units of the layers of the head.
        rngs: the source of the initial weights.
    """

    def __init__(self, config: ViTConfig, sizes: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        self.encoder = ViT(config, rngs=rngs)
        inputs = (self.encoder.config.n_features, *sizes[:-1])
        self.layers = nnx.List(
            [
                linear(n_in, n_out, config.precision, rngs=rngs)
                for n_in, n_out in zip(inputs, sizes, strict=True)
            ]
        )
        self.scales = nnx.List([nnx.Param(jnp.ones(n)) for n in sizes[:-1]])
        self.offsets = nnx.List([nnx.Param(jnp.zeros(n)) for n in sizes[:-1]])

    def __call__(self, views: tuple[jax.Array, ...], key: jax.Array | None = None) -> jax.Array:
        """Maps groups of views ``[n * b, s, s, 3]`` to float32 embeddings ``[n_views * b, d]``.

        Args:
            views: normalized images; the groups may differ in size.
            key: PRNG key for skipped halves of blocks; None skips nothing.
        """
        keys = [None if key is None else jax.random.fold_in(key, i) for i in range(len(views))]
        z = jnp.concatenate([self.encoder(x, key=k) for x, k in zip(views, keys, strict=True)])
        for layer, scale, offset in zip(self.layers, self.scales, self.offsets, strict=False):
            hidden = layer(z).astype(jnp.float32)
            hidden = jax.nn.standardize(hidden, axis=0, epsilon=1e-5)
            z = nnx.relu(hidden * scale[...][None] + offset[...][None])
        return self.layers[-1](z).astype(jnp.float32)


def directions(key: jax.Array, n_dims: int, n_slices: int) -> jax.Array:
    """Returns random unit vectors, uniform on the sphere, float32 ``[n_dims, n_slices]``.

    Examples:
        >>> vectors = directions(jax.random.key(0), n_dims=3, n_slices=5)
        >>> bool(jnp.allclose(jnp.sum(vectors**2, axis=0), 1, atol=1e-5))
        True
    """
    vectors = jax.random.normal(key, (n_dims, n_slices))
    return vectors * jax.lax.rsqrt(jnp.sum(jnp.square(vectors), axis=0, keepdims=True))


def sigreg(z: jax.Array, slices: jax.Array) -> jax.Array:
    """Returns the distance of embeddings from an isotropic Gaussian of mean 0 and variance 1.

    SIGReg, the sketched isotropic Gaussian regularization, is the mean of :func:`epps_pulley` along
    the slices. By the theorem of Cramér and Wold, a distribution whose projections on all lines
    are standard normal is the standard normal one.

    Args:
        z: embeddings, float32 ``[..., n, d]``.
        slices: unit vectors, float32 ``[d, n_slices]``.

    Returns:
        float32 ``[...]``.

    References:
        Balestriero, LeCun: LeJEPA (2025), https://arxiv.org/abs/2511.08544, section 4.

    Examples:
        >>> z = jax.random.normal(jax.random.key(0), (1000, 4))
        >>> slices = directions(jax.random.key(1), 4, 16)
        >>> bool(sigreg(z, slices) < 3 < 100 < sigreg(0.1 * z, slices))
        True
    """
    return jnp.mean(epps_pulley(jnp.matmul(z, slices, precision="highest")), axis=-1)


def epps_pulley(x: jax.Array) -> jax.Array:
    """Returns the statistic of Epps and Pulley for the hypothesis that samples are standard normal.

    For the empirical characteristic function f and that of the normal distribution,
    g(t) = exp(-t^2 / 2), it is n times the integral of ``|f(t) - g(t)|^2 g(t)`` over all t. For
    samples of the standard normal distribution its mean is 1.06, whatever their number; for equal
    samples it grows with n. The integral is a sum by the trapezoidal rule, which has the precision
    of float32 as long as samples differ by at most 15. Time and memory are linear in n.

    Args:
        x: float32 ``[..., n, m]``: n samples for each of m tests.

    Returns:
        float32 ``[..., m]``.

    References:
        Epps, Pulley: A test for normality based on the empirical characteristic function (1983).

    Examples:
        >>> epps_pulley(jnp.zeros((1000, 1))).round().tolist()  # collapsed: all samples equal
        [409.0]
    """
    t = np.linspace(0, T_MAX, N_POINTS)
    normal = np.exp(-np.square(t) / 2)
    weight = 2 * t[1] * normal  # for t and -t
    weight[[0, -1]] /= 2
    # exp(i k a) is a power of exp(i a), which saves a cosine and a sine for each k.
    angle = t[1].astype(np.float32) * x
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    c, s = jnp.ones_like(x), jnp.zeros_like(x)
    total = jnp.zeros_like(x[..., 0, :])
    for k in range(N_POINTS):
        gap = jnp.mean(c, axis=-2) - normal[k].astype(np.float32)
        gap_squared = jnp.square(gap) + jnp.square(jnp.mean(s, axis=-2))
        total += weight[k].astype(np.float32) * gap_squared
        c, s = c * cosine - s * sine, s * cosine + c * sine
    return x.shape[-2] * total
