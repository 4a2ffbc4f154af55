"""Rows of .npy, .npz, .safetensors and Zarr are read as they are stored, wherever they are."""

import io
import json
import sys
import warnings
import zipfile

import fsspec
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from faults.limits import time_limit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxcurate.checks import InputError
from jaxcurate.sources import ArraySource, InBlocks, Named, UnreadableItem, open_source, read_items
from jaxcurate.sources.arrays import natural

X = np.random.default_rng(0).standard_normal((23, 5)).astype(np.float32)
IDS = [f"item {i}" for i in range(23)]


def all_rows(source, batch_size=4):
    return np.concatenate([batch.contents for batch in read_items(source, batch_size=batch_size)])


def check_rows(source, expected):
    """Compares a source with an array, read in turn, in any order, twice and one by one."""
    assert isinstance(source, InBlocks) and isinstance(source, Named)
    assert (len(source), source.width, source.dtype) == (*expected.shape, expected.dtype)
    rows = all_rows(source)
    assert rows.dtype == expected.dtype
    np.testing.assert_array_equal(rows, expected)
    draw = np.random.default_rng(1).integers(0, len(expected), 40)
    ids, block = source.read_block(draw)
    np.testing.assert_array_equal(block, expected[draw])
    all_ids = list(source.ids)
    assert ids.tolist() == [all_ids[row] for row in draw]
    last = source.read(len(expected) - 1)
    assert last.id == all_ids[-1]
    np.testing.assert_array_equal(last.content, expected[-1])


def refused(spec, **options) -> str:
    with time_limit(20), pytest.raises(InputError) as caught:
        open_source(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tensors(arrays) -> bytes:
    """A .safetensors file, written as the format says."""
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8", "int64": "I64"}
    names |= {"float64": "F64", "bool": "BOOL"}
    header, data = {"__metadata__": {"made": "here"}}, b""
    for name, array in arrays.items():
        offsets = [len(data), len(data) + array.nbytes]
        kind = names[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


# --- types ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        *(("<f2", "float16"), (">f2", "float16"), ("int8", "int8"), ("bfloat16", "bfloat16")),
        *(("<f4", "float32"), (">f4", "float32"), ("<f8", "float32"), ("<i8", "float32")),
        *(("uint8", "float32"), ("<i2", "float32")),
    ],
)
def test_narrow_types_are_kept_and_others_become_float32(tmp_path, dtype, kept):
    x = (X * 20).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    expected = x.astype(kept)
    for spec in (f"npy:{tmp_path}/x.npy", f"npz:{tmp_path}/x.npz"):
        check_rows(open_source(spec), expected)


def test_what_jax_saves_as_bfloat16_is_read_as_bfloat16(tmp_path):
    x = jnp.asarray(X, jnp.bfloat16)
    jnp.save(tmp_path / "x.npy", x)
    assert np.load(tmp_path / "x.npy").dtype == np.dtype("V2")
    source = open_source(f"npy:{tmp_path}/x.npy")
    check_rows(source, np.asarray(x))
    assert source.fingerprint == open_source(f"npy:{tmp_path}/x.npy").fingerprint


