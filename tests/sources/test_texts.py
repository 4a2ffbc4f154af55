"""Lines of text and JSON lines: positions, ids, unreadable lines, compressed files."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcurate.sources import UnreadableItem, open_source, read_items, text
from jaxcurate.sources.line_index import find_lines


@pytest.fixture
def opened(tmp_path):
    """Writes a file, and opens its folder."""

    def open_bytes(data, name="a.jsonl", **options):
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return open_source(f"text:{tmp_path}", **options)

    return open_bytes


def texts_of(source):
    return [source.read(row).content for row in range(len(source))]


def test_lines_of_text(opened):
    source = opened("\ufeffone\r\n\n  \t\n  two \nthree\r\n\r\nlast", "a.txt")
    assert texts_of(source) == ["one", "  two ", "three", "last"]
    assert [(path.rpartition("/")[2], reason) for path, reason in source.skipped] == [
        ("a.txt", "3 empty lines")
    ]
    assert source.ids_are_hashes and source.kind == "text"
    assert source.annotations([0, 1]).label.tolist() == ["", ""]


@given(
    st.lists(st.sampled_from([b"\n", b"\r\n", b"a", b"bc", b" ", b"\r", b"\xff", b"\n\n"])),
    st.integers(1, 9),
)
def test_lines_are_found_wherever_blocks_end(parts, block_bytes):
    data = b"".join(parts)
    blocks = iter([data[i : i + block_bytes] for i in range(0, len(data), block_bytes)])
    lines = find_lines("x.txt", lambda: next(blocks, b""))
    found = [
        data[start : start + size]
        for start, size in zip(lines.start.tolist(), lines.size.tolist(), strict=True)
    ]
    pieces = data.split(b"\n")
    pieces = pieces[:-1] if not pieces[-1] else pieces
    assert found == [piece.removesuffix(b"\r") for piece in pieces if piece.strip(b" \t\r\v\f")]
    assert lines.n_empty == len(pieces) - len(found)


def test_objects_with_ids_labels_and_domains(opened):
    rows = [{"id": i, "text": f"t{i}", "label": "x" * i, "meta": [i]} for i in range(3)]
    source = opened("\n".join(map(json.dumps, rows)) + "\n\n", domain_key="meta")
    assert [tuple(source.read(row)) for row in range(3)] == [("0", "t0"), ("1", "t1"), ("2", "t2")]
    notes = source.annotations([2, 0])
    assert (notes.label.tolist(), notes.domain.tolist()) == (["xx", ""], ["[2]", "[0]"])
    assert not source.ids_are_hashes and len(source.skipped) == 1
    assert opened("\n".join(map(json.dumps, rows)), content_key="label").read(2).content == "xx"


def test_ids_that_repeat_at_once_are_no_ids(opened):
    source = opened('{"id": 1, "key": "a", "text": "x"}\n{"id": 1, "key": "b", "text": "y"}')
    assert [source.read(row).id for row in range(2)] == ["a", "b"]
    source = opened('{"id": 1, "text": "x"}\n{"id": 1, "text": "x"}')
    assert source.ids_are_hashes and source.read(0).id == source.read(1).id


def test_a_text_has_one_id_in_both_formats(opened, tmp_path):
    one = opened('{"text": "a c\\u00e4t"}').read(0)
    (tmp_path / "a.jsonl").unlink()
    assert opened("a cät", "a.txt").read(0) == one


def test_lines_that_cannot_be_read_are_told(opened):
    lines = [
        (b'{"text": "good"}', ""),
        (b"{", "not JSON"),
        (b"[1]", "not an object"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"other": 1}', "has no 'text'"),
        (b'{"text": 5}', "has a int, not a text, in 'text'"),
        (b'{"text": " "}', "an empty text"),
        (b'{"text": "\\ud800"}', "lone surrogate"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"text": ' + b"9" * 10_000 + b"}", "too many digits"),
        (b"\0\0", "not JSON"),
    ]
    source = opened(b"\n".join(line for line, _ in lines))
    reading = read_items(source, batch_size=4, n_threads=3)
    assert [batch.contents for batch in reading] == [["good"]]
    told = {of.row: of.reason for of in reading.unreadable}
    assert list(told) == list(range(1, len(lines)))
    for row, reason in told.items():
        assert lines[row][1] in reason
    assert len({of.id for of in reading.unreadable}) == len(lines) - 1
    assert source.annotations(range(len(lines))).label.tolist() == [""] * len(lines)


def test_an_id_that_is_missing_is_told(opened):
    source = opened('{"text": "a", "k": "1"}\n{"text": "b"}', id_key="k")
    assert source.read(0).id == "1"
    with pytest.raises(UnreadableItem, match="has no id 'k'"):
        source.read(1)


@pytest.mark.parametrize("block_bytes", [7, 2**20])
def test_compressed_files_are_unpacked_once(opened, tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(text, "_BLOCK_BYTES", block_bytes)
    opened(gzip.compress(b"one\ntwo\n") + gzip.compress(b"three"), "a.txt.gz")
    opened("four\n", "b.txt")
    source = opened(gzip.compress(b"\nfive\n"), "c.txt.gz")
    assert texts_of(source) == ["one", "two", "three", "four", "five"]
    rows = np.random.default_rng(0).integers(0, 5, 200)
    one, many = (
        [
            content
            for batch in read_items(source, rows, batch_size=9, n_threads=n)
            for content in batch[2]
        ]
        for n in (1, 8)
    )
    assert one == many and len(one) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt.gz", "b.txt", "c.txt.gz"]


def test_wrong_files_are_refused_in_one_line(opened, tmp_path):
    for data, name, message in (
        (gzip.compress(b"one")[:-9], "x.txt.gz", "cannot be unpacked"),
        (b"plain", "x.txt.gz", "is not compressed by gzip: it is text"),
        (gzip.compress(b"one"), "x.txt", "is not a file of text: it is a file compressed by gzip"),
        ("one".encode("utf-16"), "x.txt", "is UTF-16"),
        (b"", "x.txt", "holds no lines of text"),
        (b"\n \n", "x.jsonl", "holds no lines of text"),
        (b"PAR1", "x.jsonl", "is not a file of text: it is a Parquet file"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            opened(data, name)
        assert "\n" not in str(caught.value)
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="holds no texts"):
        open_source(f"text:{tmp_path}")
    opened("a", "x.txt")
    with pytest.raises(ValueError, match="have no fields: label_key is for JSON lines"):
        open_source(f"text:{tmp_path}", label_key="label")
    with pytest.raises(ValueError, match="holds lines of text and JSON lines"):
        opened("{}", "y.jsonl")
    (tmp_path / "z.log").write_text("a")
    with pytest.raises(ValueError, match=r"does not end in one of \.txt"):
        open_source(f"text:{tmp_path}/z.log")


def test_a_file_that_shrinks_gives_unreadable_items(opened, tmp_path):
    source = opened("one\ntwo\nthree", "a.txt")
    (tmp_path / "a.txt").write_text("one\nt")
    assert source.read(0).content == "one"
    with pytest.raises(UnreadableItem, match="ends before byte"):
        source.read(2)
