"""Two runs on one work directory: side by side, waiting, and one frozen and overtaken."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from faults.cases import Case
from faults.commands import STAGES, content, difference
from faults.operations import Plan
from faults.stands import How, Stands

LOCK = ".jaxcurate.lock"
THIRD = (
    "--config.seed=2",
    "--config.export.format=npy",
    "--config.title=Third",
    "--config.grow.prefix=k",
)
"""Flags by which no stage is done that was done without them, or with those of the other run."""


def cases(stands: Stands, seed: int, every: int) -> Iterator[Case]:
    """Yields a run that stands still at an operation while another one comes.

    Args:
        stands: where to begin.
        seed: of what is chosen.
        every: of so many operations one is taken, the first at random.
    """
    rng = random.Random(seed)
    for stage in STAGES:
        operations = stands.undisturbed(stage, "again").operations
        taken = next(i for i, op in enumerate(operations) if op.startswith("fsync")) + 1
        published = max(i for i, op in enumerate(operations) if op.startswith("remove"))
        points = range(taken, published)
        for at in points[rng.randrange(every) :: every]:
            how = rng.choice(["refused", "waits"])
            yield _case(
                f"two runs, the second is {how}"
                if how == "refused"
                else "two runs, the second waits",
                stands,
                stage,
                at,
                how == "waits",
            )
        last = next(i for i, op in enumerate(operations) if op.startswith(("exchange", "rename")))
        for at in [*range(taken, last)[rng.randrange(every) :: every], last - 1]:
            yield _overtaken(stands, stage, at)


def _case(kind: str, stands: Stands, stage: str, at: int, waits: bool) -> Case:
    def trial(work: Path) -> str:
        first = stands.place.start(stage, work, plan=Plan(at, "stop"))
        if not first.stops():
            return f"the first did not come to operation {at}: {first.wait().err[-300:]}"
        flags = ["--wait"] if waits else []
        second = stands.place.start(stage, work, *flags)
        if waits:
            time.sleep(0.7)
        else:
            wrong = second.wait().refuses("is in use by process")
            if wrong:
                os.kill(first.pid, signal.SIGKILL)
                return f"the second: {wrong}"
        os.kill(first.pid, signal.SIGCONT)
        wrong = first.wait().succeeds()
        if waits:
            wrong = wrong or second.wait().succeeds()
        return wrong or difference(content(work), stands.undisturbed(stage, "again").content)

    return Case(kind, f"{stage}, operation {at}", lambda: stands.on(stage, "again", trial))


def _overtaken(stands: Stands, stage: str, at: int) -> Case:
    """One run is frozen, its lock removed by hand, and another with other settings overtakes it."""

    def trial(work: Path) -> str:
        frozen = stands.place.start(stage, work, plan=Plan(at, "stop"))
        if not frozen.stops():
            return f"the first did not come to operation {at}: {frozen.wait().err[-300:]}"
        (work / LOCK).unlink()
        flags = (*THIRD, "--config.embed.batch_size=16") if stage == "embed" else THIRD
        second = stands.place.run(stage, work, *flags)
        os.kill(frozen.pid, signal.SIGCONT)
        first = frozen.wait()
        wrong = second.succeeds() or first.refuses("was locked by this run")
        return wrong or difference(content(work), stands.undisturbed(stage, "again", flags).content)

    kind = "two runs, the first frozen and overtaken"
    return Case(kind, f"{stage}, operation {at}", lambda: stands.on(stage, "again", trial))


def side_by_side(stands: Stands, n: int) -> Iterator[Case]:
    """Yields two whole runs that start at the same time; one or both of them end with 0."""
    for number in range(n):
        how: How = "again" if number % 2 else "first"
        flags = ["--wait"] if number % 4 > 1 else []

        def trial(work: Path, how: How = how, flags: list[str] = flags) -> str:
            both = [stands.place.start("run", work, *flags) for _ in range(2)]
            ends = [one.wait() for one in both]
            wrong = [
                end.succeeds() or "" if end.code != 2 or flags else end.refuses("in use by")
                for end in ends
            ]
            if all(end.code for end in ends):
                wrong.append("neither ended with 0")
            return next(filter(None, wrong), "") or difference(
                content(work), stands.undisturbed("run", how).content
            )

        run = lambda how=how, trial=trial: stands.on("run", how, trial)
        yield Case("two runs, side by side", f"{how}, {flags}", run)
