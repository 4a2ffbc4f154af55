"""A folder, tar files, Parquet files and saved datasets give the same ids and bytes."""

import datasets_on_disk as on_disk
import fsspec
import numpy as np
import pytest

from jaxcurate.sources import open_source, read_items

ITEMS = on_disk.pictures()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A source of each kind, with the same items."""
    folder = tmp_path_factory.mktemp("items")
    on_disk.write_folder(folder / "folder", ITEMS)
    (folder / "tars").mkdir()
    for i, data in enumerate(on_disk.tars(ITEMS)):
        (folder / f"tars/{i:05}.tar").write_bytes(data)
    table = on_disk.table(ITEMS)
    on_disk.write_parquet(folder / "parquet/a.parquet", table.slice(0, 23))
    on_disk.write_parquet(folder / "parquet/b.parquet", table.slice(23))
    on_disk.write_saved(folder / "saved", table)
    return {
        "folder": open_source(f"folder:{folder}/folder"),
        "webdataset": open_source(f"webdataset:{folder}/tars"),
        "parquet": open_source(f"parquet:{folder}/parquet/*.parquet"),
        "huggingface": open_source(f"huggingface:{folder}/saved"),
    }


def items_of(source, n_threads, rows=None):
    reading = read_items(source, rows, batch_size=7, n_threads=n_threads)
    found = [pair for batch in reading for pair in zip(batch.ids, batch.contents, strict=True)]
    assert not reading.unreadable
    return found


@pytest.mark.parametrize("name", ["folder", "webdataset", "parquet", "huggingface"])
def test_ids_and_bytes_are_the_same(sources, name):
    found = items_of(sources[name], n_threads=1)
    # The path of a picture in a folder has the suffix of the file.
    wanted = {f"{id}.{on_disk.suffix_of(data)}": data for id, data in ITEMS.items()}
    assert dict(found) == (wanted if name == "folder" else ITEMS)
    assert len(found) == len(ITEMS) and sources[name].kind == "picture"


@pytest.mark.parametrize("name", ["webdataset", "parquet", "huggingface"])
def test_threads_change_nothing(sources, name):
    rows = np.random.default_rng(1).permutation(len(ITEMS))
    one = items_of(sources[name], 1, rows)
    for _ in range(3):
        assert items_of(sources[name], 8, rows) == one


@pytest.mark.parametrize("name", ["folder", "webdataset", "parquet", "huggingface"])
def test_labels_are_the_same(sources, name):
    source = sources[name]
    rows = np.array([39, 3, 3, 20])
    ids = [source.read(row).id for row in rows]
    wanted = [id.split("/")[0] for id in ids]
    if name == "webdataset":  # which holds the numbers of the classes
        wanted = [str(on_disk.CLASSES.index(label)) for label in wanted]
    notes = source.annotations(rows)
    assert notes.label.tolist() == wanted
    assert notes.domain.tolist() == [""] * 4


@pytest.mark.parametrize("name", ["parquet", "huggingface"])
def test_columns_are_read_without_the_pictures(sources, name):
    source = sources[name]
    assert source.column_names == ("site",)
    rows = np.array([30, 2, 2, 39])
    wanted = [f"site-{on_disk.class_of(source.read(row).id)}" for row in rows]
    assert source.columns(rows, ["site"])["site"].tolist() == wanted
    assert source.columns(rows[:0], ["site"])["site"].tolist() == []
    with pytest.raises(ValueError, match="has no column 'label'; there are: site"):
        source.columns(rows, ["label"])


def test_a_bucket_is_read_like_a_folder():
    bucket = fsspec.filesystem("memory")
    for i, data in enumerate(on_disk.tars(ITEMS)):
        bucket.pipe(f"/same/tars/{i:05}.tar", data)
    with bucket.open("/same/a.parquet", "wb") as file:
        import pyarrow.parquet as pq

        pq.write_table(on_disk.table(ITEMS), file, row_group_size=9)
    bucket.pipe("/same/a.txt", b"one\n\ntwo\n")
    for spec in ("webdataset:memory://same/tars", "parquet:memory://same/*.parquet"):
        source = open_source(spec)
        assert dict(items_of(source, 4)) == ITEMS
        assert source.fingerprint == open_source(spec).fingerprint
    assert [content for _, content in items_of(open_source("text:memory://same/a.txt"), 2)] == [
        "one",
        "two",
    ]
    with pytest.raises(ValueError, match="is not on this machine"):
        open_source("huggingface:memory://same/saved")


def test_fingerprints_follow_keys_and_content(sources, tmp_path):
    table = on_disk.table(ITEMS)
    on_disk.write_parquet(tmp_path / "a.parquet", table)
    spec = f"parquet:{tmp_path}/a.parquet"
    before = open_source(spec, verify="content").fingerprint
    assert open_source(spec, verify="content").fingerprint == before
    assert open_source(spec, verify="content", id_key="site").fingerprint != before
    on_disk.write_parquet(tmp_path / "a.parquet", table.slice(1))
    assert open_source(spec, verify="content").fingerprint != before
    assert len({source.fingerprint for source in sources.values()}) == 4
