"""Evaluation of the encoder while it is trained, and folders of its weights."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh, NamedSharding

from jaxcurate.artifacts.local import make_folder
from jaxcurate.models.bert import Bert, is_used, pool
from jaxcurate.models.bert_checkpoint import save_bert
from jaxcurate.models.pretrained import save_vit
from jaxcurate.runtime.devices import SAME, fetch
from jaxcurate.training.config import PretrainConfig
from jaxcurate.training.features import model_of
from jaxcurate.training.input import Input
from jaxcurate.training.objectives.base import Variables
from jaxcurate.training.rankme import rankme

Params = dict[str, Any]
"""Weights of the encoder as nested dictionaries of arrays."""
OnEval = Callable[[int, Params], Mapping[str, float]]
"""Function of the number of steps done and the weights of the encoder, on the host, which returns
numbers to log. The encoder with the highest ``"score"`` among them is saved as the best. Each of
several processes calls it."""
SCORE = "score"
"""Name of the number by which encoders are compared."""


def encoder_on_host(variables: Variables, settings: PretrainConfig) -> Params:
    """Returns the weights of the encoder as whole arrays on the host."""
    return jax.tree.map(fetch, settings.objective.chosen.encoder(variables))


class Evaluator:
    """Evaluation of the encoder every some steps.

    The effective rank of its features of the current batch (RankMe) shows a collapse, whatever the
    objective, and needs neither labels nor other data. ``on_eval`` adds numbers of its own.

    Args:
        settings: settings of the run.
        data: input of the run.
        mesh: mesh of the devices.
        on_eval: function that returns more numbers.
    """

    def __init__(
        self, settings: PretrainConfig, data: Input, mesh: Mesh, on_eval: OnEval | None
    ) -> None:
        self._settings, self._on_eval = settings, on_eval
        objective, model = settings.objective.chosen, settings.network
        crops = objective.crops(settings.model) if objective.kind == "picture" else ()

        def features(
            variables: Variables,
            constants: Any,
            arrays: tuple[jax.Array, ...],
            ids: jax.Array,
            seed: jax.Array,
            n_before: jax.Array,
        ) -> jax.Array:
            key = jax.random.fold_in(jax.random.key(seed), n_before + 1)
            batch = data.views(constants, arrays, ids, key, crops, settings.augmentation)
            encoder = model_of(objective.encoder(variables), model)
            if isinstance(encoder, Bert):
                tokens = batch.views[0]
                return pool(encoder(tokens), is_used(tokens, encoder.config.pad_id), "mean")
            return encoder(batch.views[0][: len(ids)])

        self._features = jax.jit(features, out_shardings=NamedSharding(mesh, SAME))

    def is_due(self, n_done: int) -> bool:
        """Returns whether the encoder is evaluated after some number of steps."""
        every, is_last = self._settings.eval_every, n_done == self._settings.n_steps
        if every is None:
            return self._on_eval is not None and is_last
        return n_done % every == 0 or is_last

    def evaluate(self, n_done: int, variables: Variables, *args: Any) -> dict[str, float]:
        """Returns the numbers to log.

        Args:
            n_done: number of steps made.
            variables: weights of the run.
            *args: the further arguments of the latest step.
        """
        numbers = {"rankme": rankme(fetch(self._features(variables, *args)))}
        if self._on_eval is not None:
            params = encoder_on_host(variables, self._settings)
            for name, value in self._on_eval(n_done, params).items():
                numbers[name] = float(value)
        return numbers


def save_encoder(
    folder: epath.PathLike | None, name: str, variables: Variables, settings: PretrainConfig
) -> None:
    """Writes the encoder to ``encoder/NAME`` below a folder, if one is given.

    All processes call this function, and the first writes. The layout is a published one, where
    one can express the encoder (:func:`jaxcurate.models.pretrained.save_vit`,
    :func:`jaxcurate.models.bert_checkpoint.save_bert`).

    Raises:
        InputError: the folder cannot be written.
    """
    if folder is None:
        return
    params = encoder_on_host(variables, settings)
    if jax.process_index():
        return
    place = epath.Path(folder) / "encoder"
    make_folder(place)
    model = model_of(params, settings.network)
    if isinstance(model, Bert):
        save_bert(model, place / name)
    else:
        save_vit(model, place / name)
