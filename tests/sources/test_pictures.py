"""Limits of reading pictures: the files that are opened, and the memory that it takes."""

import os
import subprocess
import sys
import threading
import time

import fsspec
import numpy as np
import pytest
from faults.limits import time_limit
from PIL import Image
from stores import uninstall

from jaxcurate.checks import InputError
from jaxcurate.sources import Item, UnreadableItem, open_source, pictures, read_items
from jaxcurate.sources.budget import ByteBudget

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


def save(path, color=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (color,) * 3).save(path)


def decoded(size):
    """Returns what a reading makes of each item: a square of the picture."""
    return lambda item: pictures.decode(item.content, size)


# --- formats ----------------------------------------------------------------------------------


def test_a_postscript_program_is_no_picture(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for name in ("gs", "gswin32c"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (tmp_path / "x.jpg").write_bytes(POSTSCRIPT)
    for file in (tmp_path / "x.jpg", POSTSCRIPT):
        with pytest.raises(pictures.UndecodablePicture, match="not a picture of a known format"):
            pictures.decode(file, 8)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("format", sorted({*pictures.FORMATS, "MPO"} - {"ICO"}))
def test_every_format_of_the_list_is_read(tmp_path, format):
    if format not in (*pictures._formats(), "MPO"):
        pytest.skip("the installed Pillow does not read it")
    Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / "x.png", format)
    decoded = pictures.decode(tmp_path / "x.png", 4).astype(int)
    np.testing.assert_allclose(decoded - [200, 100, 50], 0, atol=8)


def test_other_formats_are_not_read(tmp_path):
    for format in ("TGA", "PCX", "SGI", "PDF"):
        Image.new("RGB", (16, 16)).save(tmp_path / "x.png", format)
        with pytest.raises(pictures.UndecodablePicture, match="not a picture of a known format"):
            pictures.decode(tmp_path / "x.png", 4)


# --- special files and deep trees -------------------------------------------------------------


def test_special_files_are_listed_and_never_opened(tmp_path):
    save(tmp_path / "good.png")
    os.mkfifo(tmp_path / "fifo.png")
    os.symlink("/dev/zero", tmp_path / "device.png")
    os.symlink("nowhere", tmp_path / "dangling.png")
    os.symlink("good.png", tmp_path / "link.png")
    os.mkfifo(tmp_path / "not-a-picture")
    save(tmp_path / "elsewhere/x.png")
    os.symlink("elsewhere", tmp_path / "linked")
    with time_limit(20):
        source = open_source(f"folder:{tmp_path}")
        assert [source.read(row).id for row in range(len(source))] == [
            "elsewhere/x.png", "good.png", "link.png",
        ]  # fmt: skip
    assert source.skipped == [
        ("dangling.png", "No such file or directory"),
        ("device.png", "a device, not a file"),
        ("fifo.png", "a FIFO, not a file"),
        ("linked/", "a link to elsewhere/, which is read already"),
        ("not-a-picture", "a FIFO, not a file"),
    ]


def test_a_fifo_in_the_place_of_a_picture_does_not_hang(tmp_path):
    save(tmp_path / "x.png")
    source = open_source(f"folder:{tmp_path}")
    os.remove(tmp_path / "x.png")
    os.mkfifo(tmp_path / "x.png")
    with time_limit(20), pytest.raises(UnreadableItem, match="a FIFO, not a file"):
        source.read(0)


def test_trees_of_any_depth_are_walked(tmp_path):
    depth = 3000
    save(tmp_path / "x.png", 7)
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=folder)
        deeper = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.link(tmp_path / "x.png", "deep.png", dst_dir_fd=folder)
    os.close(folder)
    try:
        source = open_source(f"folder:{tmp_path}")
        (batch,) = read_items(source, batch_size=9, prepare=decoded(4))
        assert batch.ids.tolist() == ["d/" * depth + "deep.png", "x.png"]
        assert (np.stack(batch.contents) == 7).all() and source.skipped == []
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_a_folder_without_permission_is_listed(tmp_path, monkeypatch):
    for name in ("a", "locked", "z"):
        save(tmp_path / name / "x.png")
    scan = os.scandir

    def refuse(folder):  # the tests may run as root, for whom there are no permissions
        if os.readlink(f"/proc/self/fd/{folder}").endswith("/locked"):
            raise PermissionError(13, "Permission denied", "locked")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    source = open_source(f"folder:{tmp_path}")
    assert list(source.ids) == ["a/x.png", "z/x.png"]
    assert source.skipped == [("locked/", "Permission denied")]
    with pytest.raises(InputError, match=r"locked cannot be read \(Permission denied\)"):
        open_source(f"folder:{tmp_path}/locked")


