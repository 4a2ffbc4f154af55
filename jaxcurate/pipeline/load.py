"""Loading of a subset from a work directory, for training loops that read the items themselves."""

import os
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.local import exists, parsed, read_text
from jaxcurate.artifacts.pool_columns import column_names, read_columns
from jaxcurate.artifacts.pool_files import PoolFiles
from jaxcurate.checks import InputError
from jaxcurate.dataclass_fields import to_dataclass
from jaxcurate.pipeline.embedding import DIGEST, digest_of
from jaxcurate.pipeline.run_config import NAME as CONFIG
from jaxcurate.sources import Item, Recipe, Source, UnreadableItem, open_source

_MADE = "tfds:weblike"
"""Name of the only source that is made from a recipe."""
_KEYS = ("content_key", "id_key", "label_key", "domain_key")
_FINGERPRINT = "fingerprint"
_LOCKS: dict[int, threading.Lock] = {}
"""Lock of each process. A process may be forked while a thread of its parent holds a lock."""


@dataclass(frozen=True, eq=False)
class CuratedItems:
    """Items of a subset, by their numbers, as PyTorch and Grain take a data source.

    An item that was drawn twice is there twice. The source is opened when the first item is read,
    in each process anew, so that the object can be sent to workers.
    """

    rows: np.ndarray
    """int64 ``[m]``: row of the pool of each item, sorted."""
    ids: np.ndarray
    """Unicode ``[m]``: ids of the items."""
    counts: np.ndarray
    """int32 ``[m]``: number of times that the item was drawn, and occurs here."""
    clusters: dict[str, np.ndarray]
    """int32 ``[m]`` by name, ``cluster_l1`` for the lowest level: the cluster of each item."""
    positions: np.ndarray
    """int64 ``[m]``: position of each item in the source."""
    settings: dict[str, Any] = field(repr=False)
    """Arguments of :func:`jaxcurate.sources.open_source`."""
    made_from: str | None = None
    """Fingerprint of the source of the pool, if it is known."""
    digests: np.ndarray | None = field(default=None, repr=False)
    """Object ``[m]``: hash of the content of each item when it was embedded, if it is known."""
    _opened: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Source by the process that opened it, and whether its fingerprint was compared."""

    def __len__(self) -> int:
        """Returns the number of items, in which an item that was drawn twice counts twice."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        """Returns the id and the content of an item, as it is stored.

        Raises:
            IndexError: there is no such number.
            InputError: the item cannot be read, its content is not what was embedded, or the source
                has another item in its place.
        """
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        try:
            item = self.source.read(int(self.positions[index]))
        except UnreadableItem as error:
            raise InputError(f"item {error.id!r} of {self.source.name}: {error.reason}") from error
        expected = str(self.ids[index])
        # Of items whose ids are hashes, those of equal content have a number at the end.
        if item.id != expected and not expected.startswith(f"{item.id}~"):
            raise InputError(
                f"{self.source.name} has item {item.id!r} in the place of {expected!r}: it "
                "has changed since the pool was made from it"
            )
        if self.digests is not None and digest_of(item.content) != self.digests[index]:
            raise InputError(
                f"item {expected!r} of {self.source.name} was changed since it was embedded"
            )
        return item

    def __repr__(self) -> str:
        """Returns a short text, which Grain makes part of its checkpoints."""
        digest = files.fingerprint([self.made_from, files.array_digest(self.rows)])
        return f"CuratedItems({self.settings['spec']!r}, {len(self)} items, {digest})"

    def __getstate__(self) -> dict[str, Any]:
        """Returns the fields without the open source."""
        kept = {name: value for name, value in self._opened.items() if name == _FINGERPRINT}
        return {**self.__dict__, "_opened": kept}

    @property
    def source(self) -> Source:
        """Source of the items, opened in this process.

        Raises:
            InputError: the source cannot be opened, or has changed since the pool was made.
        """
        # Files that are open in a process cannot be used by a process that was forked from it.
        process = os.getpid()
        if process not in self._opened:
            with _LOCKS.setdefault(process, threading.Lock()):  # threads open it once together
                if process not in self._opened:
                    self._opened[process] = self._open()
        return self._opened[process]

    def _open(self) -> Source:
        settings = dict(self.settings)
        source = open_source(settings.pop("spec"), **settings)
        if _FINGERPRINT not in self._opened and self.made_from is not None:
            if source.fingerprint != self.made_from:
                raise InputError(
                    f"{source.name} has changed since the pool was made from it: run `embed` again"
                )
            self._opened[_FINGERPRINT] = True
        return source


def load_subset(workdir: epath.PathLike, name: str = "curated") -> CuratedItems:
    """Loads a subset from a work directory, with the items of its source.

    Only ids and numbers are read; an item is read when it is asked for.

    Args:
        workdir: work directory of a run.
        name: name of the subset, the folder in ``subsets/``.

    Returns:
        The items, with ``len(...)`` and ``[...]``.

    Raises:
        InputError: the work directory has no such subset, or it was drawn from another pool; the
            message names the folder.

    Examples:
        >>> from jaxcurate.pipeline.load import load_subset
        >>> load_subset("/nowhere")
        Traceback (most recent call last):
        ...
        jaxcurate.checks.InputError: /nowhere/config.json is missing: /nowhere is no work directory
    """
    work = epath.Path(workdir).expanduser()
    settings = _settings(work)
    pool, subset = work / "pool", work / "subsets" / name
    pool_card, card = folders.check_sizes(pool), folders.check_sizes(subset)
    if card["pool"] != pool_card["pool"]:
        raise InputError(
            f"{subset} was drawn from pool {card['pool']}, but {pool} is {pool_card['pool']}"
        )
    if pool_card.get("stage") == "grow":
        raise InputError(f"{pool} has grown by items that {settings['spec']} does not have")
    rows = files.load_array(subset / "indices.npy")
    with (subset / "manifest.parquet").open("rb") as file:
        manifest = pq.read_table(file)
    place = np.searchsorted(manifest["row"].to_numpy(), rows)
    stored = PoolFiles(pool, pool_card)
    names = [column for column in manifest.column_names if column.startswith("cluster_l")]
    digests = None
    if DIGEST in column_names(pool):
        digests = read_columns(pool, [DIGEST], manifest["row"].to_numpy())[DIGEST][place]
    return CuratedItems(
        rows,
        stored.ids[rows],
        manifest["count"].to_numpy()[place],
        {column: manifest[column].to_numpy()[place] for column in names},
        stored.items[rows],
        settings,
        pool_card.get("made_from", {}).get("source"),
        digests,
    )


def _settings(work: epath.Path) -> dict[str, Any]:
    """Returns the arguments with which the run opened its source."""
    path = work / CONFIG
    if not exists(path):
        raise InputError(f"{path} is missing: {work} is no work directory")
    try:
        config = parsed(read_text(path))
        settings = {"spec": config["source"], "split": config["split"]}
        settings |= {"data_dir": config["data_dir"], "leave_out": os.fspath(work)}
        settings |= {key: config.get(key) for key in _KEYS}
        settings["verify"] = config.get("verify", "stat")
        recipe = config.get("recipe")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise files.DamagedError(f"{path} is damaged ({error!r})") from error
    if recipe is not None and settings["spec"] == _MADE:
        settings["recipe"] = to_dataclass(Recipe, recipe, "recipe")
    return settings
