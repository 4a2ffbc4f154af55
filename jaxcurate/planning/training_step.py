"""Training step of a configuration, lowered or compiled without its data."""

import math
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcurate.checks import InputError
from jaxcurate.planning.ahead_of_time import Compiled, compiled_step
from jaxcurate.runtime.devices import AXIS
from jaxcurate.training import PretrainConfig, loop, sharding
from jaxcurate.training.grain_input import CropInput


class PlannedCrops:
    """Input whose crops exist in shape only, with the views of :class:`CropInput`."""

    constants = ()
    views = CropInput.views

    def __init__(self, settings: PretrainConfig) -> None:
        self._crops = settings.objective.chosen.crops(settings.model)

    def shapes(self, batch_size: int) -> tuple[tuple[int, ...], ...]:
        """Returns the shape of each group of crops, uint8."""
        return tuple((batch_size, c.n, c.size, c.size, 3) for c in self._crops)


def lowered_step(settings: PretrainConfig, mesh: Mesh) -> Any:
    """Returns the lowered step of one large run over all chips of a mesh.

    Raises:
        InputError: the batch cannot be split over the chips, or the model is not one of pictures.
    """
    if settings.objective.chosen.kind != "picture":
        raise InputError("the work of a training step on texts is not counted: give --step_seconds")
    if settings.batch_size % (mesh.size * settings.n_accumulate):
        raise InputError(
            f"evaluate.pretraining.batch_size={settings.batch_size} cannot be split over "
            f"{mesh.size} chips: a multiple of {mesh.size * settings.n_accumulate} can"
        )
    data: Any = PlannedCrops(settings)
    state = jax.eval_shape(partial(loop.start, settings=settings), np.uint32(0))
    shardings = sharding.state_shardings(state, mesh, settings.shard_bytes)
    rows, same = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())
    like = lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
    arrays = tuple(
        jax.ShapeDtypeStruct(shape, np.uint8, sharding=rows)
        for shape in data.shapes(settings.batch_size)
    )
    step = jax.jit(loop.make_step(settings, data, mesh, shardings), donate_argnums=0)
    return step.lower(
        jax.tree.map(like, state, shardings),
        (),
        arrays,
        jax.ShapeDtypeStruct((settings.batch_size,), np.int32, sharding=rows),
        jax.ShapeDtypeStruct((), np.uint32, sharding=same),
        jax.ShapeDtypeStruct((), np.int32, sharding=same),
    )


def compile_training_step(settings: PretrainConfig, mesh: Mesh) -> Compiled:
    """Compiles the step of one large run for all chips of a mesh."""
    return compiled_step(lambda: lowered_step(settings, mesh))


def flops_of_step(settings: PretrainConfig) -> float:
    """Returns the number of operations of a step, counted in the program before it is compiled."""
    devices = np.asarray(jax.local_devices(backend="cpu")[:1])
    mesh = Mesh(devices, (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    cost = lowered_step(settings, mesh).cost_analysis()
    assert isinstance(cost, dict)
    return cost["flops"]


def state_bytes(settings: PretrainConfig) -> tuple[float, float]:
    """Returns the bytes of the weights, and of these with optimizer and teacher."""
    state = jax.eval_shape(partial(loop.start, settings=settings), np.uint32(0))
    size = lambda tree: sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))
    return float(size(state.variables.params)), float(size(state))