def test_the_work_directory_is_left_out(tmp_path, monkeypatch):
    for name in ("a/x.png", "work/exports/a/x.png.png", "workshop/y.png"):
        save(tmp_path / name)
    os.symlink(tmp_path / "work", tmp_path / "alias")
    monkeypatch.chdir(tmp_path)
    for leave_out in (tmp_path / "work", "work", "alias", "a/../work"):
        source = open_source("folder:.", leave_out=leave_out)
        assert list(source.ids) == ["a/x.png", "workshop/y.png"]
        assert ("work/", "the work directory") in source.skipped
    for leave_out in (None, tmp_path.parent, "elsewhere"):
        assert len(open_source("folder:.", leave_out=leave_out)) == 3
    with pytest.raises(InputError, match="is the work directory"):
        open_source("folder:work", leave_out="work")
    os.symlink(tmp_path / "work", tmp_path / "a/link")  # from a folder above which it does not lie
    source = open_source("folder:a", leave_out="work")
    assert list(source.ids) == ["x.png"] and source.skipped == [("link/", "the work directory")]


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    save(tmp_path / "pool/x.png")
    np.save(tmp_path / "x.npy", np.ones((2, 2), np.float32))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_source("folder:~/pool")) == 1
    assert len(open_source("npy:~/x.npy")) == 2
    with pytest.raises(InputError, match=rf"no_such is not in {tmp_path}/data"):
        open_source("tfds:no_such", data_dir="~/data")


@pytest.mark.parametrize(
    ("spec", "package"), [("folder:gs://bucket/x", "gcsfs"), ("npy:s3://bucket/x.npy", "s3fs")]
)
def test_a_bucket_without_its_package_is_refused_in_one_line(spec, package, monkeypatch):
    uninstall(spec.split(":")[1], monkeypatch)
    with pytest.raises(InputError, match=rf"://bucket/x.*cannot be opened.*{package}") as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "request_"),
    [
        *(("folder:memory://store", "find"), ("memory://store", "ls")),
        *(("npy:memory://store/x.npy", "open"), ("npy:memory://store/*.npy", "glob")),
    ],
)
def test_errors_of_a_store_are_one_line_with_the_path(spec, request_, monkeypatch):
    exceptions = pytest.importorskip("botocore.exceptions")  # which are no errors of the system
    store = fsspec.filesystem("memory")
    store.pipe("/store/x.npy", b"")

    def refuse(*args, **kwargs):
        raise exceptions.NoCredentialsError

    try:
        with monkeypatch.context() as patch:
            patch.setattr(type(store), request_, refuse)
            with pytest.raises(InputError, match=r"^memory://store.*: no credentials") as caught:
                open_source(spec)
    finally:
        store.rm("/store", recursive=True)
    assert "\n" not in str(caught.value)


# --- memory -----------------------------------------------------------------------------------


def test_a_budget_is_shared_in_the_order_of_asking():
    budget, order, started = ByteBudget(10), [], []

    def hold(n):
        started.append(n)
        with budget.hold(n):
            order.append(n)
            assert budget.held <= 10 or budget.held == n

    with budget.hold(8):
        threads = []
        for n in (25, 3, 2):  # the first is more than the whole budget, and goes alone
            threads.append(threading.Thread(target=hold, args=(n,)))
            threads[-1].start()
            while len(budget._waiting) < len(threads):
                time.sleep(0.001)
        assert order == []
    for thread in threads:
        thread.join(20)
    assert order[0] == 25 and sorted(order) == [2, 3, 25] and budget.held == 0
    with budget.hold(10):
        pass


def test_small_amounts_are_not_counted_and_errors_give_back():
    budget = ByteBudget(10, uncounted=3)
    with pytest.raises(RuntimeError), budget.hold(10), budget.hold(3):
        raise RuntimeError
    assert budget.held == 0


