"""Folders, files, rows and locks in buckets, against emulators of S3 and Google Cloud Storage."""

import contextlib
import functools
import itertools
import threading
import time
import uuid
from urllib.error import URLError

import numpy as np
import pytest
from etils import epath
from stores import connected, free_port, uninstall

from jaxcurate.artifacts import (
    bucket,
    bucket_file,
    bucket_lock,
    bucket_rows,
    files,
    folders,
    temporary,
)
from jaxcurate.artifacts.bucket_errors import any_errors, reason
from jaxcurate.artifacts.checkpoint import Checkpoint
from jaxcurate.artifacts.lock import NAME, followed, locked
from jaxcurate.artifacts.owner import Owner
from jaxcurate.artifacts.parts import Parts
from jaxcurate.artifacts.pool import Pool, make_pool
from jaxcurate.artifacts.row_file import RowFile
from jaxcurate.checks import InputError

# aiohttp says so of what gcsfs gives it.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
KIND = "notes"
RNG = np.random.default_rng(0)
HERE = Owner.current()
DEAD = HERE._replace(pid=2**22 + 7, started="1")
AWAY = DEAD._replace(host="elsewhere")


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request):
    with connected(request.param) as root:
        yield root


@pytest.fixture
def place(store):
    """A folder of its own for each test."""
    return epath.Path(f"{store}/{uuid.uuid4().hex[:8]}")


def content(place):
    """Returns the content of every object below a folder."""
    return {name: bucket.read(place / name) for name in bucket.listing(place)}


def write(path, name="a.txt", text="hello", run=None, **about):
    with folders.new_folder(path, {"run": run, **about}, KIND) as folder:
        folder.write_text(name, text)


def names(place):
    return sorted(bucket.listing(place))


# --- objects ----------------------------------------------------------------------------------


def test_an_object_is_written_in_one_piece_or_in_parts(place, monkeypatch):
    monkeypatch.setattr(bucket_file, "PART_BYTES", 5 * 2**20)  # S3 takes no smaller parts
    for n_rows in (10, 200_000):
        rows = RNG.normal(size=(n_rows, 8)).astype(np.float32)
        path = place / f"{n_rows}.npy"
        with files.NewFile(path, "token") as file, RowFile(file) as writer:
            for begin in range(0, n_rows, 7001):
                writer.append(rows[begin : begin + 7001])
            assert not bucket.is_file(path)
        whole = bucket.read(path)
        assert np.array_equal(np.load(bucket_rows.io.BytesIO(whole)), rows)
        assert file.sha256() == files.sha256(path) and file.n_bytes == len(whole)
        assert bucket.made_by([path]) == ["token"]
    assert len(names(place)) == 2


def test_half_of_an_object_never_appears(place, monkeypatch):
    monkeypatch.setattr(bucket_file, "PART_BYTES", 5 * 2**20)
    # The emulator of Google's store cannot end an upload.
    for n_bytes in (10, 12 * 2**20) if str(place).startswith("s3://") else (10,):
        with pytest.raises(ZeroDivisionError), files.NewFile(place / "a") as file:
            file.write(bytes(n_bytes))
            raise ZeroDivisionError
        forgotten = files.NewFile(place / "b")
        forgotten.write(bytes(n_bytes))
        del forgotten
        assert not bucket.is_file(place / "a") and not bucket.is_file(place / "b")
    with files.NewFile(place / "c") as file:
        file.write(bytes(12 * 2**20))
        with pytest.raises(OSError, match="only the beginning"):
            file.seek(6 * 2**20)
    assert bucket.listing(place)["c"].n_bytes == 12 * 2**20
    bucket.abort_uploads(place)
    if str(place).startswith("s3://"):
        fs = bucket.system(place)
        assert not fs.list_multipart_uploads("bucket")


