"""Rows of Parquet files: choice of columns, kinds, ids, row groups."""

import datetime

import datasets_on_disk as on_disk
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxcurate.sources import UnreadableItem, open_source, read_items, tables


@pytest.fixture
def opened(tmp_path):
    """Writes a table, and opens it."""

    def open_table(columns, name="a.parquet", row_group_size=3, **options):
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        on_disk.write_parquet(tmp_path / name, table, row_group_size)
        return open_source(f"parquet:{tmp_path}", **options)

    return open_table


def test_pictures_may_be_bytes_or_structs(opened):
    for type in (pa.binary(), pa.large_binary()):
        source = opened({"jpg": pa.array([b"1", None, b""], type), "id": ["a", "b", "c"]})
        assert source.read(0) == ("a", b"1")
        with pytest.raises(UnreadableItem, match="b: no picture: null"):
            source.read(1)
        with pytest.raises(UnreadableItem, match="c: an empty picture"):
            source.read(2)


def test_the_column_is_found_by_name_and_then_by_type(opened):
    text, data, vectors = ["a", "b"], [b"1", b"2"], [[1.0], [2.0]]
    for columns, content in (
        ({"url": text, "image": data, "text": text}, b"1"),
        ({"url": text, "TEXT": text, "embedding": vectors}, "a"),
        ({"url": text, "embedding": vectors}, np.float32(1)),
        ({"url": text, "file": data}, b"1"),
        ({"url": text, "numbers": vectors}, np.float32(1)),
        ({"url": text, "tokens": [[1], [2]]}, "a"),
        ({"image": text, "file": data}, b"1"),  # addresses of pictures are no pictures
    ):
        assert opened(columns).read(0).content == content, columns
    with pytest.raises(ValueError, match=r"several .*\(x, y\); content_key names one"):
        opened({"x": data, "y": data})
    assert opened({"x": data, "y": data}, content_key="y").read(1).content == b"2"
    with pytest.raises(ValueError, match="has no column of pictures, text or vectors; columns: n"):
        opened({"n": [1, 2]})
    with pytest.raises(ValueError, match=r"has no column 'z' \(content_key\); there are: x"):
        opened({"x": data}, content_key="z")
    with pytest.raises(ValueError, match=r"'n' .* holds int64, neither pictures"):
        opened({"x": data, "n": [1, 2]}, content_key="n")


def test_ids_are_columns_or_hashes(opened):
    source = opened({"text": ["a", "b", "a"]})
    ids = [source.read(row).id for row in range(3)]
    assert source.ids_are_hashes and ids[0] == ids[2] != ids[1]
    source = opened({"text": ["a", "b"], "id": [7, None]})
    assert not source.ids_are_hashes and source.read(0).id == "7"
    with pytest.raises(UnreadableItem, match=r"a\.parquet#1: has no id 'id'"):
        source.read(1)
    assert opened({"text": ["a"], "url": ["x"]}, id_key="url").read(0).id == "x"
    assert opened({"text": ["a"], "id": [0.5]}).ids_are_hashes


@pytest.mark.parametrize("type", [pa.float32(), pa.float16(), pa.float64(), pa.int8()])
def test_vectors_of_one_width(opened, type):
    rows = np.arange(12).reshape(6, 2)
    dtype = type.to_pandas_dtype()
    lists = pa.array(list(rows.astype(dtype)), pa.list_(type))
    fixed = lists.cast(pa.list_(type, 2))
    for column in (lists, lists.cast(pa.large_list(type)), fixed):
        source = opened({"embedding": column})
        (batch,) = read_items(source, batch_size=9, n_threads=2)
        np.testing.assert_array_equal(np.stack(batch.contents), rows)
        kept = np.float32 if dtype == np.float64 else dtype
        assert source.kind == "vector" and batch.contents[0].dtype == kept


def test_vectors_that_cannot_be_used_are_told(opened):
    lists = [[1.0], [1.0, 2.0], [3.0, 4.0], None, [np.nan, 1.0], [None, 1.0], [1e300, 0.0], []]
    source = opened({"embedding": lists, "id": list("abcdefgh")})
    reading = read_items(source, batch_size=9, n_threads=2)
    assert [batch.ids.tolist() for batch in reading] == [["b", "c"]]
    reasons = {of.id: of.reason for of in reading.unreadable}
    assert reasons["a"] == "has 1 numbers; most rows have 2"
    assert reasons["d"] == "no vector: null" and reasons["h"].startswith("has 0")
    assert all("NaN" in reasons[id] for id in "efg")


