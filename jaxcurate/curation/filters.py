"""Filters: rows are dropped by rules on columns, and each dropped row has a reason."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.checks import InputError, as_real, check_given, short_repr
from jaxcurate.curation.rules import Rule, failures, prepared
from jaxcurate.neighbors.nearest_rows import nearest_rows
from jaxcurate.runtime.devices import Devices, RowsLike
from jaxcurate.runtime.sharing import share

KIND = "filter"
WANTED, UNWANTED = "wanted", "unwanted"
"""Names of the columns of similarities to wanted and to unwanted examples."""
_ROWS_AT_ONCE = 2**16
_NUMBERS_AT_ONCE = 2**24
_MOST_EXAMPLES_A_BLOCK = 1024


@dataclass(frozen=True)
class FilterConfig:
    """Settings of the filter, which drops rows before duplicates are sought and clusters made.

    Examples are items like those of the pool and are embedded in the same way.
    """

    rules: tuple[Rule, ...] = ()
    """Rules on columns of the pool: on measures of the items, or on metadata of the source. All
    must be satisfied."""
    wanted: str | None = None
    """Name of the source of wanted examples, in the same form as that of the pool."""
    min_wanted: float | None = None
    """Smallest cosine similarity to the nearest wanted example at which a row is kept."""
    unwanted: str | None = None
    """Name of the source of unwanted examples, in the same form as that of the pool."""
    max_unwanted: float | None = None
    """Largest cosine similarity to the nearest unwanted example at which a row is kept."""
    split: str = "train"
    """Split of a TFDS dataset that holds the examples."""

    def __post_init__(self) -> None:
        for source, limit in ((WANTED, "min_wanted"), (UNWANTED, "max_unwanted")):
            name, value = getattr(self, source), getattr(self, limit)
            check_given(source, name, "compares with no examples")
            if (name is None) != (value is None):
                given, needed = (limit, source) if name is None else (source, limit)
                raise InputError(f"{given} is given without {needed}, and has no effect alone")
            if value is not None and not -1 <= value <= 1:
                raise InputError(f"{limit}={value} must be within [-1, 1], as a cosine is")
            if name is not None and any(rule.column == source for rule in self.rules):
                raise InputError(
                    f"rules names a column {source!r}, which holds the similarity to {name}: "
                    f"{limit} is the rule on it"
                )

    @property
    def enabled(self) -> bool:
        """True if any row could be dropped."""
        return bool(self.all_rules)

    @property
    def examples(self) -> dict[str, str]:
        """Names of the sources of examples, by the columns of their similarities."""
        names = {WANTED: self.wanted, UNWANTED: self.unwanted}
        return {column: name for column, name in names.items() if name is not None}

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        """Rules on columns, and then those on similarities to examples."""
        rules = list(self.rules)
        if self.min_wanted is not None:
            rules.append(Rule(WANTED, min=self.min_wanted))
        if self.max_unwanted is not None:
            rules.append(Rule(UNWANTED, max=self.max_unwanted))
        return tuple(rules)


@dataclass(frozen=True)
class Filtered:
    """Rows that satisfy all rules, and for each other row the first test that it failed."""

    kept: np.ndarray
    """int64 ``[m]``, sorted: rows that satisfy all rules."""
    reasons: tuple[str, ...]
    """Reasons for which rows could be dropped, in the order of the rules."""
    codes: np.ndarray
    """int32 ``[n]``: position of the reason of each row in ``reasons``, -1 for kept rows."""
    dropped: np.ndarray
    """int64 ``[n - m]``, sorted: rows that were dropped."""
    values: np.ndarray
    """Unicode ``[n - m]``: value of each dropped row in the column of its reason, "" if missing."""

    @property
    def reason(self) -> np.ndarray:
        """Reason of each row, unicode ``[n]``, "" for kept rows."""
        return np.asarray((*self.reasons, ""))[self.codes]

    @property
    def counts(self) -> dict[str, int]:
        """Number of rows that were dropped for each reason, including reasons of no row."""
        numbers = np.bincount(self.codes[self.dropped], minlength=len(self.reasons))
        return dict(zip(self.reasons, numbers.tolist(), strict=True))

    def save(
        self,
        path: epath.PathLike,
        ids: np.ndarray,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes ``kept.npy``, ``dropped.parquet`` and ``card.json`` to a folder.

        The folder appears whole or not at all. The table lists the id, row, reason and value of
        each dropped row.

        Args:
            path: path of the folder.
            ids: ids of all rows, unicode ``[n]``.
            about: further entries of its card.

        Raises:
            InputError: there is not an id for each row, or the folder must not be replaced.
        """
        if len(ids) != len(self.codes):
            raise InputError(f"ids has {len(ids)} entries, but {len(self.codes)} rows were judged")
        codes = pa.array(self.codes[self.dropped], pa.int32())
        columns = {
            "id": pa.array(ids[self.dropped], pa.string()),
            "row": pa.array(self.dropped, pa.int64()),
            "reason": pa.DictionaryArray.from_arrays(codes, pa.array(self.reasons, pa.string())),
            "value": pa.array(self.values, pa.string()),
        }
        # Pairs keep the order of the rules, which the names in a card do not.
        dropped = [[reason, count] for reason, count in self.counts.items()]
        numbers = {"n": len(self.codes), "kept": len(self.kept), "dropped": dropped}
        with folders.new_folder(path, {**(about or {}), **numbers}, KIND) as folder:
            folder.save_array("kept.npy", self.kept)
            with folder.create("dropped.parquet") as file:
                pq.write_table(pa.table(columns), file)

    @classmethod
    def load(cls, path: epath.PathLike) -> "Filtered":
        """Reads the folder that :meth:`save` wrote.

        Raises:
            DamagedError: a file is missing, truncated or altered; the message names it.
        """
        card, folder = folders.check_files(path), epath.Path(path)
        kept = files.load_array(folder / "kept.npy")
        with (folder / "dropped.parquet").open("rb") as file:
            table = pq.read_table(file)  # type: ignore[arg-type]
        dropped = table["row"].to_numpy().astype(np.int64)
        numbered = {reason: i for i, (reason, _) in enumerate(card["dropped"])}
        codes = np.full(card["n"], -1, np.int32)
        codes[dropped] = [numbered[reason] for reason in table["reason"].to_pylist()]
        values = np.asarray(table["value"].to_pylist(), np.str_)
        return cls(kept, tuple(numbered), codes, dropped, values)


