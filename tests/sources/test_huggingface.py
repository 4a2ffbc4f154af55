"""Saved datasets of Hugging Face: splits, pictures by path, hostile folders."""

import json

import datasets_on_disk as on_disk
import pyarrow as pa
import pytest

from jaxcurate.sources import UnreadableItem, open_source

ITEMS = on_disk.pictures(10)
TABLE = on_disk.table(ITEMS)


def test_splits_of_a_saved_dictionary(tmp_path):
    on_disk.write_saved(tmp_path / "d/train", TABLE[:6])
    on_disk.write_saved(tmp_path / "d/test", TABLE[6:])
    (tmp_path / "d/dataset_dict.json").write_text('{"splits": ["train", "test", "../x"]}')
    sources = [open_source(f"huggingface:{tmp_path}/d", split=name) for name in ("train", "test")]
    assert [len(source) for source in sources] == [6, 4]
    assert sources[0].fingerprint != sources[1].fingerprint
    for name in ("valid", "../x"):
        with pytest.raises(ValueError, match=r"has no split .*; known are train, test"):
            open_source(f"huggingface:{tmp_path}/d", split=name)
    with pytest.raises(ValueError, match="is a single split, train, not 'test'"):
        open_source(f"huggingface:{tmp_path}/d/train", split="test")


def test_pictures_by_path_are_read_if_they_are_pictures(tmp_path):
    data = next(iter(ITEMS.values()))
    (tmp_path / "p.png").write_bytes(data)
    (tmp_path / "secret").write_text("no picture")
    paths = [str(tmp_path / "p.png"), "../p.png", str(tmp_path / "secret"), "gone.png", None]
    paths += ["https://example.org/x.png", "\0", str(tmp_path)]
    column = [{"bytes": None, "path": path} for path in paths]
    table = pa.table({"image": pa.array(column, TABLE.schema.field("image").type)})
    on_disk.write_saved(tmp_path / "d", table, 1)
    source = open_source(f"huggingface:{tmp_path}/d")
    assert source.read(0).content == source.read(1).content == data
    assert source.read(0).id == source.read(1).id
    for row, reason in (
        (2, "secret is no picture"),
        (3, "gone.png: No such file"),
        (4, "no picture: null"),
        (5, "only the address of a picture"),
        (6, "embedded null"),
        (7, "a folder"),
    ):
        with pytest.raises(UnreadableItem, match=f"arrow#{row}: .*{reason}"):
            source.read(row)


def test_text_and_vectors(tmp_path):
    table = pa.table({"text": ["a", "é"], "emb": [[1.0, 2.0], [3.0, 4.0]], "id": [5, 6]})
    on_disk.write_saved(tmp_path / "d", table, 1)
    assert open_source(f"huggingface:{tmp_path}/d").read(1) == ("6", "é")
    source = open_source(f"huggingface:{tmp_path}/d", content_key="emb")
    assert source.kind == "vector" and source.read(1).content.tolist() == [3, 4]


def test_sound_is_no_picture(tmp_path):
    features = {"audio": {"_type": "Audio"}, "sentence": {"_type": "Value", "dtype": "string"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    sound = pa.array([{"bytes": b"x", "path": "x"}])
    table = pa.table({"audio": sound, "sentence": ["hello"]}).replace_schema_metadata(metadata)
    on_disk.write_saved(tmp_path / "d", table, 1)
    assert open_source(f"huggingface:{tmp_path}/d").read(0).content == "hello"


def test_labels_out_of_range_stay_numbers(tmp_path):
    labels = pa.array([0, -1, 99, None] + [1] * 6, pa.int64())
    on_disk.write_saved(tmp_path / "d", TABLE.set_column(2, "label", labels))
    source = open_source(f"huggingface:{tmp_path}/d")
    assert source.annotations(range(5)).label.tolist() == ["cat", "-1", "99", "", "dog"]


def test_hostile_folders_are_refused_in_one_line(tmp_path):
    folder = tmp_path / "d"
    on_disk.write_saved(folder, TABLE, 1)
    name = "data-00000-of-00001.arrow"
    good = (folder / name).read_bytes()
    state = folder / "state.json"
    for text, message in (
        ("{", "state.json is not JSON"),
        ("[" * 100_000, "state.json is not JSON"),
        ("[]", "holds no object"),
        ("{}", "does not name the files"),
        ('{"_data_files": [{"filename": "../x.arrow"}]}', "does not name the files"),
        ('{"_data_files": [{"filename": "/etc/passwd"}]}', "does not name the files"),
        ('{"_data_files": [3]}', "does not name the files"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "there is no such file"),
        ('{"_data_files": [], "_indices_files": [1]}', "flatten_indices"),
    ):
        state.write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            open_source(f"huggingface:{folder}")
        assert "\n" not in str(caught.value)
    state.write_text(json.dumps({"_data_files": [{"filename": name}]}))
    for data in (good[: len(good) // 2], b"", b"ARROW1" + good):
        (folder / name).write_bytes(data)
        with pytest.raises(ValueError, match="is not a whole Arrow stream") as caught:
            open_source(f"huggingface:{folder}")
        assert "\n" not in str(caught.value)
    (folder / name).write_bytes(good)
    assert len(open_source(f"huggingface:{folder}")) == 10


def test_other_folders_and_names_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is no dataset of save_to_disk"):
        open_source(f"huggingface:{tmp_path}")
    on_disk.write_parquet(tmp_path / "a.parquet", TABLE)
    with pytest.raises(ValueError, match=r"; parquet:.* reads its Parquet files"):
        open_source(f"huggingface:{tmp_path}")
    with pytest.raises(ValueError, match="there is no such folder; download=True lets"):
        open_source("huggingface:owner/name")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ValueError, match="needs the package datasets: pip install datasets"):
        open_source("huggingface:owner/name", download=True)
