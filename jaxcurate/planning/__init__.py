"""Time, memory, traffic and cost of each stage before a run, from the settings alone."""

from jaxcurate.planning.advice import Steps, advice
from jaxcurate.planning.clustering import steps_of_clustering
from jaxcurate.planning.embedding import steps_of_embedding
from jaxcurate.planning.host_stages import steps_of_dedup, steps_of_export, steps_of_sampling
from jaxcurate.planning.pretraining import steps_of_evaluation
from jaxcurate.planning.steps import Ask, StagePlan, Step

__all__ = [
    "Ask",
    "StagePlan",
    "Step",
    "plan_stage",
    "steps_of_clustering",
    "steps_of_dedup",
    "steps_of_embedding",
    "steps_of_evaluation",
    "steps_of_export",
    "steps_of_sampling",
]


def plan_stage(name: str, ask: Ask, steps_of: Steps) -> StagePlan:
    """Returns the plan of a stage, with what to change if it does not fit.

    Args:
        name: name of the stage.
        ask: the question.
        steps_of: function that returns the steps of the stage and notes.

    Examples:
        >>> from jaxcurate.config import ClusterConfig, Config, Level, SampleConfig
        >>> from jaxcurate.planning.machines import tpu_slice
        >>> settings = Config("npy:x.npy", ClusterConfig((Level(100_000),)), SampleConfig(100))
        >>> ask = Ask(settings, tpu_slice("v5e-8"), n_items=10**8, n_columns=1024)
        >>> plan_stage("cluster", ask, steps_of_clustering).advice[0]
        'does not fit: it needs 4.31 of the memory of a chip and 1.08 of the memory of a host'
    """
    steps, notes = steps_of(ask)
    return StagePlan(
        name, tuple(steps), ask.machine, advice(name, ask, steps, steps_of), tuple(notes)
    )
