"""A flipped bit, a truncation and a deletion for every file of a work directory.

A run may refuse in one line that names the file, with nothing changed; or do a stage again and
end with the same bytes. A run that finds every stage done looks at names, sizes and cards, and
reads contents only where a stage has to be done: a bit flipped in a file that nothing reads is
right as long as all else stays as it was, and the same flip is tried once more with every later
stage still to be done, where the file is read.
"""

import functools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from faults.cases import Case
from faults.commands import FOLDERS, STAGES, content, copied, difference
from faults.stands import Stands

Fault = Literal["a flipped bit", "a truncation", "a deletion"]
FAULTS: tuple[Fault, ...] = ("a flipped bit", "a truncation", "a deletion")
_READ_BY_NONE = ("export", "report", "grow")
"""Stages whose files no other stage reads."""


def cases(stands: Stands, seed: int, every: int) -> Iterator[Case]:
    """Yields every fault in every file, before a run with nothing to do and before one with much.

    Args:
        stands: where to begin.
        seed: of where the bits and the cuts are.
        every: of so many faults one is taken, at random.
    """
    rng = random.Random(seed)
    names = sorted(
        str(f.relative_to(stands.finished)) for f in stands.finished.rglob("*.*") if f.is_file()
    )
    trials = [
        (name, fault, later)
        for name in names
        for fault in FAULTS
        for later in (("done", "to do") if _stage_of(name) not in _READ_BY_NONE else ("done",))
    ]
    rng.shuffle(trials)
    for name, fault, later in trials[::every]:
        at, bit = rng.random(), rng.randrange(8)
        trial = functools.partial(_tried, stands, name, fault, later, at, bit)
        yield Case(f"{fault}, later stages {later}", name, trial)


def _stage_of(name: str) -> str | None:
    """The stage that writes a file; None for ``config.json``."""
    of = [stage for stage, folder in FOLDERS.items() if f"{name}/".startswith(f"{folder}/")]
    return of[0] if of else None


def _tried(stands: Stands, name: str, fault: Fault, later: str, at: float, bit: int) -> str:
    with copied(stands.finished, stands.fresh_path()) as work:
        if later == "to do":
            _remove_later(work, _stage_of(name))
        damage(work / name, fault, at, bit)
        before = content(work)
        outcome = stands.place.run("run", work)
        after = content(work)
        if outcome.code == 2:
            folder = str((work / name).parent)
            named = [str(work / name), f"{folder} ", f"{folder}:", f"{folder},"]
            wrong = outcome.refuses(*named)
            return wrong or difference(after, before)
        if wrong := outcome.succeeds():
            return wrong
        untouched = fault == "a flipped bit" and later == "done" and after == before
        return "" if untouched else difference(after, content(stands.finished))


def _remove_later(work: Path, stage: str | None) -> None:
    for later in STAGES[STAGES.index(stage) + 1 if stage else 1 :]:
        path = work / FOLDERS[later]
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def damage(path: Path, fault: Fault, at: float, bit: int) -> None:
    """Damages a file: at a share ``at`` of its size, the bit of a number."""
    data = bytearray(path.read_bytes())
    place = int(at * len(data))
    match fault:
        case "a flipped bit":
            data[place] ^= 1 << bit
            path.write_bytes(data)
        case "a truncation":
            path.write_bytes(data[:place])
        case "a deletion":
            path.unlink()
