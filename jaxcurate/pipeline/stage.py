"""Protocol of a stage of a run."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from etils import epath

from jaxcurate.artifacts.files import DamagedError
from jaxcurate.artifacts.parts import Parts
from jaxcurate.config import Config
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Output
from jaxcurate.planning import Ask, StagePlan

ITEMS = (
    *("source", "split", "data_dir", "download", "recipe", "verify"),
    *("content_key", "id_key", "label_key", "domain_key", "strict"),
)
"""Fields that every stage reads that reads items of the source."""
SELECTING = ("filter", "dedup")
"""Stages that choose rows of the pool."""
Card = Callable[..., dict[str, Any]]
"""Function that makes the card of a folder, with any keyword arguments added."""


def selecting(settings: Config) -> tuple[str, ...]:
    """Returns the stages that the settings ask for which choose rows of the pool."""
    enabled = {"filter": settings.filter.enabled, "dedup": settings.dedup.enabled}
    return tuple(name for name in SELECTING if enabled[name])


class Stage(Protocol):
    """Protocol of a step of a run, which reads the source and outputs of earlier stages.

    A stage is defined in its own file, and listed in :data:`jaxcurate.pipeline.STAGES`. Methods
    with a body here need not be defined.
    """

    name: str
    """Command that runs the stage alone."""
    reads: tuple[str, ...] = ()
    """Fields of the settings that the stage reads, or fields that contain them, for `--help`. All
    stages read the fields of the devices."""
    disabled: str = ""
    """Error of the command if the settings do not ask for the stage."""

    def enabled(self, settings: Config) -> bool:
        """Returns whether the settings ask for this stage."""
        return True

    def output(self, settings: Config, path: epath.Path) -> Output:
        """Returns the output of the stage in the work directory ``path``."""
        ...

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the names of the stages whose files are read."""
        return ()

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to run if the stage cannot work, before anything is written.

        Args:
            context: context of the run.
            chosen: names of the stages that will run.

        Raises:
            InputError: the message is one line.
        """

    def foresee(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to run other stages whose output this stage could not use.

        Every command calls it if the settings ask for the stage: a user should not learn only
        after a day of embedding that there are too few items to cluster.

        Args:
            context: context of the run.
            chosen: names of the stages that will run.

        Raises:
            InputError: the message is one line.
        """

    def plan(self, ask: Ask) -> StagePlan | None:
        """Returns time, memory and traffic before a run, or None if they do not count."""
        return None

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns everything that the output depends on, in a form that JSON can store."""
        ...

    def state(self, context: Context) -> str:
        """Returns the state of the output: done, missing, out of date, or damaged with a reason."""
        try:
            card = context.outputs[self.name].card()
            if card is None:
                return "missing"
            return "done" if self.is_current(context, card) else "out of date"
        except DamagedError as error:
            return f"damaged: {error}"

    def is_current(self, context: Context, card: dict[str, Any]) -> bool:
        """Returns whether the output, by its card, equals the output of a new run."""
        return context.outputs[self.name].is_made_from(self.inputs(context), card)

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Runs the stage, and returns a few numbers by name for a line of progress.

        Raises:
            InputError: the input is damaged or made for something else.
        """
        ...

    def parts(self, context: Context) -> Sequence[epath.Path]:
        """Returns the folders with parts of the output, which exist until it is whole."""
        return ()

    def check_replaceable(self, context: Context, run: str) -> None:
        """Refuses to replace an output, or parts of it, that this run did not write.

        Raises:
            InputError: the message names the reason.
        """
        context.outputs[self.name].check_replaceable(run)
        for path in self.parts(context):
            Parts(path, None, run).check_replaceable(run)

    def tidy(self, context: Context) -> None:
        """Removes the parts and other files that are useless once the output exists."""
        for path in self.parts(context):
            Parts(path, None, context.run).remove()