def test_an_object_is_made_or_replaced_on_a_condition(place):
    assert bucket.create(place / "a", b"1")
    before = bucket.version(place / "a")
    if str(place).startswith("gs://"):
        return  # the emulator takes no conditions
    assert not bucket.create(place / "a", b"2")
    assert bucket.replace(place / "a", b"3", before)
    assert not bucket.replace(place / "a", b"4", before)
    assert bucket.read(place / "a") == b"3"
    bucket.remove([place / "a"])
    assert not bucket.replace(place / "a", b"5", before) and bucket.read(place / "a") is None


def test_google_is_asked_for_the_conditions(monkeypatch):
    """The emulator of Google does not know conditions, so that the requests are looked at."""
    pytest.importorskip("gcsfs")
    asked = []

    class Asked:
        _location = "https://storage.googleapis.com"

        def split_path(self, path):
            return "bucket", path.removeprefix("gs://bucket/"), None

        def call(self, method, path, **options):
            asked.append((method, path, options["name"], options["ifGenerationMatch"]))
            raise FileExistsError(path)

    monkeypatch.setattr(bucket, "system", lambda path: Asked())
    assert not bucket.replace("gs://bucket/a/b", b"", "17")
    place = "https://storage.googleapis.com/upload/storage/v1/b/bucket/o"
    assert asked == [("POST", place, "a/b", "17")]


# --- rows -------------------------------------------------------------------------------------


def test_rows_are_read_by_ranges(place, monkeypatch):
    x = RNG.normal(size=(1000, 6)).astype(np.float32)
    with files.NewFile(place / "x.npy") as file:
        files.save_array(file, x)
    assert isinstance(files.load_array(place / "x.npy", mmap=True), np.ndarray)  # it is small
    monkeypatch.setattr(bucket_rows, "LEAST_BYTES", 0)
    monkeypatch.setattr(bucket_rows, "RANGE_BYTES", 24 * 450)
    monkeypatch.setattr(bucket_rows, "_NEAR_BYTES", 24 * 3)
    rows = files.load_array(place / "x.npy", mmap=True)
    assert isinstance(rows, bucket_rows.BucketRows)
    assert (rows.shape, rows.dtype, len(rows), rows.ndim) == (x.shape, x.dtype, 1000, 2)
    assert rows.nbytes == x.nbytes
    some = [slice(None), slice(3, 3), slice(-5, None), slice(10, 400, 7), slice(9, 2, -2)]
    some += [
        np.array([5, 999, 5, -1, 0]),
        np.array([], int),
        np.arange(0, 1000, 3),
        [[1, 2], [3, 1]],
    ]
    some += [x[:, 0] > 0, 17, -1, np.int64(3)]
    for index in some:
        np.testing.assert_array_equal(rows[index], x[index])
    np.testing.assert_array_equal(rows.select(slice(100, 300))[50:], x[150:300])
    np.testing.assert_array_equal(rows.view(np.int32)[:9], x.view(np.int32)[:9])
    np.testing.assert_array_equal(np.asarray(rows), x)
    for index in (1000, -1001, np.array([0, 1000]), 0.5, x[:9, 0] > 0):
        with pytest.raises(IndexError):
            rows[index]
    with pytest.raises(TypeError):
        rows[:, 0]
    assert isinstance(files.load_array(place / "x.npy"), np.ndarray)


def test_no_more_is_read_than_was_asked_for(place, monkeypatch):
    x = RNG.normal(size=(4000, 64)).astype(np.float32)
    with files.NewFile(place / "x.npy") as file:
        files.save_array(file, x)
    rows, read = bucket_rows.BucketRows(place / "x.npy"), []
    cat_ranges = rows._fs.cat_ranges

    def counted(paths, starts, ends, **options):
        read.append(sum(np.subtract(ends, starts)))
        return cat_ranges(paths, starts, ends, **options)

    monkeypatch.setattr(rows._fs, "cat_ranges", counted)
    rows[np.array([3999, 0])]
    rows[7:9]
    assert sum(read) == 4 * 256
    read.clear()
    for begin in range(0, 4000, 1000):  # the second slice and the last need no reading ahead
        np.testing.assert_array_equal(rows[begin : begin + 1000], x[begin : begin + 1000])
    assert sum(read) == x.nbytes


