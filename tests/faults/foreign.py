"""Work directories that cannot be written, and such as are somebody else's."""

import ctypes
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.cases import Case
from faults.commands import FOLDERS, STAGES, content, difference
from faults.stands import Stands

_OVERRIDES = 0b1110
"""Capabilities of Linux by which root may write where the mode of a folder forbids it."""


def cases(
    stands: Stands, seed: int, n: int, may_mount: bool, stages: tuple[str, ...] = STAGES
) -> Iterator[Case]:
    """Yields read-only work directories, and ``n`` that hold a stranger's files."""
    for stage in (*stages, "run"):
        for how in ("first", "again"):
            yield Case(
                "a read-only work directory",
                f"{stage}, {how}, by its mode",
                lambda stage=stage, how=how: stands.on(
                    stage, how, lambda work: _by_mode(stands, stage, work)
                ),
            )
            if may_mount and (stage, how) != ("run", "first"):
                yield Case(
                    "a read-only work directory",
                    f"{stage}, {how}, by its mount",
                    lambda stage=stage, how=how: stands.on(
                        stage, how, lambda work: _by_mount(stands, stage, work)
                    ),
                )
    for number in range(n):
        trial = lambda number=number: stands.on(
            "run", "first", lambda work: _strangers(stands, work, random.Random(seed + number))
        )
        yield Case("a work directory with a stranger's files", str(number), trial)


def _refused(stands: Stands, stage: str, work: Path, **how: Callable[[], None]) -> str:
    before = content(work)
    outcome = stands.place.run(stage, work, **how)  # type: ignore[arg-type]
    return outcome.refuses(str(work)) or difference(content(work), before)


def _by_mode(stands: Stands, stage: str, work: Path) -> str:
    work.mkdir(exist_ok=True)
    for path in (work, *(path for path in work.rglob("*") if path.is_dir())):
        path.chmod(0o555)
    try:
        return _refused(stands, stage, work, prepare=_obey_modes)
    finally:
        for path in (work, *(path for path in work.rglob("*") if path.is_dir())):
            path.chmod(0o755)


def _obey_modes() -> None:
    """Gives up root's right to write where modes forbid it."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    for i in (0, 1):  # effective, permitted
        data[i] &= ~_OVERRIDES
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def _by_mount(stands: Stands, stage: str, work: Path) -> str:
    libc, name = ctypes.CDLL(None, use_errno=True), os.fsencode(work)
    bind, read_only, again = 1 << 12, 1, 1 << 5
    if libc.mount(name, name, None, bind, None) or libc.mount(
        None, name, None, bind | read_only | again, None
    ):
        return f"cannot mount: {os.strerror(ctypes.get_errno())}"
    try:
        return _refused(stands, stage, work)
    finally:
        libc.umount2(name, 2)


def _strangers(stands: Stands, work: Path, rng: random.Random) -> str:
    """Files, folders, links and pipes in places where stages write, and beside them."""
    work.mkdir()
    elsewhere = work.with_name(f"{work.name}-elsewhere")
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").write_text("ten years")
    places = [*FOLDERS.values(), "config.json", "subsets", "exports", "grown", ".jaxcurate.lock"]
    places += [f"{folder}/card.json" for folder in FOLDERS.values() if folder != "report.html"]
    places += ["pool/embeddings.npy", "notes", ".pool.tmp", f".jaxcurate-{'0' * 32}-1-1.tmp"]
    for name in rng.sample(places, rng.randint(1, 3)):
        path = work / name
        if path.exists() or any(p.exists() and not p.is_dir() for p in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = rng.choice(["text", "json", "folder", "link", "pipe", "bytes"])
        if name == ".jaxcurate.lock" and kind in ("text", "json", "bytes"):
            kind = "folder"  # what is no holder's is taken over
        if kind == "folder":
            (path / "of mine").mkdir(parents=True)
            (path / "of mine" / "thesis.txt").write_text("ten years")
        elif kind == "link":
            path.symlink_to(rng.choice([work.parent / "nowhere", elsewhere]))
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            texts = {"text": b"mine", "json": b'{"files": {}}', "bytes": bytes(range(256))}
            path.write_bytes(texts[kind])
    mine = _listing(work)
    outcome = stands.place.run("run", work)
    now = _listing(work)
    gone = [name for name, what in mine.items() if now.get(name) != what]
    if gone or (elsewhere / "thesis.txt").read_text() != "ten years":
        return f"{gone} of a stranger is gone or different: {outcome.line}"
    if outcome.code == 0:  # all of it lay beside what stages write
        return ""
    late = sorted(set(now) - set(mine))[:5]
    return outcome.refuses(str(work)) or (
        f"{late} was written first: {outcome.line}" if late else ""
    )


def _listing(path: Path) -> dict[str, str]:
    """Everything below a folder, links and pipes told as such."""
    found = {}
    for folder, below, names in os.walk(path):
        for name in (*below, *names):
            entry = Path(folder) / name
            if entry.is_symlink():
                what = f"link to {os.readlink(entry)}"
            elif entry.is_file():
                what = entry.read_bytes().hex()
            else:
                what = "folder" if entry.is_dir() else "pipe"
            found[str(entry.relative_to(path))] = what
    return found
