"""Context of a run over a work directory, which its stages are given."""

import dataclasses
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.parts import Parts
from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.pool_columns import column_names, read_columns
from jaxcurate.artifacts.subset import Subset, read_subset
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.curation.dedup import Duplicates
from jaxcurate.curation.filters import Filtered
from jaxcurate.curation.mixing import MixConfig
from jaxcurate.evaluation.arms import Arms
from jaxcurate.kmeans.row_view import RowView
from jaxcurate.neighbors.nearest_rows import Neighbors, nearest_rows
from jaxcurate.pipeline.items import Items
from jaxcurate.pipeline.output import Output, as_json
from jaxcurate.runtime import messages
from jaxcurate.runtime.devices import Devices
from jaxcurate.runtime.progress import Progress
from jaxcurate.sources import SCHEMES

_VISIBLE_SECONDS = 90
"""Time in which a shared file system has to show what another process has written."""
_SECONDS_BETWEEN_LOOKS = 0.1


class Context:
    """Context of the stages of a run: settings, items, devices, progress, and outputs of stages.

    Args:
        settings: settings of the run.
        path: the work directory.
        progress: progress that stages report to.
        outputs: output of each stage of the run, by the name of the stage.
        places: names in the work directory below which stages write.
    """

    def __init__(
        self,
        settings: Config,
        path: epath.Path,
        progress: Progress,
        outputs: Mapping[str, Output],
        places: Collection[str],
    ) -> None:
        self.settings, self.path, self.progress = settings, path, progress
        self.outputs, self._places = outputs, places
        self.items = Items(settings, progress, leave_out=path)
        self.run: str | None = None
        """Id of the run that writes. A folder of another run is not replaced."""

    @property
    def devices(self) -> Devices:
        """Devices that the settings ask for, of all processes."""
        return self.items.devices

    @property
    def writes(self) -> bool:
        """True in process 0, which writes what all processes have made together."""
        return messages.is_first()

    def parts(self, path: epath.Path, made_from: Any) -> Parts:
        """Returns the parts of some work that this process writes.

        Args:
            path: folder of the parts of all processes.
            made_from: everything that the parts depend on.
        """
        return Parts(path, made_from, self.run, messages.index(), messages.count())

    def parts_of_all(self, path: epath.Path, made_from: Any, own: Parts) -> list[Parts]:
        """Waits for the parts of all processes, and returns them in the order of the processes.

        Args:
            path: folder of the parts of all processes.
            made_from: everything that the parts depend on.
            own: the parts of this process, all of which are finished.
        """
        n_finished = messages.from_all(f"parts in {path.name}", len(own.cards))
        found = [own]
        for process, n in enumerate(n_finished[1:], 1) if self.writes else ():

            def see(process: int = process, n: int = n) -> bool:
                theirs = Parts(path, made_from, self.run, process, messages.count())
                found[process:] = [theirs]
                return len(theirs.cards) == n

            _wait_for(see, f"{path} as process {process} has written it")
        return found

    def publish(self, name: str, path: epath.Path) -> None:
        """Waits until all processes see a folder that process 0 has written.

        Args:
            name: name of the folder in messages.
            path: path of the folder.

        Raises:
            InputError: this process does not see it: the work directory is not shared.
        """
        wanted = messages.from_first(name, lambda: files.fingerprint(folders.read_card(path)))
        if not self.writes:
            see = lambda: files.fingerprint(_card_of(path)) == wanted
            _wait_for(see, f"{path} as process 0 has written it")

    def plain(self, field: str | None = None) -> dict[str, Any]:
        """Returns the settings, or the settings of one field, as plain values."""
        return dataclasses.asdict(self.settings if field is None else getattr(self.settings, field))

    def folder(self, stage: str) -> epath.Path:
        """Returns the path that a stage writes."""
        return self.outputs[stage].path

    def card(self, stage: str) -> dict[str, Any]:
        """Returns the card of the folder of a stage, or an empty card if there is none."""
        return folders.read_card(self.folder(stage)) or {}

    def digest(self, *stages: str) -> dict[str, str]:
        """Returns fingerprints of the files of the given stages, as far as the run has them."""
        return {
            stage: files.fingerprint(self.card(stage).get("files"))
            for stage in stages
            if stage in self.outputs
        }

    def pool(self) -> Pool:
        """Returns the pool, with embeddings that are read when they are used."""
        return Pool.load(self.folder("embed"))

    def columns(
        self, names: Sequence[str] | None = None, rows: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Returns facts about the items of the pool, by the names of their columns.

        Args:
            names: names of columns. All by default.
            rows: sorted rows of the pool. All by default.

        Raises:
            InputError: the pool has no such column.
        """
        return read_columns(self.folder("embed"), names, rows)

    def column_names(self) -> list[str]:
        """Returns the names of the columns with facts about the items of the pool."""
        return column_names(self.folder("embed"))

    def tree(self) -> ClusterTree:
        """Returns the tree, after a check that it is over the pool of the work directory."""
        self._check_of_this_pool("cluster", folders.check_files(self.folder("cluster")))
        return ClusterTree.load(self.folder("cluster"))

    def valid(self) -> np.ndarray | None:
        """Returns the rows that filter and deduplication kept, int64, or None without either."""
        if "dedup" not in self.outputs:
            return self.filtered()
        folder = self.folder("dedup")
        self._check_of_this_pool("dedup", folders.check_sizes(folder))
        found = Duplicates.load(folder)
        return found.pool_rows(found.kept)

    def filtered(self) -> np.ndarray | None:
        """Returns the rows that the filter kept, int64, or None without a filter."""
        if "filter" not in self.outputs:
            return None
        folder = self.folder("filter")
        self._check_of_this_pool("filter", folders.check_sizes(folder))
        return Filtered.load(folder).kept

    def subset(self, pool: Pool) -> Subset:
        """Returns the subset that was sampled from the pool."""
        return read_subset(self.folder("sample"), pool)

    def arms(self, pool: Pool, tree: ClusterTree) -> Arms:
        """Returns the arms, which draw subsets of the pool as the settings ask for."""
        valid = self.valid()
        return Arms(
            pool,
            tree,
            self.settings.sample,
            valid,
            self.neighbors(pool, valid, self.settings.sample.mix),
            deduplicated="dedup" in self.outputs,
        )

    def neighbors(
        self, pool: Pool, valid: np.ndarray | None, settings: MixConfig
    ) -> Neighbors | None:
        """Returns the rows nearest to each reference, or None without a retrieved part.

        Args:
            pool: the pool.
            valid: rows among which the nearest are sought, int64. None for all.
            settings: settings of the mixture.
        """
        references = self.items.references_of(settings)
        if references is None:
            return None
        blocks = self.items.embedded(
            "references",
            references,
            settings.references or "",
            need_direction=settings.metric == "cosine",
        )
        queries = np.concatenate([block.embeddings for block in blocks])
        if skipped := blocks.unreadable:
            self.progress.line(
                f"  {len(skipped)} reference(s) could not be read or used: {skipped[0]}"
            )
        among = RowView(pool.embeddings, valid)
        near = nearest_rows(
            among, queries, settings.n_per_query, settings.metric, devices=self.devices
        )
        return near if valid is None else near._replace(rows=valid[near.rows])

    def _check_of_this_pool(self, stage: str, card: Mapping[str, Any]) -> None:
        """Refuses a folder that was made from another pool than that of the work directory."""
        pool = self.card("embed").get("pool")
        if card["pool"] != pool:
            raise InputError(
                f"{self.folder(stage)} was made from pool {card['pool']}, but the pool is {pool}"
            )

    def check_apart(self) -> None:
        """Refuses items that are in a folder that the run writes.

        Raises:
            InputError: the message names the source.
        """
        work, settings = os.path.realpath(self.path), self.settings
        held_out = settings.evaluate.probe_split, settings.evaluate.test_split
        specs = settings.source, settings.sample.mix.references, settings.grow.source
        specs = *specs, *settings.filter.examples.values()
        specs = *specs, *(spec for spec in held_out if spec.partition(":")[0] in SCHEMES)
        for spec in filter(None, specs):
            scheme, _, path = spec.partition(":")
            if scheme not in SCHEMES:  # a path alone
                scheme, path = "", spec
            if scheme == "tfds" or not files.is_local(path):
                continue
            place = os.path.realpath(os.path.expanduser(path))
            is_folder = scheme == "folder" or (not scheme and os.path.isdir(place))
            ours = [work] if is_folder else [f"{work}/{name}" for name in self._places]
            if any(place == folder or place.startswith(f"{folder}/") for folder in ours):
                raise InputError(
                    f"{spec} lies in the work directory {self.path}, where the run writes: choose "
                    "a work directory outside of it"
                )

    def check_source(self, chosen: Collection[str], *, embeds: bool = False) -> None:
        """Refuses to read items of the source by the rows of a pool that was made differently.

        Args:
            chosen: names of the stages that will run.
            embeds: True if items will be embedded with the settings of the pool.

        Raises:
            InputError: the pool has items that the source does not have, or was made from
                another source or, with ``embeds``, with other settings.
        """
        folder, settings = self.folder("embed"), self.settings
        if self._has_grown():
            raise InputError(
                f"{folder} has grown by items that {settings.source} does not have: only "
                "`cluster`, `sample` and, by embeddings, `dedup` can follow"
            )
        if "embed" in chosen:
            return
        # The card of a pool that was saved by hand does not name a source.
        made_from = self.card("embed").get("made_from", {})
        if made_from.get("source") != self.items.source.fingerprint:
            raise InputError(
                f"{folder} was made from source {made_from.get('source')}, but {settings.source} "
                f"is now {self.items.source.fingerprint}: run `embed` first"
            )
        if embeds and made_from.get("embed") != as_json(self.settings.embed.inputs()):
            raise InputError(
                f"{folder} was made with other settings of config.embed than those of the run: "
                "run `embed` first"
            )

    def _has_grown(self) -> bool:
        """Returns whether the stage ``grow`` wrote the pool."""
        try:
            return self.card("embed").get("stage") == "grow"
        except files.DamagedError:
            return False


def _card_of(path: epath.Path) -> dict[str, Any] | None:
    """Returns the card of a folder, or None as long as it is not whole."""
    try:
        return folders.read_card(path)
    except files.DamagedError:  # the card has come before the other files
        return None


def _wait_for(see: Callable[[], bool], what: str) -> None:
    """Waits until a shared file system shows what another process has written.

    Raises:
        InputError: it does not come.
    """
    end = time.monotonic() + _VISIBLE_SECONDS
    while not see():
        if time.monotonic() > end:
            raise InputError(
                f"process {messages.index()} does not see {what}: all processes need the same work "
                "directory, on a shared file system or in a bucket"
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)