def test_a_damaged_array_is_refused_by_name(place, monkeypatch):
    monkeypatch.setattr(bucket_rows, "LEAST_BYTES", 0)
    with files.NewFile(place / "x.npy") as file:
        files.save_array(file, np.ones((9, 2)))
    whole = bucket.read(place / "x.npy")
    for data in (whole[:-1], b"\x93NUMPY\x09\x00" + whole[8:], b"", b"hello" * 9):
        bucket.write(place / "x.npy", data)
        for mmap in (False, True):
            with pytest.raises(InputError, match=r"x\.npy"):
                files.load_array(place / "x.npy", mmap=mmap)


def test_a_pool_is_the_same_in_a_bucket(place, monkeypatch):
    pool = make_pool(RNG.normal(size=(50, 3)), [f"{i:03}" for i in range(50)])
    pool.save(place / "pool")
    monkeypatch.setattr(bucket_rows, "LEAST_BYTES", 0)
    loaded = Pool.load(place / "pool")
    assert isinstance(loaded.embeddings, bucket_rows.BucketRows)
    np.testing.assert_array_equal(loaded.embeddings[:], pool.embeddings)
    assert loaded.ids.tolist() == pool.ids.tolist() and loaded.fingerprint == pool.fingerprint
    blocks = np.concatenate([block.embeddings for block in loaded.blocks()])
    np.testing.assert_array_equal(blocks, pool.embeddings)


# --- folders ----------------------------------------------------------------------------------


def test_a_folder_is_there_with_its_card(place):
    with folders.new_folder(place / "n", {"seed": 1}, KIND) as folder:
        folder.save_array("below/x.npy", np.arange(5))
        with folder.subfolder("sub", {}, KIND) as below:
            below.write_text("a.txt", "hello")
        assert folders.read_card(place / "n") is None
    assert folders.check_files(place / "n")["seed"] == 1
    assert folders.check_files(place / "n/sub")["kind"] == KIND
    assert names(place) == [
        "n/below/x.npy", "n/card.json", "n/sub/a.txt", "n/sub/card.json"
    ]  # fmt: skip


def test_an_older_folder_stays_until_the_new_one_is_whole(place):
    write(place / "n", seed=1)
    before = content(place)
    with pytest.raises(ZeroDivisionError), folders.new_folder(place / "n", {}, KIND) as folder:
        folder.write_text("b.txt", "new")
        raise ZeroDivisionError
    assert content(place) == before
    write(place / "n", "b.txt", "new", seed=2)
    assert names(place) == ["n/b.txt", "n/card.json"]
    assert folders.check_files(place / "n")["seed"] == 2
    with pytest.raises(ZeroDivisionError), folders.new_folder(place / "m", {}, KIND) as folder:
        folder.write_text("b.txt", "new")
        raise ZeroDivisionError
    assert names(place) == ["n/b.txt", "n/card.json"]


def test_foreign_objects_stay(place):
    bucket.write(place / "n/theirs.txt", b"theirs")
    with pytest.raises(InputError, match="not written by jaxcurate"):
        write(place / "n")
    write(place / "m")
    bucket.write(place / "m/theirs.txt", b"theirs")
    with pytest.raises(InputError, match=r"m/theirs\.txt is not jaxcurate's"):
        write(place / "m")
    with pytest.raises(InputError, match="another run"):
        write(place / "m2", run="a")
        write(place / "m2", run="b")
    with (
        pytest.raises(files.DamagedError, match=r"theirs\.txt was changed by another program"),
        folders.new_folder(place / "o", {}, KIND) as folder,
    ):
        bucket.write(place / "o/theirs.txt", b"theirs")
        folder.write_text("a.txt", "hello")
    assert [name for name in names(place) if "theirs" in name] == [
        "m/theirs.txt", "n/theirs.txt", "o/theirs.txt"
    ]  # fmt: skip
    assert names(place / "o") == ["theirs.txt"]
    bucket.write(place / "p", b"theirs")
    with pytest.raises(InputError, match="is a file in the place of a folder"):
        write(place / "p")


