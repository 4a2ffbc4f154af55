"""Runs the command line in processes forked from a warm one, which has imported all it needs.

The parent must not have used jax: only then its children may. What k-means and deduplication find
is computed by a few lines of numpy here, in no time, unless the real ones are asked for: what is
tried is how results reach the disk.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# What stages import when they need it, which takes a child seconds.
import jinja2  # noqa: F401
import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import numpy as np
import pyarrow.compute  # noqa: F401
import scipy.stats  # noqa: F401
from faults.cases import end_with_parent
from faults.operations import COUNT, Operations, Plan

from jaxcurate import cli
from jaxcurate.artifacts.pool import Pool
from jaxcurate.artifacts.tree import ClusterTree, TreeLevel
from jaxcurate.curation import dedup
from jaxcurate.curation.duplicates import choose
from jaxcurate.neighbors import Pairs
from jaxcurate.pipeline import cluster, run
from jaxcurate.report import page

for _name in page._templates().list_templates():  # compiled here, not in every child
    page._templates().get_template(_name)

CONFIG = """
from jaxcurate.encoders import EmbedConfig
from jaxcurate.config import *

def get_config(source):
    return to_config(
        Config(
            source=source,
            n_devices=1,
            embed=EmbedConfig(
                "identity" if source.startswith("npy:") else "pixels", resolution=8, batch_size=64
            ),
            dedup=DedupConfig(enabled=True, content="embeddings"),
            cluster=ClusterConfig((Level(8), Level(3))),
            sample=SampleConfig(10),
            evaluate=EvaluateConfig(arms=()),
            grow=GrowConfig(source=source.replace("x.npy", "new.npy"), prefix="n"),
        )
    )
