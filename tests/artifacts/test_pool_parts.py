"""A pool in parts has the rows of its parts, whoever wrote them, and names a damaged one."""

import itertools
import os

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcurate as jc
from jaxcurate.artifacts import Block, files, folders
from jaxcurate.artifacts.pool import Pool, make_pool, write_pool
from jaxcurate.artifacts.pool_columns import column_names, read_columns
from jaxcurate.artifacts.pool_files import fill_parts, fill_pool
from jaxcurate.artifacts.pool_parts import join_pool
from jaxcurate.checks import InputError

N = 50
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
IDS = np.array([f"item-{i}" for i in range(N)])


def block(begin, end, x=X, ids=IDS, columns=False):
    table = pa.table({"side": np.arange(begin, end), "name": ids[begin:end]}) if columns else None
    return Block(x[begin:end], ids[begin:end], np.arange(begin, end) * 2, table)


def parts(folder, cuts, **more):
    """Writes finished parts of the rows, as a process does."""
    bounds = [0, *cuts, N]
    for i, (begin, end) in enumerate(itertools.pairwise(bounds)):
        about = {"n": 0}
        with folders.new_folder(f"{folder}/{i:06d}", about, "part") as new:
            if begin < end:
                filled = fill_pool(new, [block(begin, end, **more)], check_ids=False)
                about |= filled.about_part()
    return [folder / f"{i:06d}" for i in range(len(bounds) - 1)]


def check_rows(pool, x=X, ids=IDS):
    np.testing.assert_array_equal(pool.embeddings[:], x)
    np.testing.assert_array_equal(pool.ids[:], ids)
    np.testing.assert_array_equal(pool.items[:], np.arange(N) * 2)
    assert len(pool) == N


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, N), max_size=4).map(sorted))
def test_parts_are_joined_without_a_copy(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("parts")
    made = parts(folder, cuts)
    inodes = {
        os.stat(part / "embeddings.npy").st_ino
        for part in made
        if (part / "embeddings.npy").exists()
    }
    pool = join_pool(folder / "pool", made, lambda: {"made": "so"}, part_bytes=1)
    check_rows(pool)
    assert pool.embeddings.sizes == [n for n in np.diff([0, *cuts, N]) if n]
    card = folders.check_files(folder / "pool")
    assert card["made"] == "so" and (card["n"], card["dimensions"]) == (N, 4)
    found = (folder / "pool/parts").glob("*/embeddings.npy")
    assert {os.stat(path).st_ino for path in found} == inodes
    for i, part in enumerate(card["parts"]):  # each is a pool of its own
        assert Pool.load(folder / f"pool/parts/{i:06d}").fingerprint == part["pool"]
    assert pool.fingerprint == files.fingerprint([part["pool"] for part in card["parts"]])


def test_parts_that_fit_into_one_are_the_pool_that_one_process_writes(tmp_path):
    alone = write_pool(tmp_path / "alone", [block(0, 20), block(20, N)], dict)
    joined = join_pool(tmp_path / "joined", parts(tmp_path, [7, 30, 30]), dict)
    assert alone.fingerprint == joined.fingerprint == make_pool(X, IDS).fingerprint
    whole, other = (folders.check_files(tmp_path / name) for name in ("alone", "joined"))
    assert whole == other  # the files' checksums as well


def test_the_fingerprint_does_not_tell_who_wrote_the_parts(tmp_path):
    wide = IDS.astype("<U40")
    first = join_pool(tmp_path / "a", parts(tmp_path / "1", [20]), dict, part_bytes=1)
    second = join_pool(tmp_path / "b", parts(tmp_path / "2", [20], ids=wide), dict, part_bytes=1)
    with folders.new_folder(tmp_path / "c", about := {}, "pool") as folder:
        about |= fill_parts(folder, [block(0, 9), block(9, N, ids=wide)], [20, N])
    assert first.fingerprint == second.fingerprint == Pool.load(tmp_path / "c").fingerprint
    first.save(tmp_path / "saved")
    assert Pool.load(tmp_path / "saved").fingerprint == first.fingerprint
    other = join_pool(tmp_path / "d", parts(tmp_path / "3", [21]), dict, part_bytes=1)
    assert other.fingerprint != first.fingerprint


def test_a_stream_is_cut_by_bytes(tmp_path):
    for name, part_bytes, sizes in (("one", 16 * N, None), ("more", 16 * N - 1, [N - 1, 1])):
        with folders.new_folder(tmp_path / name, about := {}, "pool") as folder:
            about |= fill_parts(folder, [block(0, 9), block(9, N)], part_bytes)
        pool = Pool.load(tmp_path / name)
        check_rows(pool)
        assert sizes is None or pool.embeddings.sizes == sizes
    assert Pool.load(tmp_path / "one").fingerprint == make_pool(X, IDS).fingerprint


def test_a_damaged_part_is_named_when_it_is_read(tmp_path):
    join_pool(tmp_path / "pool", parts(tmp_path, [20, 40]), dict, part_bytes=1)
    with open(tmp_path / "pool/parts/000001/embeddings.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    pool = Pool.load(tmp_path / "pool")
    np.testing.assert_array_equal(pool.embeddings[:20], X[:20])
    with pytest.raises(files.DamagedError, match=r"parts/000001/embeddings\.npy is damaged"):
        pool.embeddings[19:21]
    with pytest.raises(files.DamagedError, match=r"parts/000001/embeddings\.npy is damaged"):
        jc.kmeans(pool, 3)
    os.truncate(tmp_path / "pool/parts/000002/ids.npy", 10)
    with pytest.raises(files.DamagedError, match=r"parts/000002/ids\.npy is damaged: 10 bytes"):
        Pool.load(tmp_path / "pool")


@pytest.mark.parametrize("part_bytes", [1, 10**6])
def test_equal_ids_are_refused_or_numbered(tmp_path, part_bytes):
    ids = IDS.copy()
    ids[[3, 25, 49]] = "same"
    made = parts(tmp_path, [20, 40], ids=ids)
    with pytest.raises(InputError, match="'same' is there twice"):
        join_pool(tmp_path / "pool", made, dict, part_bytes=part_bytes)
    assert not (tmp_path / "pool").exists()
    pool = join_pool(tmp_path / "pool", made, dict, part_bytes=part_bytes, number_repeats=True)
    ids[[25, 49]] = "same~2", "same~3"
    check_rows(pool, ids=ids)
    folders.check_files(tmp_path / "pool")


def test_parts_that_differ_are_refused(tmp_path):
    made = parts(tmp_path / "a", [])
    for x, what in ((X[:, :3], "3 float32"), (X.astype(np.float16), "4 float16")):
        other = parts(tmp_path / what, [], x=x, ids=np.char.add("b", IDS))
        with pytest.raises(InputError, match=f"has rows of 4 float32, and .* of {what}"):
            join_pool(tmp_path / "pool", [*made, *other], dict)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.int8])
