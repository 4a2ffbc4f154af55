"""Every id becomes the name of a file and the key of a sample, and back."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.export import (
    ExportItem,
    check_names,
    export_items,
    id_of,
    id_of_key,
    key_of,
    path_of,
)
from jaxcurate.sources import open_source
from jaxcurate.sources.names import original, printable

AWKWARD = [
    "", "/", "//", "a/", "/a", "a//b", ".", "..", "../x", "a/../b", "x/.", "card.json",
    "card.json/x", "a/card.json/x", "a.png/b", "a", "a.png", "a.PNG", "a%.png", "a%", "a/b.png",
    ".png", "..png", "....png", "a/.png", "C:\\x\\y", "\\", "\\xe9.png", "items-0.parquet/x",
    "\0", "a\nb", "\x7f", "\x85", "end. ", "end./x", "end /x", "%", "%%", "%/", "%%/x", "%41",
    "%4", "100%", "%2F", "%\x01", "\ud800", "\udce9/x", "\udcff", "é", "x" * 251, "x" * 252,
    "x" * 251 + ".png", "x" * 252 + ".png", "x" * 254 + "." * 9 + ".png",
    "%-1", "a%-1", "%%%-1", "2%\x01",
    "__a__", "__a__/b", "_", "x" * 300 + "/y", "v1.0/a.b.png", "a.b/c",
    "é" * 130, "x" * 249 + "%41", "%" * 300, "x" * 254 + "/y", "x" * 255 + "/y", "x" * 256 + "/y",
    "y" * 250 + "/" + "z" * 251, "\x01" * 90, "\U0001f600" * 70, "a" * 1000, "." * 300,
]  # fmt: skip
SUFFIXES = st.sampled_from([".png", ".jpg", ".txt", ".bin"])


def check_name(id: str, suffix: str) -> None:
    path = path_of(id, suffix)
    assert id_of(path) == id
    for i, part in enumerate(path.split("/")):
        assert part not in ("", ".", "..") and len(part.encode()) <= 255
        assert not any(c in part for c in "\\\0\n\x7f") and not part.endswith((".", " "))
        assert (i, part) != (0, "card.json")


def check_key(id: str, repeat: int) -> None:
    key = key_of(id, repeat)
    assert id_of_key(key) == id
    for part in key.split("/"):
        assert part not in ("", ".", "..") and len(part.encode()) <= 2 * 255
    assert "." not in key.rpartition("/")[2]
    assert not re.match(r"__[^/]*__($|/)", f"{key}.png")


@pytest.mark.parametrize("id", AWKWARD, ids=range(len(AWKWARD)))
def test_awkward_ids_have_names_and_keys(id):
    check_name(id, ".png")
    check_key(id, 0)
    check_key(id, 12)


@given(st.text(st.sampled_from("%/.2eE4aé \\\n\x01\ud800png"), max_size=400), SUFFIXES)
@example("%" * 253 + "\x01", ".png")
@settings(max_examples=400, deadline=None)
def test_every_id_has_a_name_and_a_key(id, suffix):
    check_name(id, suffix)
    check_key(id, len(id) % 3)


@given(
    st.lists(st.text(st.sampled_from("%/.a2E \\png"), max_size=8), unique=True, max_size=30),
    st.data(),
)
@settings(max_examples=200, deadline=None)
def test_no_file_stands_in_the_way_of_another_or_of_a_folder(ids, data):
    ids = sorted({*ids, *AWKWARD})
    paths = {path_of(id, data.draw(SUFFIXES)) for id in ids}
    assert len(paths) == len(ids)
    folders = {str(above) for path in paths for above in Path(path).parents}
    assert not folders & {*paths, "card.json", "items-0.parquet"}
    keys = {key_of(id, repeat) for id in ids for repeat in range(3)}
    assert len(keys) == 3 * len(ids)


@pytest.mark.parametrize("id", ["a/b c.jpg", "100 % wool.png", "x%zz.webp", ".hidden/a.PNG"])
def test_ids_with_a_suffix_are_their_own_names(id):
    assert path_of(id, ".png") == id


@pytest.mark.parametrize("id", ["00012", "tail/café-0001", "a.jpg.old", ".hidden/a", "a:b?"])
def test_other_ids_get_the_suffix_of_their_content(id):
    assert path_of(id, ".gif") == f"{id}%.gif"


@pytest.mark.parametrize("path", ["x", "x.exe", "%41.png", "a//b.png", "a%.PNG", "a\\b.png"])
def test_what_is_no_exported_path_is_refused(path):
    with pytest.raises(InputError, match="is not the path of an exported item"):
        id_of(path)
    with pytest.raises(InputError, match="is not the key of an exported item"):
        id_of_key("a.b")


def test_a_path_that_no_system_takes_is_refused_beforehand(tmp_path):
    check_names(AWKWARD, tmp_path)
    check_names(["d/" * 3000], "gs://bucket/exports")
    with pytest.raises(InputError, match=r"item 'd/d/.* cannot be exported to .* 4095 bytes"):
        check_names(["a", "d/" * 3000 + "x.png"], tmp_path)


def test_files_of_different_names_have_different_ids_and_exports(tmp_path):
    names = [b"caf\xe9.png", rb"caf\xe9.png", rb"caf\x5cxe9.png", b"\xff\\x41.png", rb"\xff.png"]
    (tmp_path / "in").mkdir()
    for i, name in enumerate(names):
        Image.new("RGB", (4, 4), (i, i, i)).save(tmp_path / "x.png")
        os.rename(os.fsencode(tmp_path / "x.png"), os.fsencode(tmp_path / "in") + b"/" + name)
    source = open_source(f"folder:{tmp_path}/in")
    items = [source.read(row) for row in range(len(source))]
    assert {original(item.id) for item in items} == set(names)
    assert list(source.ids) == [item.id for item in items]
    for format in ("copy", "link"):
        exported = [
            ExportItem(item.id, item.content, source.path(row), row, 1)
            for row, item in enumerate(items)
        ]
        out = tmp_path / format
        export_items(out, exported, "picture", format, {}, n_items=len(items))
        assert {id_of(path.name): path.read_bytes() for path in out.glob("*.png")} == dict(items)


@given(st.binary(max_size=30).filter(lambda name: b"/" not in name))
@example(rb"\x5c\\x\xe9")
@example(b"\\\xe9")
@settings(max_examples=300, deadline=None)
def test_bytes_become_ids_and_back(name):
    assert original(printable(name)) == name
    assert printable(os.fsdecode(name)) == printable(name)