def test_metadata_has_no_label_and_no_objects(opened):
    day = datetime.date(2020, 1, 2)
    source = opened(
        {
            "text": ["a", "b"],
            "label": ["x", None],
            "domain": ["s", "t"],
            "url": ["u", None],
            "n": [1, None],
            "ok": [True, None],
            "day": [day, day],
            "tags": [["x"], ["y"]],
            "coded": pa.array(["p", "q"]).dictionary_encode(),
        }
    )
    assert source.column_names == ("url", "n", "ok", "day", "coded")
    columns = source.columns(np.array([1, 0]), source.column_names)
    assert all(column.dtype != object for column in columns.values())
    assert columns["url"].tolist() == ["", "u"] and columns["coded"].tolist() == ["q", "p"]
    np.testing.assert_array_equal(columns["n"], [np.nan, 1])
    np.testing.assert_array_equal(columns["ok"], [np.nan, 1])
    assert columns["day"][0] == np.datetime64("2020-01-02")
    notes = source.annotations([1, 0])
    assert (notes.label.tolist(), notes.domain.tolist()) == (["", "x"], ["t", "s"])


def test_files_need_the_same_columns(opened):
    opened({"text": ["a"], "n": [1]})
    with pytest.raises(ValueError, match=r"b\.parquet has no column 'n', which .*a\.parquet has"):
        opened({"text": ["b"]}, "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet: column 'n' is string, but int64 in"):
        opened({"text": ["b"], "n": ["1"]}, "b.parquet")
    source = opened({"n": pa.nulls(1), "text": ["b"]}, "b.parquet")
    assert [source.read(row).content for row in range(2)] == ["a", "b"]
    np.testing.assert_array_equal(source.columns(np.array([1, 0]), ["n"])["n"], [np.nan, 1])


def test_row_groups_are_read_once_by_all_threads(opened, monkeypatch):
    source = opened({"text": [str(i) for i in range(90)]}, row_group_size=10)
    read = []
    inner = source._parts.read
    monkeypatch.setattr(
        source._parts, "read", lambda part, names: read.append(part) or inner(part, names)
    )
    contents = [of for batch in read_items(source, batch_size=8, n_threads=8) for of in batch[2]]
    assert contents == [str(i) for i in range(90)]
    assert sorted(read) == list(range(9))


def test_memory_is_bounded_by_the_cache(opened, monkeypatch):
    monkeypatch.setattr(tables, "_CACHE_BYTES", 25_000)
    source = opened({"text": ["x" * 1000] * 100}, row_group_size=10)
    for row in range(100):
        source.read(row)
    assert len(source._cache._parts) == 2
    assert source._cache._reading == {}


def test_a_row_group_that_is_too_large_is_told(opened, monkeypatch):
    from jaxcurate.sources import parquet

    monkeypatch.setattr(parquet, "_LARGEST_GROUP", 10)
    source = opened({"image": [b"abcdefghijkl"], "label": ["x"]})
    with pytest.raises(UnreadableItem, match="too much to read at once: write the file with fewer"):
        source.read(0)
    assert source.annotations([0]).label.tolist() == ["x"]


def test_wrong_files_are_refused_in_one_line(tmp_path):
    table = pa.table({"text": ["a"] * 50})
    pq.write_table(table, tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    for data, message in (
        (b"", "is not a Parquet file: it is an empty file"),
        (b"a,b", "is not a Parquet file: it is text, such as CSV"),
        (whole[:100], "is not a whole Parquet file"),
        (whole[:-20] + whole[-8:], "is not a whole Parquet file"),
    ):
        (tmp_path / "x.parquet").write_bytes(data)
        with pytest.raises(ValueError, match=message) as caught:
            open_source(f"parquet:{tmp_path}/x.parquet")
        assert "\n" not in str(caught.value)
    pq.write_table(table[:0], tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="has no rows"):
        open_source(f"parquet:{tmp_path}/x.parquet")
    with pytest.raises(ValueError, match="has no splits"):
        open_source(f"parquet:{tmp_path}/x.parquet", split="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no Parquet files"):
        open_source(f"parquet:{tmp_path}/empty")
