"""Each format gives back the bytes that it was given, read by the library that it is meant for."""

import csv
import io
import json
import os
import tarfile
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
from etils import epath
from PIL import Image

from jaxcurate.artifacts.files import DamagedError
from jaxcurate.artifacts.folders import NewFolder, check_files
from jaxcurate.checks import InputError
from jaxcurate.export import (
    FORMATS,
    ExportItem,
    Plan,
    Shard,
    export_items,
    id_of,
    id_of_key,
)
from jaxcurate.sources import open_source

HOSTILE = [
    "", "a", "a.png", "cats/0001.JPG", "../../etc/passwd", "..", "/abs", "card.json",
    "card.json/x", "back\\slash", "new\nline", "é" * 150, "caf\\xe9.png", "__x__/y", "a,b\"c.webp",
]  # fmt: skip
PILLOW = ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]


# webdataset leaves the files that it has read to the garbage collector.
UNCLOSED = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def picture(seed: int, format: str) -> bytes:
    """Bytes of a picture with a trailing zero byte, which careless text types would lose."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue() + b"\0"


PICTURES = [
    ExportItem(id, picture(i, PILLOW[i % len(PILLOW)]), None, 3 * i, 1 + (i % 4 == 0), {"l1": i})
    for i, id in enumerate(HOSTILE)
]
TEXTS = [
    ExportItem(id, f"text {i}\n \x00é" if i else "", None, 3 * i, 1 + (i % 4 == 0))
    for i, id in enumerate(HOSTILE)
]


def vectors(dtype) -> list[ExportItem]:
    rows = np.random.default_rng(0).integers(-100, 100, (len(HOSTILE), 4)).astype(dtype)
    return [ExportItem(id, rows[i], None, 3 * i, 1 + (i % 4 == 0)) for i, id in enumerate(HOSTILE)]


def write(path: Path, items: list[ExportItem], kind: str, format: str, per_shard: int = 4) -> Path:
    export_items(path, iter(items), kind, format, {}, items_per_shard=per_shard, n_items=len(items))
    check_files(path)
    return path


def drawn(items):
    """Contents and rows by id, with the number of draws of each."""
    return Counter({(item.id, item.row, item.content): item.count for item in items})


def once(items):
    return {item.id: (item.row, item.count, item.content) for item in items}


@pytest.mark.parametrize("items", [PICTURES, TEXTS], ids=["picture", "text"])
def test_tfds_reads_what_was_written(tmp_path, items):
    tfds = pytest.importorskip("tensorflow_datasets")
    kind = "picture" if items is PICTURES else "text"
    folder = write(tmp_path / "out", items, kind, "tfds")
    builder = tfds.builder_from_directory(str(folder))
    key = "image" if kind == "picture" else "text"
    raw = builder.as_data_source("train", decoders={key: tfds.decode.SkipDecoding()})
    assert builder.info.splits["train"].num_examples == len(raw) == sum(i.count for i in items)
    assert len(builder.info.splits["train"].shard_lengths) == 4
    back = Counter(
        (r["id"].decode(), int(r["row"]), r[key] if key == "image" else r[key].decode())
        for r in raw
    )
    assert back == drawn(items)
    if kind == "picture":
        png = next(record for record in builder.as_data_source("train") if record["id"] == b"")
        np.testing.assert_array_equal(
            png["image"], np.asarray(Image.open(io.BytesIO(PICTURES[0].content)))
        )


def test_tfds_writes_the_features_in_order(tmp_path):
    """Protocol buffers have an order of their own in each process, so that equal runs differ."""
    pytest.importorskip("tensorflow_datasets")
    from array_record.python.array_record_module import ArrayRecordReader

    one, other = (write(tmp_path / name, TEXTS, "text", "tfds") for name in ("one", "other"))
    names = sorted(path.name for path in one.iterdir())
    assert len(names) == 7 and names == sorted(path.name for path in other.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for path in one.glob("*array_record*"):
        reader = ArrayRecordReader(str(path))
        for record in reader.read_all():
            places = [record.index(key) for key in (b"\n\x02id", b"\n\x03row", b"\n\x04text")]
            assert places == sorted(places)
        reader.close()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, ml_dtypes.bfloat16])
def test_tfds_keeps_the_type_of_vectors(tmp_path, dtype):
    tfds = pytest.importorskip("tensorflow_datasets")
    items = vectors(dtype)
    folder = write(tmp_path / "out", items, "vector", "tfds", 100)
    records = list(tfds.builder_from_directory(str(folder)).as_data_source("train"))
    wanted = np.stack([item.content for item in items for _ in range(item.count)])
    kept = np.float32 if dtype is ml_dtypes.bfloat16 else dtype
    assert {record["vector"].dtype for record in records} == {np.dtype(kept)}
    np.testing.assert_array_equal(np.stack([record["vector"] for record in records]), wanted)


def test_grain_iterates_over_tfds_without_copies(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    grain = pytest.importorskip("grain")
    folder = write(tmp_path / "out", PICTURES, "picture", "tfds")
    source = tfds.builder_from_directory(str(folder)).as_data_source("train")
    dataset = grain.MapDataset.source(source).seed(0).shuffle().map(lambda item: item["row"])
    rows = Counter(int(row) for row in dataset)
    assert rows == Counter({item.row: item.count for item in PICTURES})


def test_a_pool_can_be_read_from_an_export(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    from jaxcurate.sources.prepared import open_folder
    from jaxcurate.sources.tfds import DatasetSource

    folder = write(tmp_path / "items/1.0.0", PICTURES, "picture", "tfds")
    source = DatasetSource(open_folder("items", folder), "train")
    assert [source.read(0).id, source.read(2).content] == ["", PICTURES[1].content]
    assert len(open_source("tfds:items", data_dir=tmp_path)) == len(source)


@UNCLOSED
@pytest.mark.parametrize("kind", ["picture", "text", "vector"])
def test_webdataset_reads_what_was_written(tmp_path, kind):
    items = {"picture": PICTURES, "text": TEXTS, "vector": vectors(np.float16)}[kind]
    folder = write(tmp_path / "out", items, kind, "webdataset")
    wds = pytest.importorskip("webdataset")
    tars = sorted(map(str, folder.glob("*.tar")))
    assert len(tars) == 4
    samples = list(wds.WebDataset(tars, shardshuffle=False))
    assert len({sample["__key__"] for sample in samples}) == sum(item.count for item in items)
    wanted = [item for item in items for _ in range(item.count)]
    for sample, item in zip(samples, wanted, strict=True):
        about = json.loads(sample["json"])
        assert about == {"id": item.id, "row": item.row}
        assert id_of_key(sample["__key__"]) == item.id
        (suffix,) = {key for key in sample if not key.startswith("_")} - {"json"}
        if kind == "vector":
            np.testing.assert_array_equal(np.load(io.BytesIO(sample[suffix])), item.content)
        else:
            data = item.content if kind == "picture" else item.content.encode()
            assert sample[suffix] == data
    if kind == "picture":
        suffixes = {key for sample in samples for key in sample if not key.startswith("_")}
        assert suffixes == {"json", "png", "jpg", "webp", "gif", "tif", "bmp"}


@UNCLOSED
def test_webdataset_decodes_pictures(tmp_path):
    wds = pytest.importorskip("webdataset")
    folder = write(tmp_path / "out", PICTURES[:2], "picture", "webdataset")
    tars = sorted(map(str, folder.glob("*.tar")))
    samples = list(wds.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    pixels = np.asarray(Image.open(io.BytesIO(PICTURES[0].content)))
    np.testing.assert_array_equal(samples[0]["png"], pixels)
    assert samples[1]["json"] == samples[0]["json"] == {"id": "", "row": 0}


def test_archives_name_no_user_and_no_time(tmp_path):
    folder = write(tmp_path / "out", PICTURES, "picture", "webdataset")
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as archive:
            for member in archive:
                assert (member.uid, member.gid, member.uname, member.mtime) == (0, 0, "", 0)
                assert not member.name.startswith("/") and ".." not in member.name.split("/")


@pytest.mark.parametrize("kind", ["picture", "text"])
def test_huggingface_loads_what_was_written(tmp_path, kind):
    items = PICTURES if kind == "picture" else TEXTS
    folder = write(tmp_path / "out", items, kind, "huggingface")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_from_disk(str(folder))
    assert len(loaded) == sum(item.count for item in items)
    if kind == "picture":
        assert loaded.features["image"] == datasets.Image()
        pixels = np.asarray(Image.open(io.BytesIO(PICTURES[0].content)))
        np.testing.assert_array_equal(np.asarray(loaded[0]["image"]), pixels)
        loaded = loaded.cast_column("image", datasets.Image(decode=False))
        back = Counter((r["id"], r["row"], r["image"]["bytes"]) for r in loaded)
    else:
        back = Counter((r["id"], r["row"], r["text"]) for r in loaded)
    assert back == drawn(items)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, ml_dtypes.bfloat16])
@pytest.mark.parametrize("format", ["huggingface", "parquet"])
def test_arrow_keeps_the_type_of_vectors(tmp_path, format, dtype):
    items = vectors(dtype)
    folder = write(tmp_path / "out", items, "vector", format)
    kept = np.dtype(np.float32 if dtype is ml_dtypes.bfloat16 else dtype)
    if format == "huggingface":
        datasets = pytest.importorskip("datasets")
        loaded = datasets.load_from_disk(str(folder)).with_format("numpy")
        assert loaded.features["vector"].feature.dtype == kept.name
        rows, repeats = loaded["vector"][:], [item.count for item in items]
    else:
        column = pq.read_table(sorted(folder.glob("*.parquet")))["vector"].combine_chunks()
        rows = column.flatten().to_numpy().reshape(len(items), -1)
        assert rows.dtype == kept
        repeats = [1] * len(items)
    wanted = np.repeat(np.stack([item.content for item in items]), repeats, axis=0)
    np.testing.assert_array_equal(rows, wanted)


@pytest.mark.parametrize("kind", ["picture", "text"])
def test_parquet_has_every_item_once_with_its_count(tmp_path, kind):
    items = PICTURES if kind == "picture" else TEXTS
    folder = write(tmp_path / "out", items, kind, "parquet")
    files = sorted(folder.glob("data-*.parquet"))
    assert len(files) == 4
    records = pq.read_table(files).to_pylist()
    content = (lambda r: r["image"]["bytes"]) if kind == "picture" else (lambda r: r["text"])
    assert {r["id"]: (r["row"], r["count"], content(r)) for r in records} == once(items)
    if kind == "picture":
        assert [r["l1"] for r in records] == list(range(len(items)))


def test_load_dataset_sees_pictures_in_parquet(tmp_path, monkeypatch):
    folder = write(tmp_path / "out", PICTURES, "picture", "parquet")
    datasets = pytest.importorskip("datasets")
    files = sorted(map(str, folder.glob("*.parquet")))
    loaded = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
    assert loaded.features["image"] == datasets.Image()
    pixels = np.asarray(Image.open(io.BytesIO(PICTURES[0].content)))
    np.testing.assert_array_equal(np.asarray(loaded[0]["image"]), pixels)


@pytest.mark.parametrize("kind", ["picture", "text"])
def test_copies_have_the_bytes_and_the_suffix_of_their_content(tmp_path, kind):
    items = PICTURES if kind == "picture" else TEXTS
    folder = write(tmp_path / "out", items, kind, "copy")
    table = pq.read_table(sorted(folder.glob("items-*.parquet"))).to_pylist()
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    tables = {f"items-0000{i}-of-00004.parquet" for i in range(4)}
    assert names - tables - {"card.json"} == {record["file"] for record in table}
    back = {}
    for record in table:
        data = (folder / record["file"]).read_bytes()
        back[record["id"]] = record["row"], record["count"], data
        assert id_of(record["file"]) == record["id"]
    wanted = once(items)
    if kind == "text":
        wanted = {id: (row, count, text.encode()) for id, (row, count, text) in wanted.items()}
    assert back == wanted
    if kind == "picture":
        assert (folder / "a%.jpg").exists() and (folder / "a.png").exists()
    assert not (tmp_path / "etc").exists() and not (tmp_path.parent / "etc").exists()


def on_disk(folder: Path) -> list[ExportItem]:
    folder.mkdir()
    items = []
    for i, item in enumerate(PICTURES):
        path = folder / f"{i} file\n"
        path.write_bytes(item.content)
        items.append(item._replace(content=None, path=str(path)))
    return items


def test_links_lead_to_the_original_files(tmp_path):
    items = on_disk(tmp_path / "originals")
    folder = write(tmp_path / "out", items, "picture", "link")
    folder = folder.rename(tmp_path / "moved")
    links = [path for path in folder.rglob("*") if path.is_symlink()]
    back = {id_of(path.relative_to(folder).as_posix()): path.read_bytes() for path in links}
    assert back == {item.id: item.content for item in PICTURES}
    assert (folder / "a%.jpg").is_symlink() and (folder / "cats/0001.JPG").is_symlink()
    check_files(folder)
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(os.readlink(folder / "a%.jpg"))
    with pytest.raises(DamagedError, match=r"a\.png is damaged"):
        check_files(folder)
    export_items(folder.parent / "out", items, "picture", "list", {}, n_items=len(items))
    export_items(folder.parent / "out", items, "picture", "link", {}, n_items=len(items))
    assert all(Path(item.path).exists() for item in items)


def test_links_are_refused_where_there_is_nothing_to_link(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="item '' is no local file"):
        write(tmp_path / "out", PICTURES, "picture", "link")
    with pytest.raises(InputError, match="item '' is no local file"):
        write(tmp_path / "out", [PICTURES[0]._replace(path="gs://b/x")], "picture", "link")

    def unsupported(*_):
        raise PermissionError(1, "Operation not permitted")

    items = on_disk(tmp_path / "originals")
    monkeypatch.setattr(os, "symlink", unsupported)
    with pytest.raises(InputError, match=r"^cannot write .*: Operation not permitted$"):
        write(tmp_path / "out", items, "picture", "link")
    assert not (tmp_path / "out").exists()


def test_lists_name_every_item(tmp_path):
    items = on_disk(tmp_path / "originals")
    items[1] = items[1]._replace(path=None)
    items[9] = items[9]._replace(path=None)  # back\slash
    items[10] = items[10]._replace(path=None)  # new\nline
    folder = write(tmp_path / "out", items, "picture", "list")
    records = pq.read_table(folder / "items.parquet").to_pylist()
    wanted = [
        {"id": i.id, "path": i.path, "row": i.row, "count": i.count, "l1": n}
        for n, i in enumerate(items)
    ]
    assert records == wanted
    with open(folder / "items.csv", newline="") as file:
        texts = [{k: "" if v is None else str(v) for k, v in r.items()} for r in wanted]
        assert list(csv.DictReader(file)) == texts
    lines = (folder / "items.txt").read_text().removesuffix("\n").split("\n")
    escape = lambda text: text.replace("\\", "\\\\").replace("\n", "\\n")
    assert lines == [escape(i.id if i.path is None else i.path) for i in items]
    assert lines[10] == r"new\nline" and lines[9] == r"back\\slash"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_arrays_keep_their_type(tmp_path, dtype):
    items = vectors(dtype)
    folder = write(tmp_path / "out", items, "vector", "npy")
    rows = np.load(folder / "items.npy")
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows, np.stack([item.content for item in items]))
    assert np.load(folder / "ids.npy").tolist() == HOSTILE
    assert np.load(folder / "rows.npy").tolist() == [item.row for item in items]
    assert np.load(folder / "counts.npy").tolist() == [item.count for item in items]


def test_arrays_of_bfloat16_are_read_again(tmp_path):
    items = vectors(ml_dtypes.bfloat16)
    folder = write(tmp_path / "out", items, "vector", "npy")
    source = open_source(f"npy:{folder}/items.npy")
    for row, item in enumerate(items):
        assert source.read(row).content.dtype == item.content.dtype
        np.testing.assert_array_equal(source.read(row).content, item.content)


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_of_an_export_depend_on_the_items_alone(tmp_path, format):
    items, kind = PICTURES, "picture"
    if format == "npy":
        items, kind = vectors(np.float32), "vector"
    if format == "link":
        items = on_disk(tmp_path / "originals")
    first = check_files(write(tmp_path / "one", items, kind, format))["files"]
    second = check_files(write(tmp_path / "other", items, kind, format))["files"]
    assert first == second


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"npy"}))
def test_items_are_read_while_they_are_written(tmp_path, format):
    """No format takes the next item of a shard, or a batch of items, before it is written."""
    (tmp_path / "a.png").write_bytes(PICTURES[0].content)
    content = PICTURES[0].content
    alive: set[int] = set()
    most = 0

    class Row(int):
        def __init__(self, *_):
            alive.add(id(self))

        def __del__(self):
            alive.discard(id(self))

    def items():
        nonlocal most
        for i in range(5000):
            most = max(most, len(alive))
            yield ExportItem(f"{i}", content, str(tmp_path / "a.png"), Row(i), 1)

    export_items(
        tmp_path / "out", items(), "picture", format, {}, items_per_shard=2500, n_items=5000
    )
    assert 0 < most <= 2100


@pytest.mark.parametrize("format", [name for name in FORMATS if FORMATS[name].in_shards])
def test_shards_are_written_alone(tmp_path, format):
    """Shards that other processes write, in any order, make the same export."""
    items = on_disk(tmp_path / "originals") if format == "link" else PICTURES
    whole = check_files(write(tmp_path / "whole", items, "picture", format))["files"]
    writer, n_records, entries = FORMATS[format], {}, {}
    path = epath.Path(tmp_path / "again")
    path.mkdir()
    for index in (2, 0, 3, 1):
        folder = NewFolder(path, "export")
        part = iter(items[4 * index : 4 * index + 4])
        n_records[index] = writer.write_shard(folder, Shard(index, 4, "picture", part))
        entries |= folder.files
    last = NewFolder(path, "export")
    last.files |= entries
    plan = Plan("curated", "picture", tuple(n_records[index] for index in range(4)))
    writer.finish(last, plan)
    assert last.files == whole


@pytest.mark.parametrize("format", ["tfds", "huggingface", "parquet", "copy", "list"])
def test_ids_that_are_no_unicode_are_refused(tmp_path, format):
    item = PICTURES[0]._replace(id="\ud800")
    with pytest.raises(InputError, match=r"^id '\\ud800' is not valid Unicode"):
        write(tmp_path / "out", [item], "picture", format)
    assert not (tmp_path / "out").exists()


def test_kinds_and_numbers_of_items_are_checked(tmp_path):
    with pytest.raises(InputError, match="'npy' takes no items of the kind 'text'"):
        write(tmp_path / "out", TEXTS, "text", "npy")
    with pytest.raises(InputError, match="'copy' takes no items of the kind 'vector'"):
        write(tmp_path / "out", vectors(np.int8), "vector", "copy")
    with pytest.raises(InputError, match="format='png'; known: 'list'"):
        write(tmp_path / "out", PICTURES, "picture", "png")
    with pytest.raises(InputError, match="n_items=3, but there are more items"):
        export_items(tmp_path / "out", TEXTS, "text", "copy", {}, n_items=3)
    with pytest.raises(InputError, match="n_items=99, but there are 15 items"):
        export_items(tmp_path / "out", TEXTS, "text", "copy", {}, n_items=99)
