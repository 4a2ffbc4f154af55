"""Ids are distinct for distinct files."""

import os

from PIL import Image

from jaxcurate import export
from jaxcurate.sources import open_source, pictures
from jaxcurate.sources.names import original


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
    exported = [
        export.ExportItem(item.id, item.content, None, row, 1) for row, item in enumerate(items)
    ]
    export.export_items(tmp_path / "out", exported, "picture", "copy", {}, n_items=len(items))
    assert sum(path.is_file() for path in (tmp_path / "out").rglob("*.png")) == len(names)