def test_a_damaged_object_is_refused_by_name(place, monkeypatch):
    write(place / "n", "a.txt", "hello")
    monkeypatch.setattr(folders, "sha256", lambda path: pytest.fail("it was read"))
    folders.check_files(place / "n")  # the store's own checksums are enough
    monkeypatch.undo()
    bucket.write(place / "n/a.txt", b"hellO")
    with pytest.raises(files.DamagedError, match=r"n/a\.txt is damaged"):
        folders.check_files(place / "n")
    bucket.write(place / "n/a.txt", b"hell")
    with pytest.raises(files.DamagedError, match=r"n/a\.txt is damaged: 4 bytes, not 5"):
        folders.read_card(place / "n")
    bucket.remove([place / "n/a.txt"])
    with pytest.raises(files.DamagedError, match=r"n/a\.txt is missing"):
        folders.read_card(place / "n")
    bucket.write(place / "n/card.json", b"{")
    with pytest.raises(files.DamagedError, match=r"n/card\.json is damaged"):
        folders.read_card(place / "n")


def test_a_copied_folder_is_checked_by_its_content(place):
    write(place / "n")
    for name, data in content(place / "n").items():
        changed = data.replace(b'"objects"', b'"0bjects"')  # as cards of local folders lack them
        bucket.write(place / "copy" / name, changed if name != "card.json" else data)
    assert folders.check_files(place / "copy")["kind"] == KIND


class Killed(BaseException):
    """End of a process, after which none of its requests arrives."""


class Dying:
    """File system that arrives at its end after some requests that change the bucket."""

    CHANGES = ("pipe_file", "cp_file", "rm_file", "setxattrs")

    def __init__(self, fs, left):
        self.fs, self.left = fs, left

    def __getattr__(self, name):
        value = getattr(self.fs, name)
        if not callable(value):
            return value

        def called(*args, **options):
            changes = name in self.CHANGES or (
                name in ("call_s3", "call")
                and args[0] not in ("GET", "list_multipart_uploads", "head_object")
            )
            self.left -= changes
            if self.left < 0:
                raise Killed
            return value(*args, **options)

        return called


def killed_after(monkeypatch, n, work):
    """Does some work as a process that is killed after n changes; returns whether it was."""
    with monkeypatch.context() as patch:
        system = bucket.system
        dying = {}
        patch.setattr(
            bucket,
            "system",
            lambda path: dying.setdefault("s", Dying(system(path), n)),
        )
        patch.setattr(Owner, "current", classmethod(lambda cls: DEAD))
        try:
            work()
        except Killed:
            return True
        return False


@pytest.mark.parametrize("is_new", [True, False])
def test_a_kill_at_any_request_loses_nothing(place, monkeypatch, is_new):
    if str(place).startswith("gs://"):
        pytest.skip("these requests are the same for both stores")
    bucket.write(place / "theirs.txt", b"theirs")
    for n in itertools.count():
        path = place / f"n{n}"
        if not is_new:
            write(path, "old.txt", "old", seed=1)
        killed = killed_after(monkeypatch, n, functools.partial(write, path, "new.txt", seed=2))
        card = folders.read_card(path)  # never a mixture
        assert card is None or folders.check_files(path) == card
        if killed:
            folders.check_replaceable(path, KIND)
        folders.clean(place)
        card = folders.read_card(path)
        assert (card or {}).get("seed") in ((None, 2) if is_new else (1, 2))
        left = names(path)
        assert (
            left
            == {None: [], 1: ["card.json", "old.txt"], 2: ["card.json", "new.txt"]}[
                card and card["seed"]
            ]
        )
        assert not any(map(temporary.is_temporary, bucket.names(place)))
        write(path, "third.txt", seed=3)
        assert names(path) == ["card.json", "third.txt"]
        if not killed:
            break
    assert n >= (4 if is_new else 8)
    assert bucket.read(place / "theirs.txt") == b"theirs"


