"""Base class of objectives of self-supervised pretraining, and what they are given."""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import jax
from flax import nnx

from jaxcurate.models.bert import BertConfig
from jaxcurate.models.vit_config import ViTConfig
from jaxcurate.sources import Kind

Model = ViTConfig | BertConfig
"""Shape of an encoder: of pictures or of texts."""
Params = Any
"""Weights of an encoder as nested dictionaries of arrays."""
LOSS_KEY = 2**20
"""Number folded into the key of a step, for what the loss draws itself."""


@dataclass(frozen=True)
class Crop:
    """Group of random crops that an objective makes of each picture.

    Examples:
        >>> Crop(n=8, size=96, scale=(0.05, 0.25)).n
        8
    """

    n: int
    """Number of crops of each picture."""
    size: int
    """Side of a crop in pixels, after it is resized."""
    scale: tuple[float, float] | None = None
    """Smallest and largest area of a crop, as fractions of the picture; None for those of the
    augmentation."""
    recolor: bool = True
    """False to leave colors as they are, and to crop and flip alone."""


class Batch(NamedTuple):
    """Views of the items of a batch."""

    views: tuple[jax.Array, ...]
    """Views of each :class:`Crop`, float32 ``[n * b, size, size, 3]`` in [-1, 1]: the first crops
    of all pictures, then the second ones, and so on. For texts, a single array of token ids, int32
    ``[b, n_tokens]``."""
    ids: jax.Array
    """Numbers of the items, int32 ``[b]``, equal for copies of the same item in a batch."""


class Variables(NamedTuple):
    """Numbers of a run besides those of the optimizer."""

    params: Any
    """Weights that the optimizer changes, a pytree."""
    extra: Any = ()
    """Numbers that only :meth:`Objective.after_step` changes, such as a teacher, a pytree."""


class Outcome(NamedTuple):
    """Results of the loss on a batch."""

    loss: jax.Array
    """Loss, a float32 scalar."""
    metrics: dict[str, jax.Array]
    """Float32 scalars to log beside the loss."""
    aux: Any = ()
    """Numbers for :meth:`Objective.after_step`, a pytree."""


@dataclass(frozen=True)
class Objective:
    """Base class of objectives, whose fields are their settings.

    All methods are pure functions that jax traces, also under ``vmap`` over runs. A batch may be
    split over devices; every sum or mean over it is then one over all devices.
    """

    kind: ClassVar[Kind] = "picture"
    """Kind of items that the objective is for."""

    def network(self, model: Model, *, rngs: nnx.Rngs) -> nnx.Module:
        """Returns the network that is trained, whose attribute ``encoder`` is the encoder.

        Args:
            model: shape of the encoder.
            rngs: source of the initial weights. The encoder is made first, so that its initial
                weights for a seed do not depend on the objective.
        """
        raise NotImplementedError

    def crops(self, model: ViTConfig) -> tuple[Crop, ...]:
        """Returns the groups of crops of a picture that the loss compares."""
        return (Crop(2, model.image_size),)

    def init(self, model: Model, key: jax.Array) -> Variables:
        """Returns the initial numbers of a run."""
        return Variables(nnx.state(self.network(model, rngs=nnx.Rngs(key))))

    def loss(
        self, model: Model, variables: Variables, batch: Batch, key: jax.Array, done: jax.Array
    ) -> Outcome:
        """Returns the loss of a batch, to be differentiated by ``variables.params``.

        Args:
            model: shape of the encoder.
            variables: numbers of the run.
            batch: views of the items.
            key: PRNG key of the step, for masks and skipped blocks.
            done: fraction of the steps made before, a float32 scalar from 0 to 1, for schedules.
        """
        raise NotImplementedError

    def after_step(self, model: Model, variables: Variables, aux: Any, done: jax.Array) -> Any:
        """Returns the new ``extra``, after the optimizer has changed the weights.

        Args:
            model: shape of the encoder.
            variables: numbers of the run, with the changed weights.
            aux: numbers that the loss returned.
            done: fraction of the steps made before this one.
        """
        del model, aux, done
        return variables.extra

    def encoder(self, variables: Variables) -> Params:
        """Returns the weights of the encoder to use after pretraining, as nested dictionaries."""
        return nnx.to_pure_dict(variables.params)["encoder"]

    def merged(self, model: Model, params: Any) -> Any:
        """Returns the network with the given weights."""
        return nnx.merge(_structure(self, model), params)


@cache
def _structure(objective: Objective, model: Model) -> nnx.GraphDef:
    """Returns the structure of a network without its weights."""
    return nnx.graphdef(nnx.eval_shape(lambda: objective.network(model, rngs=nnx.Rngs(0))))
