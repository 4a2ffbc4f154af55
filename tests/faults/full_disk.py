"""A full disk: at every operation that takes space, and, where one can be mounted, a real one."""

import ctypes
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from faults.cases import Case
from faults.commands import FOLDERS, STAGES, content, difference
from faults.operations import Plan
from faults.stands import How, Stands

_TAKES_SPACE = ("open", "mkdir", "write", "flush", "fsync", "pwrite", "allocate")
_PAGE = 4096
_MS_REC, _MS_PRIVATE, _MS_REMOUNT, _CLONE_NEWNS = 1 << 14, 1 << 18, 1 << 5, 0x20000


def cases(stands: Stands, seed: int, every: int) -> Iterator[Case]:
    """Yields disks that are full from an operation on, or at this one alone.

    Args:
        stands: where to begin.
        seed: of what is chosen.
        every: of so many operations one is taken, the first at random.
    """
    rng = random.Random(seed)
    for stage in STAGES:
        for how in ("first", "again"):
            operations = stands.undisturbed(stage, how).operations
            takers = [i for i, op in enumerate(operations) if op.startswith(_TAKES_SPACE)]
            for at in takers[rng.randrange(every) :: every]:
                yield _at(stands, stage, how, at, at % 3 != 0)


def _at(stands: Stands, stage: str, how: How, at: int, stays: bool) -> Case:
    operation = stands.undisturbed(stage, how).operations[at]
    plan = Plan(at, "full" if stays else "full once")

    def trial(work: Path) -> str:
        before = content(work)
        full = stands.place.run(stage, work, plan=plan)
        kind, _, path = operation.partition(" ")
        inside = path.partition(".tmp/")[2]
        names = [os.path.basename(inside or path)] if ".jaxcurate-" not in path or inside else []
        names = [name for name in names if not name.startswith("work-")]
        named = names or [str(work)]  # other names differ from run to run
        wrong = "" if full.code == 0 else full.refuses(*named)
        if (
            not wrong
            and full.code == 2
            and kind in ("write", "pwrite")
            and "bytes" not in full.line
        ):
            wrong = f"the line tells no bytes: {full.line}"
        return wrong or _afterwards(stands, stage, how, work, before, full.code == 0)

    told = f"{how}, operation {at} ({operation.split('/')[-1]}), {plan.action}"
    return Case(f"full disk at an operation of {stage}", told, lambda: stands.on(stage, how, trial))


def _afterwards(
    stands: Stands, stage: str, how: How, work: Path, before: dict, succeeded: bool
) -> str:
    """Returns what is wrong after a command met a full disk; then runs it again with room."""
    expected = stands.undisturbed(stage, how).content
    after, target = content(work), FOLDERS[stage]
    allowed = dict(expected) if _of(after, target) == _of(expected, target) else dict(before)
    ignored = {"config.json"}  # settings of the run that began, or of the one before
    # Finished parts and pieces of parts may stay, so that the same command goes on after them.
    parts = {k for k in after if ".parts" in k or ".pieces" in k}
    if not any(k.startswith("exports/") for k in {*after, *allowed} - parts):
        ignored |= {"exports"}
    ignored |= parts
    keep = lambda found: {k: v for k, v in found.items() if k not in ignored}
    if wrong := difference(keep(after), keep(allowed)):
        return f"after it: {wrong}"
    again = stands.place.run(stage, work)
    return again.succeeds() or difference(content(work), expected)


def _of(found: dict, target: str) -> dict:
    return {k: v for k, v in found.items() if k == target or k.startswith(f"{target}/")}


def can_mount(path: Path) -> str:
    """Enters a namespace of mounts of this process's own; returns why it cannot, or ""."""
    if not hasattr(os, "geteuid") or os.geteuid():
        return "only root may mount"
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare") or libc.unshare(_CLONE_NEWNS):
        return f"unshare: {os.strerror(ctypes.get_errno())}"
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        return f"mount: {os.strerror(ctypes.get_errno())}"
    path.mkdir()
    try:
        mount(path, 2 * _PAGE)
        unmount(path)
    except OSError as error:
        return str(error)
    finally:
        path.rmdir()
    return ""


def mount(path: Path, n_bytes: int, again: bool = False) -> None:
    """Mounts an empty disk of so many bytes, or gives one that is mounted another size.

    Raises:
        OSError: it is refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    flags, options = _MS_REMOUNT if again else 0, f"size={n_bytes}".encode()
    if libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", flags, options):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))


def unmount(path: Path) -> None:
    """Unmounts a disk."""
    ctypes.CDLL(None).umount2(os.fsencode(path), 2)


def real_cases(stands: Stands, seed: int, n: int) -> Iterator[Case]:
    """Yields real disks with room for some pages only, as many for each stage as ``n`` tells."""
    rng = random.Random(seed)
    for stage in STAGES:
        for how in ("first", "again"):
            needed = 6 + 3 * sum(
                value is not None for value in _written(stands, stage, how).values()
            )
            needed += 30 * (stage == "report")
            for pages in sorted(rng.sample(range(needed), min(n, needed))):
                trial = lambda stage=stage, how=how, pages=pages: _on_a_small_disk(
                    stands, stage, how, pages
                )
                yield Case("full disk, a real one", f"{stage}, {how}, {pages} pages", trial)


def _written(stands: Stands, stage: str, how: How) -> dict:
    return _of(stands.undisturbed(stage, how).content, FOLDERS[stage])


def _on_a_small_disk(stands: Stands, stage: str, how: How, pages: int) -> str:
    disk = stands.fresh_path()
    disk.mkdir()
    mount(disk, 1 << 26)
    try:
        work = disk / "work"
        stands.prepare(stage, how, work)
        used = shutil.disk_usage(disk).used
        mount(disk, used + pages * _PAGE, again=True)
        before = content(work)
        notes = disk.parent / f"{disk.name}-notes"
        notes.mkdir()
        full = stands.place.run(stage, work, notes=notes)
        wrong = "" if full.code == 0 else full.refuses(str(disk))
        mount(disk, 1 << 26, again=True)
        return wrong or _afterwards(stands, stage, how, work, before, full.code == 0)
    finally:
        unmount(disk)
        shutil.rmtree(disk, ignore_errors=True)