def test_a_kill_while_a_folder_is_removed(place, monkeypatch):
    for n in itertools.count():
        write(place / f"n{n}")
        killed = killed_after(monkeypatch, n, functools.partial(folders.discard, place / f"n{n}"))
        card = folders.read_card(place / f"n{n}")
        folders.clean(place)
        assert names(place / f"n{n}") == ([] if card is None else ["a.txt", "card.json"])
        if not killed:
            break
    assert n > 3 and card is None


def test_what_another_machine_left_goes_with_the_next_lock(place, monkeypatch):
    def dead(path):
        raise Killed

    def left_behind():
        with monkeypatch.context() as patch:
            patch.setattr(Owner, "current", classmethod(lambda cls: AWAY))
            with (
                contextlib.suppress(Killed),
                folders.new_folder(place / "n", {}, KIND) as folder,
            ):
                folder.write_text("a.txt", "hello")
                patch.setattr(bucket, "system", dead)
                raise Killed

    left_behind()  # without a lock: it may still run
    folders.clean(place)
    assert "n/a.txt" in names(place)
    with pytest.raises(InputError, match=r"is being written by process \d+ on elsewhere"):
        write(place / "n")
    bucket.remove_below(place)
    with followed(place, "earlier"):  # as another process than the one that held the lock
        left_behind()
    assert "n/a.txt" in names(place)
    with locked(place):
        folders.clean(place)
        assert names(place) == [NAME]


def test_parts_and_checkpoints(place):
    parts = Parts(place / "parts", {"seed": 0}, "run")
    for i in range(3):
        with parts.new({"rows": i}) as folder:
            folder.write_text("a.txt", str(i))
    again = Parts(place / "parts", {"seed": 0}, "run")
    assert [card["rows"] for card in again.cards] == [0, 1, 2]
    assert Parts(place / "parts", {"seed": 1}, "run").cards == []
    with folders.new_folder(place / "whole", {}, KIND) as folder:
        folder.adopt(parts.folder(1) / "a.txt", "b.txt", again.cards[1]["files"]["a.txt"])
    assert bucket.read(place / "whole/b.txt") == b"1"
    again.check_replaceable("run")
    again.remove()
    checkpoint = Checkpoint(place / "state", {"seed": 0}, None, seconds=0)
    assert checkpoint.load() is None
    for step in range(2):
        checkpoint.save({"step": np.array(step)})
        assert checkpoint.load() == {"step": np.array(step)}
    checkpoint.remove()
    assert names(place) == ["whole/b.txt", "whole/card.json"]


# --- locks ------------------------------------------------------------------------------------


def test_one_run_at_a_time(place, monkeypatch):
    with locked(place) as lock:
        assert names(place) == [NAME]
        lock.check()
        in_use = pytest.raises(InputError, match=r"is in use by process \d+ on .*--wait")
        with in_use, locked(place):
            pass
        with locked(place, token=lock.token):  # another process of the same run
            pass
        assert names(place) == [NAME]
        theirs = bucket_lock._text("other", 0)
        bucket.write(place / NAME, theirs)
        with pytest.raises(InputError, match="was locked by this run and is now held by"):
            lock.check()
        with pytest.raises(InputError, match="was locked by this run"):
            write(place / "n")
    assert bucket.read(place / NAME) == theirs  # it was not released by another
    bucket.remove([place / NAME])
    for text in (b"", b"{", b"[]"):
        bucket.write(place / NAME, text)
        with locked(place):
            pass
    monkeypatch.setattr(Owner, "current", classmethod(lambda cls: DEAD))
    bucket.write(place / NAME, bucket_lock._text("dead", 0))
    monkeypatch.undo()
    with locked(place):
        pass
    assert names(place / "n") == [] and not bucket.is_file(place / NAME)