def test_a_bfloat16_row_with_a_nan_is_listed(tmp_path):
    x = X.astype(ml_dtypes.bfloat16)
    x[3, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    reading = read_items(open_source(f"npy:{tmp_path}/x.npy"), batch_size=9)
    assert sum(len(batch.ids) for batch in reading) == 22
    assert [row.row for row in reading.unreadable] == [3]


# --- many files -------------------------------------------------------------------------------


def save_parts(folder, names, parts):
    for name, part in zip(names, parts, strict=True):
        np.save(folder / name, part)


def test_files_follow_each_other_in_the_order_of_numbers(tmp_path):
    parts = np.split(X, [7, 8, 20])
    save_parts(tmp_path, ["x1.npy", "x2.npy", "x10.npy", "x11.npy"], parts)
    (tmp_path / "notes.txt").write_text("not taken")
    for spec in (f"npy:{tmp_path}", f"npy:{tmp_path}/x*.npy", f"npy:{tmp_path}/"):
        source = open_source(spec)
        check_rows(source, X)
        assert list(source.ids) == [str(i) for i in range(23)]


@given(st.lists(st.text(st.sampled_from("0129ab/²"), max_size=6)))
@settings(max_examples=100, deadline=None)
def test_the_order_of_names_is_total(names):
    assert natural(names) == natural(names[::-1])


def test_numbers_of_one_length_are_in_the_order_of_strings():
    names = [f"part-{i:05}-of-00200.npy" for i in range(200)]
    assert natural(names[::-1]) == names == sorted(names)
    assert natural(["x" + "9" * 5000, "x10"]) == ["x10", "x" + "9" * 5000]


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    save_parts(tmp_path, ["a.npy", "b.npy"], [X, X[:, :4]])
    assert "b.npy has rows of 4 numbers" in refused(f"npy:{tmp_path}")
    np.save(tmp_path / "b.npy", X.astype(np.float16))
    assert "b.npy holds float16" in refused(f"npy:{tmp_path}")
    np.save(tmp_path / "b.npy", X.astype(np.float64))  # becomes float32, as a.npy is
    assert len(open_source(f"npy:{tmp_path}")) == 46
    np.save(tmp_path / "b.npy", X[:0])
    assert "b.npy must be [n, d]" in refused(f"npy:{tmp_path}")
    assert "holds no arrays (.npy)" in refused(f"npy:{tmp_path}/*.npz")


def test_the_fingerprint_follows_files_and_keys(tmp_path):
    save_parts(tmp_path, ["a.npy", "b.npy"], [X, X])
    before = {verify: open_source(f"npy:{tmp_path}", verify=verify).fingerprint
              for verify in ("stat", "content")}  # fmt: skip
    np.save(tmp_path / "b.npy", X)  # the same content at another time
    after = {verify: open_source(f"npy:{tmp_path}", verify=verify).fingerprint
             for verify in ("stat", "content")}  # fmt: skip
    assert before["content"] == after["content"] and before["stat"] != after["stat"]
    np.save(tmp_path / "b.npy", -X)
    assert open_source(f"npy:{tmp_path}", verify="content").fingerprint != after["content"]
    np.savez(tmp_path / "x.npz", a=X, b=X)
    prints = {open_source(f"npz:{tmp_path}/x.npz:{key}").fingerprint for key in "ab"}
    assert len(prints) == 2


# --- ids, labels and domains ------------------------------------------------------------------


def test_ids_beside_an_array(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "ids.npy", np.array(IDS))
    (tmp_path / "ids.txt").write_text("\r\n".join(IDS) + "\r\n")
    np.save(tmp_path / "numbers.npy", np.arange(23) * 7)
    plain = open_source(f"npy:{tmp_path}/x.npy")
    for name in ("ids.npy", "ids.txt"):
        source = open_source(f"npy:{tmp_path}/x.npy", id_key=f"{tmp_path}/{name}")
        check_rows(source, X)
        assert list(source.ids) == IDS and source.fingerprint != plain.fingerprint
    source = open_source(f"npy:{tmp_path}/x.npy", id_key=f"{tmp_path}/numbers.npy",
                         label_key=f"{tmp_path}/ids.txt")  # fmt: skip
    assert source.read(2).id == "14"
    assert source.annotations([1, 0]).label.tolist() == ["item 1", "item 0"]
    assert source.annotations([1]).domain.tolist() == [""]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (IDS[:-1], "has 23 rows, but 22 ids"),
        ([*IDS[:-1], IDS[0]], "has the id 'item 0' more than once"),
        (["", *IDS[1:]], "has an empty id"),
        (np.arange(23) / 2, r"must be strings or whole numbers [n], not float64 [23]"),
        (np.zeros((23, 1), int), "must be strings or whole numbers"),
    ],
)
def test_ids_that_cannot_be_used_are_refused(tmp_path, ids, message):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "ids.npy", np.asarray(ids))
    np.savez(tmp_path / "x.npz", x=X, ids=np.asarray(ids))
    assert message in refused(f"npy:{tmp_path}/x.npy", id_key=f"{tmp_path}/ids.npy")
    assert message in refused(f"npz:{tmp_path}/x.npz:x", id_key="ids")


