"""Ids are distinct for distinct files, and every id becomes a file's name and back."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcurate import export
from jaxcurate.checks import InputError
from jaxcurate.export import check_names, id_of, path_of
from jaxcurate.sources import open_source, pictures
from jaxcurate.sources.names import original, printable

AWKWARD = [
    "", "/", "//", "a/", "/a", "a//b", ".", "..", "../x", "a/../b", "x/.", "card.json",
    "card.json/x", "a/card.json/x", "a.png/b", "a", "a/b.png", "C:\\x\\y", "\\", "\\xe9.png",
    "\0", "a\nb", "\x7f", "\x85", "end. ", "end./x", "end /x", "%", "%%", "%/", "%%/x", "%41",
    "%4", "100%", "%2F", "%\x01", "\ud800", "\udce9/x", "\udcff", "é", "x" * 251, "x" * 252,
    "x" * 300 + "/y",
    "é" * 130, "x" * 249 + "%41", "%" * 300, "x" * 254 + "/y", "x" * 255 + "/y", "x" * 256 + "/y",
    "y" * 250 + "/" + "z" * 251, "\x01" * 90, "\U0001f600" * 70, "a" * 1000,
]  # fmt: skip


def check_name(id: str) -> None:
    path = path_of(id)
    assert id_of(path) == id
    assert path.endswith(".png")
    for i, part in enumerate(path.split("/")):
        assert part not in ("", ".", "..") and len(part.encode()) <= 255
        assert not any(c in part for c in "\\\0\n\x7f") and not part.endswith((".", " "))
        assert (i, part) != (0, "card.json")


@pytest.mark.parametrize("id", AWKWARD, ids=range(len(AWKWARD)))
def test_awkward_ids_have_names(id):
    check_name(id)


@given(st.text(st.sampled_from("%/.2eE4aé \\\n\x01\ud800png"), max_size=400))
@example("%" * 253 + "\x01")
@settings(max_examples=400, deadline=None)
def test_every_id_has_a_name(id):
    check_name(id)


@given(st.lists(st.text(st.sampled_from("%/.a2E \\png"), max_size=8), unique=True, max_size=30))
@settings(max_examples=200, deadline=None)
def test_no_file_stands_in_the_way_of_a_folder(ids):
    paths = {path_of(id) for id in [*ids, *AWKWARD]}
    assert len(paths) == len({*ids, *AWKWARD})
    folders = {str(above) for path in paths for above in Path(path).parents}
    assert not folders & {*paths, "card.json"}


@pytest.mark.parametrize(
    "id",
    ["00012", "a/b c.jpg", "tail/café-0001", "100 % wool.png", "x%zz", ".hidden/a", "a:b?.gif"],
)
def test_ordinary_ids_are_their_own_names(id):
    assert path_of(id) == f"{id}.png"


@pytest.mark.parametrize("path", ["x", "x.jpg", "%41.png", "a//b.png", "..png/x.png", "a\\b.png"])
def test_what_is_no_exported_path_is_refused(path):
    with pytest.raises(InputError, match="is not the path of an exported item"):
        id_of(path)


def test_items_of_any_id_are_exported(tmp_path):
    items = [(id, np.full((2, 2, 3), i, np.uint8)) for i, id in enumerate(AWKWARD)]
    export.export_items(tmp_path / "out", items, "auto", {})
    found = [path for path in (tmp_path / "out").rglob("*.png") if path.is_file()]
    values = {
        id_of(path.relative_to(tmp_path / "out").as_posix()): np.asarray(Image.open(path))[0, 0, 0]
        for path in found
    }
    assert values == {id: i for i, id in enumerate(AWKWARD)}


def test_a_path_that_no_system_takes_is_refused_beforehand(tmp_path):
    check_names(AWKWARD, tmp_path)
    check_names(["d/" * 3000], "gs://bucket/exports")
    with pytest.raises(InputError, match=r"item 'd/d/.* cannot be exported to .* 4095 bytes"):
        check_names(["a", "d/" * 3000 + "x.png"], tmp_path)


def test_files_of_different_names_have_different_ids(tmp_path):
    names = [b"caf\xe9.png", rb"caf\xe9.png", rb"caf\x5cxe9.png", b"\xff\\x41.png", rb"\xff.png"]
    for i, name in enumerate(names):
        Image.new("RGB", (4, 4), (i, i, i)).save(tmp_path / "x.png")
        os.rename(os.fsencode(tmp_path / "x.png"), os.fsencode(tmp_path) + b"/" + name)
    source = open_source(f"folder:{tmp_path}")
    items = [source.read(row) for row in range(len(source))]
    images = [(item.id, pictures.decode(item.content, 4)) for item in items]
    assert {original(id): image[0, 0, 0] for id, image in images} == {
        name: i for i, name in enumerate(names)
    }
    assert list(source.ids) == [item.id for item in items]
    export.export_items(tmp_path / "out", images, "png", {})
    assert sum(path.is_file() for path in (tmp_path / "out").rglob("*.png")) == len(names)


@given(st.binary(max_size=30).filter(lambda name: b"/" not in name))
@example(rb"\x5c\\x\xe9")
@example(b"\\\xe9")
@settings(max_examples=300, deadline=None)
def test_bytes_become_ids_and_back(name):
    assert original(printable(name)) == name
    assert printable(os.fsdecode(name)) == printable(name)
