"""Plan of the comparison by pretraining: training steps of all arms and seeds."""

from jaxcurate.checks import InputError
from jaxcurate.planning.ahead_of_time import devices_of
from jaxcurate.planning.embedding import pictures_a_second
from jaxcurate.planning.steps import Ask, Step
from jaxcurate.planning.training_step import (
    compile_training_step,
    flops_of_step,
    state_bytes,
)

_ACTIVATIONS = 24
"""Bytes of float32 activations that training keeps for a token and a unit of width, by block."""


def steps_of_evaluation(ask: Ask) -> tuple[list[Step], list[str]]:
    """Returns the steps of the stage, and notes on what they assume.

    Examples:
        >>> from jaxcurate.config import ClusterConfig, Config, EvaluateConfig, Level, SampleConfig
        >>> from jaxcurate.planning.machines import tpu_slice
        >>> cluster, sample = ClusterConfig((Level(1000),)), SampleConfig(100)
        >>> settings = Config("npy:x.npy", cluster, sample, evaluate=EvaluateConfig(arms=()))
        >>> ask = Ask(settings, tpu_slice("v5e-8"), n_items=10**6, n_columns=64)
        >>> [step.name for step in steps_of_evaluation(ask)[0]]
        ['balance of the subset']
    """
    settings, machine = ask.settings.evaluate, ask.machine
    if not settings.trained:
        return [Step("balance of the subset", 1e-7 * ask.n_items, "host")], []
    training = settings.pretraining
    n_runs = len(settings.trained) * settings.n_seeds
    by_batch = settings.parallel == "batch"
    _, state = state_bytes(training)
    name = f"{n_runs} runs of {training.n_steps:,} steps"
    if settings.budget == "epochs":
        name += ", more for larger arms"
    notes = [] if settings.budget == "steps" else ["arms of more rows than the subset take longer"]
    notes.append("probes are not in it")
    if ask.step_seconds is not None:
        turns = n_runs if by_batch else -(-n_runs // machine.n_chips)
        seconds = turns * training.n_steps * ask.step_seconds
        return [Step(name, seconds, "measured step", "measured", chip_bytes=state)], notes
    try:
        flops = flops_of_step(training)
    except InputError as error:
        return [], [*notes, str(error)]
    kind = "bfloat16" if training.model.precision == "bfloat16" else "float32"
    at_once = machine.n_chips if by_batch else min(machine.n_chips, n_runs)
    spread = machine.n_chips / at_once  # chips without a run are idle
    seconds = ask.products(n_runs * training.n_steps * flops, 0, kind) * spread
    weights, _ = state_bytes(training)
    exchanged = n_runs * training.n_steps * weights if by_batch and machine.n_chips > 1 else 0.0
    links = machine.exchange(exchanged)
    decoded = 0.0
    if settings.read_files:
        n_pictures = n_runs * training.n_steps * training.batch_size
        decoded = n_pictures / pictures_a_second(ask)
    limit = "decoding on hosts" if decoded > seconds + links else "matrix products"
    if links > max(seconds, decoded):
        limit = "links"
    chip_bytes = _chip_bytes(ask, by_batch)
    step = Step(
        name,
        max(seconds + links, decoded),
        limit,
        chip_bytes=chip_bytes,
        host_bytes=ask.base_bytes,
        exchanged=exchanged,
    )
    if by_batch and "evaluate" in ask.compiles and machine.topology:
        ask.say(f"compiling the training step for {machine.topology}")
        mesh = devices_of(machine.topology).mesh
        assert mesh is not None
        made = compile_training_step(training, mesh)
        moved = ask.passing(made.moved * machine.n_chips)
        step = step._replace(
            seconds=max(step.seconds, n_runs * training.n_steps * moved),
            chip_bytes=made.peak,
            memory_source="compiled",
            collectives=made.named,
        )
    return [step], notes


def _chip_bytes(ask: Ask, by_batch: bool) -> float:
    """Returns the bytes of a chip: state, and the activations of its part of a batch, counted."""
    settings = ask.settings.evaluate.pretraining
    _, state = state_bytes(settings)
    chips = ask.machine.n_chips if by_batch else 1
    if by_batch and state >= settings.shard_bytes:
        state /= chips
    model, objective = settings.model, settings.objective.chosen
    tokens = sum(
        crop.n * ((crop.size // model.patch_size) ** 2 + 1) for crop in objective.crops(model)
    )
    of_an_item = _ACTIVATIONS * 4.0 * tokens * model.width * model.depth
    if model.precision == "bfloat16":
        of_an_item /= 2
    if model.remat:
        of_an_item /= _ACTIVATIONS / 2
    return state + of_an_item * settings.batch_size / (chips * settings.n_accumulate)