def test_ids_that_are_not_there_or_no_names_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "ids").write_bytes(b"\xff\xfe")
    with open(tmp_path / "objects.npy", "wb") as file:
        np.lib.format.write_array(file, np.array([None] * 23, object))
    for name, message in (
        ("none", "there is no such file; keys of arrays are paths of files"),
        ("ids", "neither a .npy file nor text in UTF-8"),
        ("objects.npy", "holds Python objects, which are never unpickled"),
    ):
        assert message in refused(f"npy:{tmp_path}/x.npy", id_key=f"{tmp_path}/{name}")


# --- archives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_an_archive(tmp_path, save):
    path = f"{tmp_path}/x.npz"
    save(path, x=X, ids=np.array(IDS), label=np.arange(23), kind=np.array([b"a\xff"] * 23))
    source = open_source(f"npz:{path}", id_key="ids", label_key="label", domain_key="kind")
    check_rows(source, X)
    assert list(source.ids) == IDS and source.name == f"npz:{path}"
    label, domain = source.annotations([3])
    assert (label.tolist(), domain.tolist()) == (["3"], ["a\\xff"])
    assert "no array 'y'; its arrays are 'ids', 'kind', 'label', 'x'" in refused(f"npz:{path}:y")
    assert "must be [n, d]" in refused(f"npz:{path}:label")
    save(path, x=np.asfortranarray(X), y=-X)
    assert f"'x', 'y': name one, as in npz:{path}:x" in refused(f"npz:{path}")
    check_rows(open_source(f"npz:{path}:y"), -X)
    check_rows(open_source(f"npz:{path}", content_key="x"), X)
    assert "content_key='x'" in refused(f"npz:{path}:y", content_key="x")
    save(path, x=X[0])
    assert "holds no real numbers [n, d]" in refused(f"npz:{path}")


def test_stored_arrays_of_an_archive_are_mapped_and_not_copied(tmp_path):
    np.savez(tmp_path / "x.npz", x=X)
    source = open_source(f"npz:{tmp_path}/x.npz")
    assert isinstance(source._parts[0].array, np.memmap)


def test_broken_archives_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=X)
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    assert "is not a whole .npz archive" in refused(f"npz:{path}")
    path.write_bytes(b"id,x\n1,2\n")
    assert "is not a whole .npz archive: it is text, such as CSV" in refused(f"npz:{path}")
    with zipfile.ZipFile(path, "w") as archive:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.array([[None]], object))
        archive.writestr("x.npy", buffer.getvalue())
    assert "x.npy is not a whole .npy file of numbers: it holds Python" in refused(f"npz:{path}")


def test_tensors(tmp_path):
    path = tmp_path / "x.safetensors"
    for dtype in ("float32", "float16", "bfloat16", "int8"):
        x = (X * 20).astype(dtype)
        path.write_bytes(tensors({"x": x, "flags": X > 0, "ids": np.arange(23) + 5}))
        source = open_source(f"safetensors:{path}", id_key="ids")
        check_rows(source, x)
        assert source.read(0).id == "5"
    halves = tmp_path / "halves"
    halves.mkdir()
    for i, part in enumerate(np.split(X, [9])):
        (halves / f"{i}.safetensors").write_bytes(tensors({"a": part, "b": -part}))
    check_rows(open_source(f"safetensors:{halves}:b"), -X)
    assert "several arrays [n, d], 'a', 'b'" in refused(f"safetensors:{halves}")
    assert "no array 'flags'" in refused(f"safetensors:{path}:flags")  # of another type


