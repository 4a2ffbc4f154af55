"""SIGKILL at every operation on files, and at random moments; the same command then goes on."""

import errno
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from faults.cases import Case
from faults.commands import FOLDERS, STAGES, content, difference
from faults.operations import Action, Plan
from faults.stands import How, Stands

from jaxcurate.artifacts import exchange


def cases(stands: Stands, seed: int, every: int) -> Iterator[Case]:
    """Yields kills at operations of every stage, and chains of kills of a whole run.

    Args:
        stands: where to begin.
        seed: of what is chosen.
        every: of so many operations one is taken, the first at random; of those that publish more.
    """
    rng = random.Random(seed)
    for stage in STAGES:
        for how in ("first", "again"):
            operations = stands.undisturbed(stage, how).operations
            chosen = set(range(rng.randrange(every), len(operations), every))
            publishing = [i for i, op in enumerate(operations) if op.startswith(("exch", "rename"))]
            chosen |= {i for i in publishing if rng.random() < 8 / every}
            for at in sorted(chosen):
                torn = operations[at].startswith("write") and rng.random() < 0.5
                yield _at(stands, stage, how, at, "tear" if torn else "kill")
            if how == "again" and stage != "report":
                for at in range(len(operations) - 8, len(operations) + 2):
                    if rng.random() < 1 / every:
                        yield _at(stands, stage, how, at, "kill", exchanges=False)


def chains(stands: Stands, seed: int, n: int) -> Iterator[Case]:
    """Yields runs of all stages that are killed again and again until they come to their end."""
    for number in range(n):
        how: How = "again" if number % 2 else "first"
        trial = lambda how=how, number=number: stands.on(
            "run", how, lambda work: _chain(stands, work, how, random.Random(seed + number))
        )
        yield Case("SIGKILL again and again until a run is done", f"{how} {number}", trial)


def at_random_moments(real: Stands, seed: int, n: int, seconds: float) -> Iterator[Case]:
    """Yields whole runs, with the real k-means, that are killed by the clock.

    Args:
        real: where to begin, with the real k-means.
        seed: of the moments.
        n: number of runs.
        seconds: what a run takes about.
    """
    rng = random.Random(seed)
    for number in range(n):
        how: How = "again" if number % 2 else "first"
        moments = [rng.uniform(0, seconds) for _ in range(3)]
        trial = lambda how=how, moments=moments: real.on(
            "run", how, lambda work: _by_the_clock(real, work, how, moments)
        )
        yield Case("SIGKILL at random moments of a run", f"{how} {moments}", trial)


def _at(
    stands: Stands, stage: str, how: How, at: int, action: Action, exchanges: bool = True
) -> Case:
    def trial(work: Path) -> str:
        target = work / FOLDERS[stage]
        expected = stands.undisturbed(stage, how).content
        before, old = content(work), content(target)
        without = lambda: None if exchanges else _without_exchange()
        killed = stands.place.run(stage, work, plan=Plan(at, action), prepare=without)
        if killed.code not in (-signal.SIGKILL, 0):
            return f"it was to be killed: {killed.err[-500:]}"
        if (
            exchanges
            and old
            and not (content(target) == old or content(target) == _of(expected, stage))
        ):
            return f"neither the old nor the new {target.name} stands"
        others = {k: v for k, v in content(work).items() if _is_of_others(k, stage)}
        if difference(others, {k: v for k, v in before.items() if _is_of_others(k, stage)}):
            return f"what other stages wrote is different: {difference(others, before)}"
        again = stands.place.run(stage, work, prepare=without)
        return again.succeeds() or difference(content(work), expected)

    operation = stands.undisturbed(stage, how).operations
    told = operation[at].split("/")[-1] if at < len(operation) else "after the last"
    kind = f"SIGKILL at an operation of {stage}" + ("" if exchanges else ", no exchange")
    name = f"{how}, operation {at} ({told}), {action}"
    return Case(kind, name, lambda: stands.on(stage, how, trial))


def _of(whole: dict, stage: str) -> dict:
    """The part of a work directory's content that a stage writes."""
    folder = FOLDERS[stage]
    if stage == "report":
        return {"": whole[folder]}
    below = f"{folder}/"
    return {name.removeprefix(below): v for name, v in whole.items() if name.startswith(below)}


def _is_of_others(name: str, stage: str) -> bool:
    """Whether something is an output of another stage."""
    folders = {f: s for s, f in FOLDERS.items()}
    return any(
        (name == folder or name.startswith(f"{folder}/")) and of != stage
        for folder, of in folders.items()
    )


def _chain(stands: Stands, work: Path, how: How, rng: random.Random) -> str:
    for turn in range(60):
        plan = Plan(rng.randrange(8, 160), rng.choice(["kill", "kill", "tear"]))
        outcome = stands.place.run("run", work, plan=plan)
        if outcome.code == 0:
            return difference(content(work), stands.undisturbed("run", how).content)
        if outcome.code != -signal.SIGKILL:
            return f"after {turn} kills: {outcome.succeeds()}"
    return "60 kills, and no end"


def _by_the_clock(real: Stands, work: Path, how: How, moments: list[float]) -> str:
    for moment in moments:
        running = real.place.start("run", work)
        time.sleep(moment)
        os.kill(running.pid, signal.SIGKILL)
        outcome = running.wait()
        if outcome.code not in (0, -signal.SIGKILL):
            return f"before the kill: {outcome.succeeds()}"
    outcome = real.place.run("run", work)
    return outcome.succeeds() or difference(content(work), real.undisturbed("run", how).content)


def _without_exchange() -> None:
    def unsupported(one: str, other: str) -> None:
        raise OSError(errno.EINVAL, "no exchange")

    exchange.exchange = unsupported