"""
OTHER = (
    "--config.seed=1",
    "--config.embed.batch_size=32",
    "--config.sample.size=12",
    "--config.title=Other",
    "--config.grow.prefix=m",
)
"""Flags by which no stage is done that was done without them."""
FOLDERS = {
    "embed": "pool",
    "dedup": "dedup",
    "cluster": "tree",
    "sample": "subsets/curated",
    "export": "exports/curated",
    "evaluate": "evaluation",
    "report": "report.html",
    "grow": "grown/grown",
}
"""Where each stage writes, below the work directory, in the order of the stages."""
STAGES = tuple(FOLDERS)
_POLL_SECONDS = 0.002
"""Naps are counted, not the clock: it jumps where a virtual machine stands still for a while."""


class Outcome(NamedTuple):
    """How a command ended."""

    code: int | None
    """Exit code; negative for the signal that ended it; None where it hung."""
    out: str
    err: str
    operations: list[str]
    """Operations on files, where it ended by itself."""

    @property
    def line(self) -> str:
        """The last line on standard error."""
        return (self.err.splitlines() or [""])[-1]

    def refuses(self, *words: str) -> str:
        """Returns what is wrong with it as a refusal that holds any of the words; "" if nothing."""
        if self.code != 2:
            return f"exit code {self.code}, not 2: {self.err[-600:]}"
        if "Traceback" in self.err or not self.line.startswith("jaxcurate: "):
            return f"no line: {self.err[-600:]}"
        if words and not any(word in self.line for word in words):
            return f"the line names none of {words}: {self.line}"
        return ""

    def succeeds(self) -> str:
        """Returns what is wrong with it as a success; "" if nothing."""
        return "" if self.code == 0 else f"exit code {self.code}: {self.err[-600:]}"


class Running:
    """A command in a process of its own."""

    def __init__(self, pid: int, notes: Path) -> None:
        self.pid = pid
        self._notes = notes

    def wait(self, seconds: float = 120) -> Outcome:
        """Waits for the end; a process that takes longer hangs, and is killed."""
        code = self._ended(seconds)
        if code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        said = {"out": "", "err": "", "operations": ""}  # unless it was killed at once
        for name in said:
            with contextlib.suppress(FileNotFoundError):
                said[name] = (self._notes / name).read_text(errors="replace")
        return Outcome(code, said["out"], said["err"], json.loads(said["operations"] or "[]"))

    def stops(self, seconds: float = 120) -> bool:
        """Waits until the process has stopped itself; False where it ends or hangs instead."""
        for _ in range(int(seconds / _POLL_SECONDS)):
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state in "TZX":
                return state == "T"
            time.sleep(_POLL_SECONDS)
        return False

    def _ended(self, seconds: float) -> int | None:
        for _ in range(int(seconds / _POLL_SECONDS)):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(_POLL_SECONDS)
        return None


class Place:
    """A folder with a configuration and small arrays, in which commands are run.

    Args:
        path: the folder.
        real: compute with the real k-means and deduplication.
    """

    def __init__(self, path: Path, *, real: bool = False) -> None:
        self.path = path
        self.real = real

    def fill(self) -> "Place":
        """Writes the configuration and the arrays."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "config.py").write_text(CONFIG)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(60, 4)).astype(np.float32)
        x[50:55] = x[:5] * 2
        np.save(self.path / "x.npy", x)
        np.save(self.path / "new.npy", rng.normal(size=(9, 4)).astype(np.float32))
        return self

    def start(
        self,
        command: str,
        work: Path,
        *flags: str,
        plan: Plan = COUNT,
        notes: Path | None = None,
        prepare: Callable[[], None] = lambda: None,
    ) -> Running:
        """Starts ``jaxcurate COMMAND``.

        Args:
            command: such as ``"embed"``.
            work: the work directory, whose name is not the beginning of another's.
            flags: further ones.
            plan: what to disturb, of the operations below ``work`` and in temporary folders.
            notes: where what it says goes, and its temporary files; beside ``work`` by default.
            prepare: called in the child before all else.
        """
        # Not by a process's number: these come round again.
        notes = Path(tempfile.mkdtemp(prefix=f"{work.name}-notes-", dir=notes or work.parent))
        notes.chmod(0o755)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parent has threads, but none that hold locks
            pid = os.fork()
        if pid:
            return Running(pid, notes)
        code = 1
        try:
            end_with_parent()
            for number, name in ((1, "out"), (2, "err")):
                file = os.open(notes / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(file, number)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            self._set_up(work, notes)
            told = os.open(notes / "operations", os.O_WRONLY | os.O_CREAT)
            prepare()
            source = f"--config={self.path}/config.py:npy:{self.path}/x.npy"
            operations = Operations([str(work), str(notes / "temporary")], plan)
            operations.install()
            try:
                code = cli.main([command, source, f"--workdir={work}", *flags])
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            with open(told, "w") as file:
                json.dump(operations.done, file)
        finally:
            os._exit(code)

    def run(self, command: str, work: Path, *flags: str, **how: Any) -> Outcome:
        """Runs ``jaxcurate COMMAND`` to its end."""
        return self.start(command, work, *flags, **how).wait()

    def _set_up(self, work: Path, notes: Path) -> None:
        import jax

        os.environ["TMPDIR"] = str(notes / "temporary")
        (notes / "temporary").mkdir()
        (notes / "temporary").chmod(0o777)  # a trial may go on as another user
        jax.config.update("jax_compilation_cache_dir", str(self.path / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        run.time = types.SimpleNamespace(perf_counter=lambda: 0.0)  # cards tell seconds
        if not self.real:
            cluster.hierarchical_kmeans = _tree  # type: ignore[assignment]
            dedup.deduplicate = _duplicates  # type: ignore[assignment]


def content(path: Path) -> dict[str, Any]:
    """Everything below a folder that must be the same in the end, by name; folders as None.

    Cards without what names the run or tells its time, and without the digests of such cards.
    """
    if path.is_file():
        return {"": path.read_bytes()}
    found: dict[str, Any] = {}
    for entry in sorted(path.rglob("*")):
        name = str(entry.relative_to(path))
        found[name] = None if entry.is_dir() else entry.read_bytes()
        if entry.name in ("card.json", "config.json") and not entry.is_dir():
            with contextlib.suppress(ValueError):
                card = json.loads(found[name])
                found[name] = _without(card) if isinstance(card, dict) else found[name]
    return found


def _without(card: Mapping[str, Any]) -> dict[str, Any]:
    card = {k: v for k, v in card.items() if k not in ("run", "seconds", "checksum")}
    if isinstance(card.get("files"), dict):
        card["files"] = {k: v for k, v in card["files"].items() if not k.endswith("card.json")}
    return card


def difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Returns the names in which two contents differ; "" where there are none."""
    names = [name for name in {**found, **expected} if found.get(name, 0) != expected.get(name, 0)]
    told = lambda name: "gone" if name not in found else "new" if name not in expected else "other"
    return ", ".join(f"{name} ({told(name)})" for name in sorted(names)[:6])


@contextlib.contextmanager
def copied(start: Path, to: Path) -> Iterator[Path]:
    """Yields a copy of a work directory, which is removed in the end."""
    if start.exists():
        shutil.copytree(start, to)
    yield to
    shutil.rmtree(to, ignore_errors=True)


def _tree(pool: Pool, levels: Any, seed: int, *, metric: str, **_: Any) -> ClusterTree:
    """A tree around rows that are drawn at random."""
    z, made, rng = pool.embeddings, [], np.random.default_rng(seed)
    for level in levels:
        centroids = np.array(z[rng.permutation(len(z))[: level.n_clusters]])
        squared = ((z[:, None] - centroids) ** 2).sum(axis=2)
        labels = squared.argmin(axis=1).astype(np.int32)
        made.append(TreeLevel(centroids, labels, squared.min(axis=1)))
        z = centroids
    return ClusterTree(tuple(made), pool.fingerprint, metric)  # type: ignore[arg-type]


def _duplicates(x: np.ndarray, threshold: float, *, seed: int, **_: Any) -> dedup.Duplicates:
    """Pairs by brute force; of each the first stays, or the second where the seed is odd."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs = np.argwhere(np.triu(unit @ unit.T > 0.9999, 1)).astype(np.int64)
    rows = np.arange(len(x))
    ones = np.ones(len(pairs), np.float32)
    keep = rows if seed % 2 else None
    return choose(rows, rows, Pairs(pairs, ones), threshold, keep=keep)