def test_tensors_of_the_package_are_read(tmp_path):
    package = pytest.importorskip("safetensors.numpy")
    for dtype in ("float32", "float16", "bfloat16", "int8", "float64", "int32", "uint8"):
        x = (X * 20).astype(dtype)
        package.save_file({"x": x, "y": X[0]}, tmp_path / "x.safetensors", {"a": "b"})
        kept = dtype if dtype in ("float16", "bfloat16", "int8") else "float32"
        check_rows(open_source(f"safetensors:{tmp_path}/x.safetensors"), x.astype(kept))


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"1234567", b"\xff" * 20, (2).to_bytes(8, "little") + b"[]"),
        *(b"\x05" + b"\0" * 7 + b'{"x":', tensors({"x": X})[:-1], tensors({"x": X}) + b"x"),
        tensors({"x": X}).replace(b"[23, 5]", b"[23,-5]"),
        tensors({"x": X}).replace(b"[23, 5]", b"[23, 6]"),
        tensors({"x": X}).replace(b'"F32"', b"[1,2]"),
    ],
)
def test_broken_tensors_are_refused(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    assert "is not a whole .safetensors file" in refused(f"safetensors:{tmp_path}/x.safetensors")


@given(st.sampled_from(["npz", "safetensors"]), st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_bytes_that_are_changed_are_read_or_refused(tmp_path, scheme, data):
    buffer = io.BytesIO()
    save = np.savez_compressed if data.draw(st.booleans()) else np.savez
    save(buffer, x=X, ids=np.arange(23))
    whole = bytearray(buffer.getvalue() if scheme == "npz" else tensors({"x": X}))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    (tmp_path / f"x.{scheme}").write_bytes(whole)
    with warnings.catch_warnings(), time_limit(20):
        warnings.simplefilter("ignore")  # as in a run
        try:
            all_rows(open_source(f"{scheme}:{tmp_path}/x.{scheme}"))
        except (InputError, UnreadableItem) as error:
            assert "\n" not in str(error)
        except ValueError as error:  # no row of the file may be usable
            assert "concatenate" in str(error)


# --- buckets ----------------------------------------------------------------------------------


@pytest.fixture
def bucket():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def npy(x) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, x)
    return buffer.getvalue()


def test_rows_of_a_bucket_are_read_by_ranges(bucket, monkeypatch):
    wide = np.random.default_rng(2).standard_normal((500, 1000)).astype(np.float16)
    for i, part in enumerate(np.split(wide, [100, 101])):
        bucket.pipe(f"/pool/x{i}.npy", npy(part))
    bucket.pipe("/pool/ids.txt", "\n".join(map(str, range(1, 501))).encode())
    source = open_source("npy:memory://pool/x*.npy", id_key="memory://pool/ids.txt")
    check_rows(source, wide)
    assert source.read(0).id == "1"
    check_rows(open_source("npy:memory://pool"), wide)
    asked = []
    ranges = type(bucket).cat_ranges

    def counting(self, paths, starts, ends, **named):
        asked.extend(end - start for start, end in zip(starts, ends, strict=True))
        return ranges(self, paths, starts, ends, **named)

    monkeypatch.setattr(type(bucket), "cat_ranges", counting)
    source.read_block(np.array([499, 0, 200, 201, 230]))
    assert sorted(asked) == [2000, 2000, 31 * 2000]  # rows 200 to 230 in one request
    assert (
        open_source("npy:memory://pool").fingerprint == open_source("npy:memory://pool").fingerprint
    )


def test_archives_and_tensors_of_a_bucket(bucket):
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, x=X, ids=np.array(IDS))
        bucket.pipe("/pool/x.npz", buffer.getvalue())
        source = open_source("npz:memory://pool/x.npz:x", id_key="ids")
        check_rows(source, X)
        assert source.read(1).id == "item 1"
    bucket.pipe("/pool/x.safetensors", tensors({"x": X}))
    check_rows(open_source("safetensors:memory://pool/x.safetensors"), X)
    bucket.pipe("/pool/f.npy", npy(np.asfortranarray(X)))
    assert "stored column by column" in refused("npy:memory://pool/f.npy")
    assert "there is no such file" in refused("npy:memory://pool/none.npy")