def test_a_run_on_another_machine_is_observed(place, monkeypatch):
    for module in (bucket_lock,):
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.1)
        monkeypatch.setattr(module, "POLL_SECONDS", 0.1)
        monkeypatch.setattr(module, "OBSERVED_SECONDS", 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Owner, "current", classmethod(lambda cls: AWAY))
        bucket.write(place / NAME, bucket_lock._text("away", 0))
    with pytest.raises(InputError, match=r"in use by .* on elsewhere"), locked(place):
        pass
    monkeypatch.setattr(bucket_lock, "SILENT_SECONDS", -1.0)
    told, done = [], threading.Event()

    def beats():
        for i in itertools.count():
            if done.wait(0.2):
                return
            with_beat = bucket_lock._text("away", i).replace(HERE.host.encode(), b"elsewhere", 1)
            bucket.write(place / NAME, with_beat)

    thread = threading.Thread(target=beats)
    thread.start()
    try:
        with pytest.raises(InputError, match="in use by"), locked(place, say=told.append):
            pass
    finally:
        done.set()
        thread.join()
    with locked(place, say=told.append) as lock:
        before = bucket.version(place / NAME)
        deadline = time.monotonic() + 20
        while bucket.version(place / NAME) == before:  # it is renewed
            assert time.monotonic() < deadline
            time.sleep(0.05)
        lock.check()
    assert "whether process" in told[-1]


def test_one_of_several_runs_gets_the_lock(place):
    if str(place).startswith("gs://"):
        pytest.skip("the emulator takes no conditions")
    n_inside, most, lines = [0], [0], []

    def run():
        with locked(place, wait=True, say=lines.append):
            n_inside[0] += 1
            most[0] = max(most[0], n_inside[0])
            time.sleep(0.1)
            n_inside[0] -= 1

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and names(place) == []


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_named(scheme, package, monkeypatch):
    uninstall(scheme, monkeypatch)
    message = rf"needs the package {package}: pip install 'jaxcurate\[\w+\]'"
    with pytest.raises(InputError, match=message), locked(epath.Path(f"{scheme}://bucket/x")):
        pass


def test_names_that_are_patterns_are_refused():
    refused = pytest.raises(InputError, match="choose another name")
    with refused, locked(epath.Path("s3://bucket/run[1]")):
        pass


def test_a_store_that_refuses_is_told_in_one_line(place, monkeypatch):
    write(place / "n")

    with pytest.raises(InputError, match="there is no such bucket"):
        write(epath.Path(str(place).replace("bucket", "no-such-bucket")) / "n")
    for error, message in (
        (PermissionError(13, "Forbidden"), "access is refused"),
        (OSError("Forbidden: https://storage"), "access is refused"),
        (URLError("no route"), "cannot be reached"),
        (TimeoutError(), "cannot be reached"),
    ):

        def refused(*args, error=error, **options):
            raise error

        with monkeypatch.context() as patch:
            for name in ("pipe_file", "find", "info", "cat_file", "call_s3"):
                patch.setattr(bucket.system(place), name, refused, raising=False)
            for work in (
                lambda: write(place / "m"),
                lambda: folders.read_card(place / "n"),
                lambda: folders.check_replaceable(place / "n", KIND),
                lambda: files.load_array(place / "x.npy"),
                lambda: bucket.create(place / "x", b""),
            ):
                with pytest.raises(InputError, match=message) as caught:
                    work()
                assert "\n" not in str(caught.value) and str(place) in str(caught.value)
    assert names(place) == ["n/a.txt", "n/card.json"]


def test_only_errors_of_stores_are_turned_into_lines():
    with pytest.raises(FileNotFoundError), any_errors("s3://bucket"):
        epath.Path("/nowhere/x").read_text()
    pytest.importorskip("botocore")
    from botocore.exceptions import EndpointConnectionError, NoCredentialsError

    with pytest.raises(InputError, match="no credentials were found"), any_errors("s3://bucket"):
        raise NoCredentialsError
    error = EndpointConnectionError(endpoint_url=f"http://127.0.0.1:{free_port()}")
    assert "cannot be reached" in reason(error)
