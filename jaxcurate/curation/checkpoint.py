"""Where a hierarchical k-means stands: what has to be kept to go on from there bit for bit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from jaxcurate.artifacts.tree import TreeLevel
from jaxcurate.checks import InputError
from jaxcurate.kmeans.checkpoint import KMeansState, Phase, Stops

_PHASES: tuple[Phase, ...] = ("seeding", "iterating")


@dataclass(frozen=True)
class TreeState:
    """State of a hierarchical k-means that is not finished.

    It belongs to the rows and the arguments that it was made with.
    """

    levels: tuple[TreeLevel, ...] = ()
    """Levels that are finished, bottom up."""
    n_runs: int = 0
    """Number of k-means runs that are finished at the level in hand."""
    run: TreeLevel | None = None
    """Centroids, labels and squared distances after the last of these runs, normalized."""
    kmeans: KMeansState | None = None
    """State of the run in hand; None at its beginning."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the state as arrays by name, as ``numpy.savez`` keeps them.

        Example:
            >>> TreeState().to_arrays()["n_runs"]
            array(0)
        """
        arrays = {"n_levels": np.array(len(self.levels)), "n_runs": np.array(self.n_runs)}
        named = {f"level{i}": level for i, level in enumerate(self.levels)}
        if self.run is not None:
            named["run"] = self.run
        for name, level in named.items():
            arrays |= {f"{name}.{field}": array for field, array in level._asdict().items()}
        if self.kmeans is not None:
            arrays["phase"] = np.array(_PHASES.index(self.kmeans.phase))
            arrays |= {f"kmeans.{name}": array for name, array in self.kmeans.arrays.items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "TreeState":
        """Makes a state of what :meth:`to_arrays` returned.

        Raises:
            InputError: the arrays are not those of a state.
        """

        def level(name: str) -> TreeLevel:
            return TreeLevel(*(arrays[f"{name}.{field}"] for field in TreeLevel._fields))

        try:
            kmeans = None
            if "phase" in arrays:
                prefix = "kmeans."
                inner = {
                    name.removeprefix(prefix): array
                    for name, array in arrays.items()
                    if name.startswith(prefix)
                }
                kmeans = KMeansState(_PHASES[int(arrays["phase"])], inner)
            return cls(
                tuple(level(f"level{i}") for i in range(int(arrays["n_levels"]))),
                int(arrays["n_runs"]),
                level("run") if "run.labels" in arrays else None,
                kmeans,
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(f"state is not that of a hierarchical k-means: {error}") from error


class Watch:
    """Keeps the state of a hierarchical k-means as it goes on, and tells it now and then.

    Args:
        state: where to go on; None to begin.
        on_state: told the state; None where nobody wants to know.
        every: iterations, or as much other work, between two looks at ``due``.
        due: whether to tell now; making a state fetches a few numbers for each row.
    """

    def __init__(
        self,
        state: TreeState | None = None,
        on_state: Callable[[TreeState], None] | None = None,
        every: int = 10,
        due: Callable[[], bool] = lambda: True,
    ) -> None:
        self.state = TreeState() if state is None else state
        self._on_state, self._every, self._due = on_state, every, due

    def stops(self) -> Stops:
        """Returns where the k-means run in hand begins, and where it stops to tell."""
        on_state, told = self._on_state, None
        if on_state is not None:
            told = lambda kmeans: on_state(replace(self.state, kmeans=kmeans))
        return Stops(self.state.kmeans, told, self._every, self._due)

    def run_done(self, run: TreeLevel) -> None:
        """Notes that a k-means run is finished."""
        self._go_on(replace(self.state, n_runs=self.state.n_runs + 1, run=run, kmeans=None))

    def level_done(self, level: TreeLevel) -> None:
        """Notes that a level is finished."""
        self._go_on(TreeState((*self.state.levels, level)))

    def _go_on(self, state: TreeState) -> None:
        self.state = state
        if self._on_state is not None and self._due():
            self._on_state(state)
