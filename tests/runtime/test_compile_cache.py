"""Compiled code on disk: used again, bounded, private, and rid of what is damaged."""

import os
import subprocess
import sys
from pathlib import Path

import jaxlib
import pytest

from jaxcurate.runtime import compile_cache
from jaxcurate.runtime.compile_cache import VARIABLE, default_folder, tidy

SCRIPT = """
import jax, jax.numpy as jnp
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
from jaxcurate.runtime.devices import ROWS, Devices
def kernel(x, *, axis_name):
    for _ in range(30):
        x = jnp.sin(x @ x.T) @ x
    return x
out = Devices.first(1).spmd(kernel, (ROWS,), ROWS)(jnp.ones((8, 8)))
print(sum(event.endswith("cache_hits") for event in hits), float(out.sum()))
"""


def start(**environment):
    kept = {k: v for k, v in os.environ.items() if k != VARIABLE and "COMPILATION_CACHE" not in k}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=kept | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    hits, total = out.split()
    return int(hits), total, err


def entries(folder):
    return sorted(folder.glob("*-cache"))


def test_a_second_process_compiles_nothing_and_mends_what_is_damaged(tmp_path):
    folder = tmp_path / "cache"
    # Two at once write the same entries.
    both = [start(**{VARIABLE: str(folder)}) for _ in range(2)]
    totals = {ended(process)[1] for process in both}
    written = entries(folder)
    assert written and folder.stat().st_mode & 0o777 == 0o700
    hits, total, err = ended(start(**{VARIABLE: str(folder)}))
    assert hits >= 1 and {total} == totals and err == ""
    largest = max(written, key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    largest.write_bytes(data[: len(data) // 2])
    stamp = (folder / ".checked").stat().st_mtime_ns
    os.utime(largest, ns=(stamp + 1, stamp + 1))  # as if a process had been killed while it wrote
    _, total, err = ended(start(**{VARIABLE: str(folder)}))
    assert {total} == totals and err == ""
    assert len(largest.read_bytes()) == pytest.approx(len(data), rel=0.1)


def test_off_and_the_users_own_folder(tmp_path):
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    ended(start(**home, **{VARIABLE: "off"}))
    assert not (tmp_path / "xdg").exists()
    own = tmp_path / "own"
    ended(start(**home, JAX_COMPILATION_CACHE_DIR=str(own)))
    assert not (tmp_path / "xdg").exists()
    ended(start(**home))
    (folder,) = (tmp_path / "xdg" / "jaxcurate").iterdir()
    assert entries(folder) and jaxlib.__version__ in folder.name


def test_a_folder_that_others_may_write_is_not_used(tmp_path):
    open_to_all = tmp_path / "cache"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    ended(start(**{VARIABLE: str(open_to_all)}))
    assert list(open_to_all.iterdir()) == []
    (tmp_path / "file").write_text("")
    ended(start(**{VARIABLE: str(tmp_path / "file")}))


def test_no_more_bytes_than_allowed(tmp_path):
    import zlib

    for age in range(5):
        path = tmp_path / f"{age}-cache"
        path.write_bytes(zlib.compress(os.urandom(1000)))
        os.utime(path, (100 - age, 100 - age))
    tidy(tmp_path, most_bytes=2500)
    assert [path.name for path in entries(tmp_path)] == ["0-cache", "1-cache"]
    tidy(tmp_path, most_bytes=2500)
    assert len(entries(tmp_path)) == 2


def test_processors_have_folders_of_their_own(monkeypatch):
    before = default_folder()
    monkeypatch.setattr(compile_cache, "_processor", lambda: "another")
    assert default_folder() != before
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_folder().parent == Path("/elsewhere/jaxcurate")