APART = """
import resource, sys
from jaxcurate.sources import open_source, pictures, read_items
def told(name):
    return 1024 * int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1])
folder, (n_threads, total, limit) = sys.argv[1], map(int, sys.argv[2:])
pictures.MEMORY.total = total
source = open_source(f"folder:{folder}")
def decoded(item):
    return pictures.decode(item.content, 16)
reading = read_items(source, prepare=decoded, batch_size=99, n_threads=n_threads)
before = told("VmHWM")
if limit:
    resource.setrlimit(resource.RLIMIT_AS, (told("VmSize") + limit,) * 2)
n = sum(len(batch.ids) for batch in reading)
print(n, told("VmHWM") - before, [tuple(row) for row in reading.unreadable])
"""


def read_apart(folder, n_threads, total=pictures.MEMORY.total, limit=0):
    """Returns items read, peak memory and skipped items, measured in a separate process."""
    command = [sys.executable, "-c", APART, *map(str, (folder, n_threads, total, limit))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    n, n_bytes, left_out = done.stdout.split(maxsplit=2)
    return int(n), int(n_bytes), left_out.strip()


def save_scans(folder, n, size):
    """Pictures of which every sixteenth is large, so that each of n threads gets a large one."""
    save(folder / "00-00.png", size=size)
    save(folder / "00-01.png")
    for i in range(16 * n):
        if not (file := folder / f"{i // 16:02}-{i % 16:02}.png").exists():
            os.link(folder / ("00-01.png" if i % 16 else "00-00.png"), file)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Eight pictures that take 96 MB each, and small ones."""
    folder = tmp_path_factory.mktemp("scans")
    save_scans(folder, 8, (6000, 4000))
    return folder


def test_memory_is_bounded_by_bytes_and_not_by_threads(scans):
    n, n_bytes, left_out = read_apart(scans, 8, total=200 * 10**6)
    assert (n, left_out) == (128, "[]")
    assert n_bytes < 240e6


def test_a_picture_beyond_memory_is_listed_by_name(scans):
    n, _, left_out = read_apart(scans, 1, limit=2**26)
    assert n == 120
    assert left_out.count("takes more memory than there is") == 8
    assert "'00-00.png'" in left_out


@pytest.mark.slow
def test_sixteen_scans_on_sixteen_threads_take_little_more_than_the_budget(tmp_path):
    save_scans(tmp_path, 16, (9459, 9459))
    n, n_bytes, left_out = read_apart(tmp_path, 16, limit=3 * 2**30)
    assert (n, left_out) == (256, "[]")
    assert n_bytes < 1.1 * pictures.MEMORY.total


def test_a_picture_for_which_memory_was_short_is_tried_again_alone(monkeypatch):
    failing = [MemoryError, None]
    square = pictures.square

    def short(*args, **named):
        if error := failing.pop(0):
            raise error
        assert pictures.MEMORY.held == pictures.MEMORY.total
        return square(*args, **named)

    monkeypatch.setattr(pictures, "square", short)
    encoded = pictures.encode_png(np.full((4, 4, 3), 9, np.uint8))
    assert (pictures.decode(encoded, 4) == 9).all() and failing == []
    assert pictures.MEMORY.held == 0


def test_a_large_file_is_counted_before_it_is_opened(monkeypatch):
    held = []
    budget = ByteBudget(2**20, uncounted=100)
    monkeypatch.setattr(pictures, "MEMORY", budget)
    opened = pictures._open
    monkeypatch.setattr(pictures, "_open", lambda f: (held.append(budget.held), opened(f))[1])
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    encoded = pictures.encode_png(noise)
    pictures.decode(encoded, 8)
    assert held == [len(encoded), len(encoded) + 4 * 40 * 40]


@pytest.mark.parametrize(("batch_size", "n_threads", "most"), [(4, 8, 21), (64, 2, 200)])
def test_no_more_than_two_batches_are_read_ahead(batch_size, n_threads, most):
    class Counting:
        name = "counting"
        furthest = 0

        def __len__(self):
            return 10_000

        def read(self, row):
            self.furthest = max(self.furthest, row)
            return Item(str(row), np.zeros(1, np.float32))

    source = Counting()
    batches = iter(read_items(source, batch_size=batch_size, n_threads=n_threads))
    next(batches)
    time.sleep(0.1)
    batches.close()
    assert source.furthest < most