def test_a_file_of_a_bucket_that_became_shorter_is_refused(bucket):
    bucket.pipe("/pool/x.npy", npy(X))
    source = open_source("npy:memory://pool/x.npy")
    bucket.pipe("/pool/x.npy", npy(X)[:-30])
    with pytest.raises(InputError, match=r"memory://pool/x.npy cannot be read \(it became"):
        source.read(22)


# --- Zarr -------------------------------------------------------------------------------------


def save_zarr(path, x, driver="zarr3", rows=4):
    tensorstore = pytest.importorskip("tensorstore")
    store = tensorstore.open(
        {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}},
        create=True,
        dtype=x.dtype.name,
        shape=x.shape,
        chunk_layout=tensorstore.ChunkLayout(chunk_shape=[rows, *x.shape[1:]]),
    ).result()
    store.write(x).result()


@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_rows_of_zarr(tmp_path, driver, dtype):
    x = (X * 20).astype(dtype)
    save_zarr(tmp_path / "x.zarr", x, driver)
    for spec in (f"zarr:{tmp_path}/x.zarr", f"zarr:{tmp_path}/x.zarr/", f"{tmp_path}/x.zarr"):
        source = open_source(spec)
        check_rows(source, x)
    np.save(tmp_path / "ids.npy", np.array(IDS))
    named = open_source(f"zarr:{tmp_path}/x.zarr", id_key=f"{tmp_path}/ids.npy")
    assert named.read(4).id == "item 4" and named.fingerprint != source.fingerprint
    assert open_source(f"zarr:{tmp_path}/x.zarr").fingerprint == source.fingerprint


def test_an_array_of_a_group(tmp_path):
    save_zarr(tmp_path / "x.zarr/a", X)
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    (tmp_path / "x.zarr/zarr.json").write_text(json.dumps(group))
    check_rows(open_source(f"zarr:{tmp_path}/x.zarr:a"), X)
    message = refused(f"{tmp_path}/x.zarr")
    assert "is a group of arrays, 'a': name one, as in zarr:" in message
    assert "is not a Zarr array" in refused(f"zarr:{tmp_path}/x.zarr:b")
    assert "must not hold '..'" in refused(f"zarr:{tmp_path}/x.zarr:../a")


def test_zarr_that_cannot_be_used_is_refused(tmp_path, monkeypatch):
    assert "is not a Zarr array" in refused(f"zarr:{tmp_path}")
    save_zarr(tmp_path / "flat", X[0], rows=2)
    assert "must be [n, d]" in refused(f"zarr:{tmp_path}/flat")
    save_zarr(tmp_path / "x", X)
    before = open_source(f"zarr:{tmp_path}/x").fingerprint
    (tmp_path / "x/c/2/0").unlink()
    with pytest.raises(InputError, match="missing") as caught:
        open_source(f"zarr:{tmp_path}/x").read(9)
    assert "\n" not in str(caught.value)
    assert open_source(f"zarr:{tmp_path}/x").fingerprint != before
    (tmp_path / "x/c/1/0").write_bytes(b"short")
    with pytest.raises(InputError, match="cannot be read"):
        open_source(f"zarr:{tmp_path}/x").read(5)
    for text in ("", "{", "[]", "{}", '{"node_type": "array"}', "[" * 100_000):
        (tmp_path / "x/zarr.json").write_text(text)
        assert "cannot be opened" in refused(f"zarr:{tmp_path}/x")
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    assert "pip install tensorstore" in refused(f"zarr:{tmp_path}/flat")


def test_an_array_source_is_a_memory_map(tmp_path):
    np.save(tmp_path / "x.npy", X)
    source = ArraySource(tmp_path / "x.npy")
    assert isinstance(source.array, np.memmap)
    np.testing.assert_array_equal(source.array, X)
