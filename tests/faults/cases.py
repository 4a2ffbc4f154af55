"""Runs independent cases side by side, each in a process of its own, and sums them up."""

import ctypes
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from typing import NamedTuple

_NAP_SECONDS = 0.005


class Case(NamedTuple):
    """One thing to try."""

    kind: str
    """Line of the table that it counts in."""
    name: str
    try_: Callable[[], "str | Tally"]
    """Returns what was wrong, "" for nothing; or a tally, where many things were tried."""


class Tally(NamedTuple):
    """How many things were tried, and what was wrong with some of them."""

    tried: int
    wrong: list[str]


class Result(NamedTuple):
    """What came of a case."""

    kind: str
    name: str
    tried: int
    wrong: list[str]
    seconds: float


def run_cases(
    cases: Iterable[Case], n_processes: int, limit: float = 1500, told: bool = True
) -> list[Result]:
    """Runs cases, some at a time; what takes longer than ``limit`` seconds is wrong."""
    waiting, running, results, n_naps = list(cases)[::-1], {}, [], 0
    while waiting or running:
        while waiting and len(running) < n_processes:
            case = waiting.pop()
            pid, pipe = _started(case)
            running[pid] = case, pipe, time.monotonic(), n_naps
        time.sleep(_NAP_SECONDS)
        n_naps += 1  # the clock jumps where a virtual machine stands still for a while
        for pid, (case, pipe, begun, first) in list(running.items()):
            seconds = time.monotonic() - begun
            ended = os.waitpid(pid, os.WNOHANG)[0]
            if not ended and (n_naps - first) * _NAP_SECONDS > limit:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            elif not ended:
                continue
            del running[pid]
            with open(pipe, "rb") as file:
                text = file.read()
            lost = 1, [f"no end within {seconds:.0f} s, or a crash"]
            tried, wrong = json.loads(text) if text else lost
            results.append(Result(case.kind, case.name, tried, wrong, seconds))
            for line in wrong if told else ():
                print(f"WRONG {case.kind}, {case.name}: {line}", file=sys.stderr, flush=True)
    return results


def end_with_parent() -> None:
    """Lets the system kill this process when its parent dies, where the system can."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(1, signal.SIGKILL)


def _started(case: Case) -> tuple[int, int]:
    """Starts a case; its outcomes come as JSON through the pipe when it ends."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        end_with_parent()
        os.setpgid(0, 0)
        os.close(read)
        try:
            outcome = case.try_()
        except BaseException:
            outcome = traceback.format_exc()
        if isinstance(outcome, str):
            outcome = Tally(1, [outcome] if outcome else [])
        # Short enough for the pipe's buffer, which nobody empties before the end.
        wrong = [line[-1000:] for line in outcome.wrong[:20]]
        wrong += ["further ones"] * (len(outcome.wrong) - 20)
        with open(write, "w") as file:
            json.dump([outcome.tried, wrong], file)
    finally:
        os._exit(0)


def table(results: Iterable[Result]) -> str:
    """Returns kind, tried, right, wrong and seconds, a line for each kind and one for all."""
    sums: dict[str, list[float]] = {}
    for result in results:
        for kind in (result.kind, "in all"):
            line = sums.setdefault(kind, [0, 0, 0.0])
            line[0] += result.tried
            line[1] += len(result.wrong)
            line[2] += result.seconds
    sums["in all"] = sums.pop("in all", [0, 0, 0.0])
    rows = [f"{'kind':<52}{'tried':>8}{'right':>8}{'wrong':>8}{'seconds':>9}"]
    for kind, (tried, wrong, seconds) in sums.items():
        rows.append(f"{kind:<52}{tried:>8.0f}{tried - wrong:>8.0f}{wrong:>8.0f}{seconds:>9.1f}")
    return "\n".join(rows)
