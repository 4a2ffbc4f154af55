"""State of an unfinished hierarchical k-means, from which it continues bit for bit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from jaxcurate.artifacts.tree import TreeLevel
from jaxcurate.checks import InputError
from jaxcurate.kmeans.checkpoint import KMeansState, Phase, Stops
from jaxcurate.kmeans.splitting import Splits

_PHASES: tuple[Phase, ...] = ("seeding", "iterating")


@dataclass(frozen=True)
class TreeState:
    """State of an unfinished hierarchical k-means.

    It can be continued with the same rows and arguments alone.

    Examples:
        >>> state = TreeState()
        >>> TreeState.from_arrays(state.to_arrays()) == state
        True
    """

    levels: tuple[TreeLevel, ...] = ()
    """Levels that are finished, bottom up."""
    n_runs: int = 0
    """Number of finished k-means runs at the current level."""
    run: TreeLevel | None = None
    """Centroids, labels and squared distances after the last of these runs, normalized."""
    kmeans: KMeansState | None = None
    """State of the current run. None at its beginning."""
    splits: Splits | None = None
    """State of the splits of the current level. None before them."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the state as arrays by name, in a form that ``numpy.savez`` can store.

        Examples:
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
        if self.splits is not None:
            arrays |= {f"splits.{name}": np.asarray(a) for name, a in self.splits._asdict().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "TreeState":
        """Makes a state from the arrays that :meth:`to_arrays` returned.

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
            splits = None
            if "splits.n_stacks" in arrays:
                n_stacks, *made = (arrays[f"splits.{name}"] for name in Splits._fields)
                splits = Splits(int(n_stacks), *made)
            return cls(
                tuple(level(f"level{i}") for i in range(int(arrays["n_levels"]))),
                int(arrays["n_runs"]),
                level("run") if "run.labels" in arrays else None,
                kmeans,
                splits,
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(f"state is not that of a hierarchical k-means: {error}") from error


class Watch:
    """Keeper of the state of a running hierarchical k-means, which reports it now and then.

    Args:
        state: state to continue from. None to begin.
        on_state: called with the state. None for no reports.
        every: number of iterations, or as much other work, between two calls of ``due``.
        due: returns whether to report now. Making a state fetches a few numbers for each row.
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
        """Returns the state that the current k-means run begins with, and its stops to report."""
        on_state, on_kmeans = self._on_state, None
        if on_state is not None:
            on_kmeans = lambda kmeans: on_state(replace(self.state, kmeans=kmeans))
        return Stops(self.state.kmeans, on_kmeans, self._every, self._due)

    def run_done(self, run: TreeLevel) -> None:
        """Records a finished k-means run."""
        self._update(replace(self.state, n_runs=self.state.n_runs + 1, run=run, kmeans=None))

    def splits_done(self, splits: Splits) -> None:
        """Records the splits of some stacks. Their arrays may change after the call."""
        if self._on_state is not None and self._due():
            n_stacks, centroids, labels = splits
            splits = Splits(n_stacks, centroids.copy(), labels.copy())
            self.state = replace(self.state, splits=splits)
            self._on_state(self.state)

    def level_done(self, level: TreeLevel) -> None:
        """Records a finished level."""
        self._update(TreeState((*self.state.levels, level)))

    def _update(self, state: TreeState) -> None:
        self.state = state
        if self._on_state is not None and self._due():
            self._on_state(state)
