"""Damaged cards, locks and marks of temporary folders: dealt with rightly or refused in one line.

``run(n, seed)`` tries as many as are wanted; `tests/test_fuzz_settings.py` tries a few hundred.
"""

import contextlib
import json
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from faults.fuzz_settings import HOSTILE, SECONDS
from faults.limits import time_limit

from jaxcurate.artifacts import files, folders, lock, temporary
from jaxcurate.artifacts.owner import Owner
from jaxcurate.checks import InputError

_DEEP = b"[" * 100_000


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """Returns a JSON text with other bytes, or with other values in it."""
    match draw.randrange(8):
        case 0 | 1:
            data = bytearray(whole)
            for _ in range(draw.choice([1, 1, 2, 9])):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            return bytes(data)
        case 2:
            return whole[: draw.randrange(len(whole))]
        case 3:
            return draw.choice(
                [b"", b"null", b"[]", b"{}", b"0", b'"a"', _DEEP, b"\xff", whole * 2]
            )
    plain = json.loads(whole)
    at: Any = plain
    while True:
        key = draw.choice(list(at))
        if isinstance(at[key], dict) and at[key] and draw.random() < 0.7:
            at = at[key]
            continue
        if draw.random() < 0.2:
            del at[key]
        elif draw.random() < 0.2:
            at[draw.choice(["../../x", "", "a\0", "card.json", "\ud800", "/etc"])] = at.pop(key)
        else:
            at[key] = draw.choice([value for value in HOSTILE if _is_json(value)])
        break
    if "checksum" in plain and draw.random() < 0.5:
        rest = {k: v for k, v in plain.items() if k != "checksum"}
        plain["checksum"] = files.fingerprint(rest)
    return json.dumps(plain).encode("utf-8", "surrogatepass")


def _is_json(value: Any) -> bool:
    with contextlib.suppress(TypeError, ValueError):
        json.dumps(value)
        return True
    return False


def check_card(path: Path, whole: bytes, data: bytes) -> bool:
    """Reads a damaged card; returns whether it passed for one.

    Raises:
        AssertionError: a folder that holds a stranger's file may be replaced, or a card that was
            altered, with its checksum as it was, is believed.
    """
    (path / "card.json").write_bytes(data)
    accepted = False
    with contextlib.suppress(files.DamagedError):
        card = folders.read_card(path)
        assert isinstance(card, dict)
        was, now = json.loads(whole), json.loads(data)
        assert was.get("checksum") != now.get("checksum") or was == now, "an altered card"
        accepted = True
    with contextlib.suppress(files.DamagedError):
        folders.check_files(path)
    with contextlib.suppress(InputError):
        folders.check_replaceable(path, "test", "a")
        named = json.loads(data)["files"]
        assert all(str(f.relative_to(path)) in {*named, "card.json"} for f in path.rglob("*.*"))
    return accepted


def check_lock(path: Path, data: bytes) -> bool:
    """Takes a lock that is damaged; returns whether it was taken, from nobody who still runs.

    Raises:
        AssertionError: it was taken from this very process.
    """
    path.mkdir(exist_ok=True)
    (path / lock.NAME).write_bytes(data)
    try:
        with lock.locked(epath.Path(path)) as held:
            held.check()
    except InputError:
        return False
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        owner = Owner.from_plain(json.loads(data))
        json.loads(data)["token"], json.loads(data)["since"]
        assert owner.is_running() is not True, owner
    assert not (path / lock.NAME).exists()
    return True


def check_mark(parent: Path, name: str, data: bytes) -> bool:
    """Cleans beside a temporary folder with a damaged mark; returns whether it was removed.

    Raises:
        AssertionError: something else was removed.
    """
    folder = parent / name
    (folder / "old").mkdir(parents=True, exist_ok=True)
    (folder / "old" / "thesis.txt").write_text("ten years")
    (folder / "jaxcurate-temporary.json").write_bytes(data)
    (parent / "tree").mkdir(exist_ok=True)
    (parent / "tree" / "card.json").write_text("mine")
    temporary.clean(epath.Path(parent))
    assert (parent / "tree" / "card.json").read_text() == "mine"
    removed = not folder.exists()
    assert {entry.name for entry in parent.iterdir()} - {"tree", name} == set() or removed
    for entry in parent.iterdir():
        if entry.name != "tree":
            shutil.rmtree(entry)
    return removed


def run(n: int, seed: int) -> Counter:
    """Tries ``n`` damaged files, a third of each kind; returns how many were accepted and refused.

    Raises:
        AssertionError: with the file, where one was not dealt with rightly.
    """
    draw, counts = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as place:
        card = Path(place, "folder")
        with folders.new_folder(card, {"n": 3, "run": "a"}, "test") as folder:
            folder.save_array("a.npy", np.arange(3))
            folder.write_text("below/b.txt", "text")
        (card / "thesis.txt").write_text("ten years")
        whole = (card / "card.json").read_bytes()
        me = Owner.current()
        held = json.dumps({"token": "t", "since": "now", **me._asdict()}).encode()
        gone = me._replace(pid=2**22 + 1, started="1")
        name = f".jaxcurate-{'0' * 32}-{gone.pid}-1.tmp"
        mark = json.dumps({"token": "0" * 32, "target": "out", **gone._asdict()}).encode()
        Path(place, "marks").mkdir()
        checks = [
            (whole, lambda data: check_card(card, whole, data)),
            (held, lambda data: check_lock(Path(place, "work"), data)),
            (mark, lambda data: check_mark(Path(place, "marks"), name, data)),
        ]
        for number in range(n):
            of, check = checks[number % 3]
            data = damaged(of, draw)
            try:
                with time_limit(SECONDS):
                    counts["accepted" if check(data) else "refused"] += 1
            except BaseException as error:
                raise AssertionError(
                    f"{number} of seed {seed}: {error!r}: {data[:900]!r}"
                ) from error
    return counts