def filter_rows(columns: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> Filtered:
    """Drops the rows that fail a rule, each for the first rule that it fails.

    A missing value (NaN, None or NaT) satisfies no rule, unless the rule keeps missing values.

    Args:
        columns: values ``[n]`` by the name of the column: numbers, bools, texts, dates, or Python
            objects that are either numbers or texts.
        rules: rules in the order in which they are tried.

    Raises:
        InputError: a rule names an unknown column, or compares numbers with texts, or the columns
            differ in length.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation import Rule, filter_rows
        >>> side, language = np.array([32, 200, 300]), np.array(["de", "en", "fr"])
        >>> rules = Rule("side", min=64), Rule("language", isin=("de", "en"))
        >>> filtered = filter_rows({"side": side, "language": language}, rules)
        >>> filtered.kept, filtered.counts["side below 64"]
        (array([1]), 1)
        >>> filtered.reason[2], filtered.values[1]
        (np.str_("language not in ('de', 'en')"), np.str_('fr'))
    """
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) != 1:
        raise InputError(f"columns must be of one length, not {short_repr(sizes)}")
    n = next(iter(sizes.values()))
    codes, reasons = np.full(n, -1, np.int32), dict[str, int]()
    rows_of, values_of = [np.zeros(0, np.int64)], [np.zeros(0, np.str_)]
    for rule in rules:
        column = prepared(columns, rule)
        for reason, failed in failures(rule, column):
            code = reasons.setdefault(reason, len(reasons))
            rows = np.flatnonzero(failed & (codes < 0))
            codes[rows] = code
            shown = column.values[rows].astype(np.str_)
            rows_of.append(rows)
            values_of.append(np.where(column.missing[rows], "", shown))
    values = np.concatenate(values_of)[np.argsort(np.concatenate(rows_of))]
    kept, dropped = np.flatnonzero(codes < 0), np.flatnonzero(codes >= 0)
    return Filtered(kept, tuple(reasons), codes, dropped, values)


def similarity_to(
    embeddings: RowsLike, examples: np.ndarray, *, devices: Devices | None = None
) -> np.ndarray:
    """Returns the cosine similarity of each row to the nearest example, float32 ``[n]``.

    Some ten thousand rows are in memory at a time. A row of zeros has similarity 0 to all others.

    Args:
        embeddings: rows ``[n, d]``: an array, a memory map, or a
            :class:`~jaxcurate.kmeans.row_view.RowView`.
        examples: embeddings of the examples ``[e, d]``.
        devices: the devices to use. All by default.

    Raises:
        InputError: an argument cannot be used.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.curation import similarity_to
        >>> rows = np.array([[3.0, 0], [0, 1], [-2, 0]])
        >>> similarity_to(rows, np.array([[1.0, 0], [0, 5]]))
        array([1., 1., 0.], dtype=float32)
    """
    examples = as_real(examples, "examples")
    devices = Devices.all() if devices is None else devices
    local = devices.local
    # Few examples are not padded to a block of many rows.
    block = max(1, min(_MOST_EXAMPLES_A_BLOCK, math.ceil(len(examples) / local.count)))
    step = max(1, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // embeddings.shape[1]))

    def measured(begins: Sequence[int]) -> tuple[np.ndarray]:
        found = [np.zeros(0, np.float32)]
        for begin in begins:
            rows = embeddings[begin : begin + step]
            nearest = nearest_rows(examples, rows, 1, "cosine", devices=local, block=block)
            found.append(1 - nearest.distances[:, 0])
        return (np.concatenate(found),)

    # Each process reads a part of the rows.
    (result,) = share(range(0, len(embeddings), step), measured, devices)
    return result