def test_narrow_types_stay(tmp_path, dtype):
    x = np.arange(4 * N).reshape(N, 4).astype(dtype)
    pool = join_pool(tmp_path / "pool", parts(tmp_path, [20], x=x), dict, part_bytes=1)
    check_rows(pool, x)
    assert pool.embeddings.dtype == dtype
    pool.save(tmp_path / "saved")
    check_rows(Pool.load(tmp_path / "saved"), x)
    assert isinstance(Pool.load(tmp_path / "saved", mmap=False).embeddings, np.ndarray)


def test_columns_are_read_from_all_parts(tmp_path):
    join_pool(tmp_path / "pool", parts(tmp_path, [20, 40], columns=True), dict, part_bytes=1)
    assert column_names(tmp_path / "pool") == ["side", "name"]
    columns = read_columns(tmp_path / "pool")
    np.testing.assert_array_equal(columns["side"], np.arange(N))
    assert columns["name"].tolist() == IDS.tolist()
    rows = np.array([0, 19, 20, 45])
    assert read_columns(tmp_path / "pool", ["side"], rows)["side"].tolist() == rows.tolist()
    with pytest.raises(InputError, match="no column 'top', only side, name"):
        read_columns(tmp_path / "pool", ["top"])
    (tmp_path / "pool/parts/000001/columns.parquet").write_bytes(
        (tmp_path / "pool/parts/000001/columns.parquet").read_bytes()[::-1]
    )
    with pytest.raises(files.DamagedError, match=r"000001/columns\.parquet is damaged"):
        read_columns(tmp_path / "pool", ["side"])


def test_a_file_system_without_hard_links_moves_the_files(tmp_path, monkeypatch):
    def refuses(*_):
        raise PermissionError(1, "Operation not permitted")

    made = parts(tmp_path, [20])
    monkeypatch.setattr(os, "link", refuses)
    check_rows(join_pool(tmp_path / "pool", made, dict, part_bytes=1))
    assert not (made[0] / "embeddings.npy").exists()


def test_a_tree_is_stored_in_parts(tmp_path):
    rng = np.random.default_rng(0)
    leaves = jc.TreeLevel(X[:9], rng.integers(0, 9, N, np.int32), rng.random(N, np.float32))
    top = jc.TreeLevel(X[:2], rng.integers(0, 2, 9, np.int32), rng.random(9, np.float32))
    tree = jc.ClusterTree((leaves, top), "a pool")
    tree.save(tmp_path / "parts", part_bytes=80)
    tree.save(tmp_path / "flat")
    names = {f"l1_{name}/{i:06d}.npy" for name in ("labels", "distances") for i in range(3)}
    card = folders.check_files(tmp_path / "parts")
    assert {name for name in card["files"] if "/" in name} == names
    assert "l2_labels.npy" in card["files"]  # small enough
    for name in ("parts", "flat"):
        loaded = jc.ClusterTree.load(tmp_path / name)
        for level, other in zip(tree.levels, loaded.levels, strict=True):
            for array, read in zip(level, other, strict=True):
                np.testing.assert_array_equal(array, read)
    os.truncate(tmp_path / "parts/l1_labels/000002.npy", 100)
    with pytest.raises(files.DamagedError, match=r"l1_labels/000002\.npy is damaged"):
        jc.ClusterTree.load(tmp_path / "parts", check=False)
