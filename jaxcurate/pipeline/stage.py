"""Protocol of a stage of a run."""

from collections.abc import Callable, Collection
from typing import Any, Protocol

from etils import epath

from jaxcurate.artifacts.files import DamagedError
from jaxcurate.config import Config
from jaxcurate.pipeline.context import Context
from jaxcurate.pipeline.output import Output

ITEMS = (
    *("source", "split", "data_dir", "download", "recipe"),
    *("image_size", "image_key", "label_key", "strict"),
)
"""Fields that every stage reads which reads items of the source."""
Card = Callable[..., dict[str, Any]]
"""Makes what the card of a folder tells, with any keyword arguments added."""


class Stage(Protocol):
    """A step of a run: from the source and the files of stages before it to files of its own.

    A stage says all about itself in its own file, and stands in :data:`jaxcurate.pipeline.STAGES`.
    What has a body here may be left out.
    """

    name: str
    """Command that runs the stage alone."""
    reads: tuple[str, ...] = ()
    """Fields of the settings that the stage reads, or fields around these, for `--help`; all read
    those of the devices."""
    disabled: str = ""
    """Line that refuses the command where the settings ask for no such stage."""

    def enabled(self, settings: Config) -> bool:
        """Tells whether the settings ask for this stage."""
        return True

    def output(self, settings: Config, path: epath.Path) -> Output:
        """Returns where the stage writes, in the work directory ``path``."""
        ...

    def requires(self, settings: Config) -> tuple[str, ...]:
        """Returns the names of the stages whose files are read."""
        return ()

    def check(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses to run where this cannot work, before anything is written.

        Args:
            context: of the run.
            chosen: names of the stages that will run.

        Raises:
            InputError: in one line.
        """

    def foresee(self, context: Context, chosen: Collection[str]) -> None:
        """Refuses what other stages are about to make, where this one could do nothing with it.

        It is asked in any command if the settings ask for the stage: who embeds for a day should
        not hear only then that there are too few items to cluster.

        Args:
            context: of the run.
            chosen: names of the stages that will run.

        Raises:
            InputError: in one line.
        """

    def inputs(self, context: Context) -> dict[str, Any]:
        """Returns all that the outcome depends on, as JSON can hold it."""
        ...

    def state(self, context: Context) -> str:
        """Returns how the output stands: done, missing, out of date, or damaged and how."""
        try:
            card = context.outputs[self.name].card()
            if card is None:
                return "missing"
            return "done" if self.is_current(context, card) else "out of date"
        except DamagedError as error:
            return f"damaged: {error}"

    def is_current(self, context: Context, card: dict[str, Any]) -> bool:
        """Tells whether what lies there, by its card, is what would be made now."""
        return context.outputs[self.name].is_made_from(self.inputs(context), card)

    def run(self, context: Context, card: Card) -> dict[str, Any]:
        """Does the work, and returns what there is to say of it, in a few words by name.

        Raises:
            InputError: the input is damaged or made for something else.
        """
        ...

    def check_replaceable(self, context: Context, run: str) -> None:
        """Refuses to begin where something that is not this run's stands in the way.

        Raises:
            InputError: telling what stands there.
        """
        context.outputs[self.name].check_replaceable(run)

    def tidy(self, context: Context) -> None:
        """Removes what is of no use once the output is there."""
