"""Nothing below a folder is skipped without a reason, and no folder is read twice."""

import io
import os
import shutil

import fsspec
import numpy as np
import pytest
from faults.limits import time_limit
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.sources import InFiles, Named, Skipping, UnreadableItem, open_source, read_items
from jaxcurate.sources.pictures import decode


def encoded(format="PNG", color=0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (color,) * 3).save(buffer, format)
    return buffer.getvalue()


def put(root, *names, data=None):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded() if data is None else data)


def walked(path, **options):
    with time_limit(20):
        source = open_source(f"folder:{path}", **options)
    assert isinstance(source, Skipping) and isinstance(source, Named)
    return list(source.ids), list(source.skipped)


# --- files ------------------------------------------------------------------------------------


def test_pictures_are_known_by_content_and_not_by_name(tmp_path):
    put(tmp_path, "jpeg", "photo.jfif", "scan.final", data=encoded("JPEG"))
    put(tmp_path, "x.png", data=encoded("WEBP"))  # the wrong suffix
    put(tmp_path, "y.JPG", "z.jp2", data=encoded("JPEG2000"))
    put(tmp_path, "film.mp4", data=b"\0\0\0\x20ftypisom\0\0\2\0isomiso2")
    put(tmp_path, "program.jpg.sh", data=b"#!/bin/sh\n")
    put(tmp_path, "x.txt", "x.json", "labels.csv", data=b"a caption")
    put(tmp_path, "empty", data=b"")
    ids, skipped = walked(tmp_path)
    assert ids == ["jpeg", "photo.jfif", "scan.final", "x.png", "y.JPG", "z.jp2"]
    assert skipped == [
        (name, "not a picture")
        for name in ("empty", "film.mp4", "labels.csv", "program.jpg.sh", "x.json", "x.txt")
    ]
    source = open_source(f"folder:{tmp_path}")
    reading = read_items(source, prepare=lambda item: decode(item.content, 4), batch_size=9)
    assert sum(len(batch.ids) for batch in reading) == 6 and reading.unreadable == []


def test_a_file_with_the_suffix_of_a_picture_is_an_item_though_it_is_none(tmp_path):
    put(tmp_path, "good.png")
    put(tmp_path, "bad.png", data=b"no picture")
    assert walked(tmp_path) == (["bad.png", "good.png"], [])
    source = open_source(f"folder:{tmp_path}")
    reading = read_items(source, prepare=lambda item: decode(item.content, 4), batch_size=9)
    assert [batch.ids.tolist() for batch in reading] == [["good.png"]]
    assert [(row.id, row.reason) for row in reading.unreadable] == [
        ("bad.png", "not a picture of a known format")
    ]


def test_hidden_files_and_those_of_the_system_are_listed(tmp_path):
    put(tmp_path, "a/x.png", "._x.png", ".ipynb_checkpoints/x.png", "a/.Trash-1000/files/y.png")
    put(tmp_path, "@eaDir/x.png/SYNOPHOTO_THUMB_M.jpg", "a/Thumbs.db", "a/desktop.ini")
    put(tmp_path, "__MACOSX/x.png", "$RECYCLE.BIN/y.png", ".DS_Store")
    put(tmp_path, "#recycle/x.png", "System Volume Information/x.png")
    ids, skipped = walked(tmp_path)
    assert ids == ["a/x.png"]
    assert skipped == [
        ("#recycle/", "a file of the system"),
        ("$RECYCLE.BIN/", "a file of the system"),
        (".DS_Store", "hidden"),
        ("._x.png", "hidden"),
        (".ipynb_checkpoints/", "hidden"),
        ("@eaDir/", "a file of the system"),
        ("System Volume Information/", "a file of the system"),
        ("__MACOSX/", "a file of the system"),
        ("a/.Trash-1000/", "hidden"),
        ("a/Thumbs.db", "a file of the system"),
        ("a/desktop.ini", "a file of the system"),
    ]


def test_a_hidden_folder_that_is_asked_for_is_read(tmp_path):
    put(tmp_path, ".pool/x.png")
    assert walked(tmp_path / ".pool") == (["x.png"], [])
    with pytest.raises(InputError, match=r"holds no pictures; '\.pool/': hidden"):
        walked(tmp_path)


# --- links ------------------------------------------------------------------------------------


def test_links_to_folders_are_followed(tmp_path):
    put(tmp_path, "data/cats/1.png", "data/dogs/2.png", "pool/birds/3.png")
    os.symlink(tmp_path / "data/cats", tmp_path / "pool/cats")
    os.symlink("../data/dogs", tmp_path / "pool/dogs")
    os.symlink(tmp_path / "data/cats/1.png", tmp_path / "pool/one")
    ids, skipped = walked(tmp_path / "pool")
    assert (ids, skipped) == (["birds/3.png", "cats/1.png", "dogs/2.png", "one"], [])
    source = open_source(f"folder:{tmp_path}/pool")
    assert source.annotations([0, 1, 3]).label.tolist() == ["birds", "cats", ""]
    assert isinstance(source, InFiles) and os.path.samefile(
        source.path(1), tmp_path / "data/cats/1.png"
    )
    os.symlink("pool", tmp_path / "root")
    assert walked(tmp_path / "root") == (ids, [])


def test_loops_of_links_end(tmp_path):
    put(tmp_path, "pool/a/x.png")
    for link, target in (("a/self", "."), ("a/up", ".."), ("a/above", "../.."), ("b", "a")):
        os.symlink(target, tmp_path / "pool" / link)
    os.symlink("loop", tmp_path / "pool/loop")
    put(tmp_path, "y.png")
    ids, skipped = walked(tmp_path / "pool")
    # A link to the folder above the root leads to what is beside the root, and back to it.
    assert ids == ["a/above/y.png", "a/x.png"]
    reasons = dict(skipped)
    assert reasons.pop("loop") == "Too many levels of symbolic links"
    assert reasons == {
        "a/above/pool/": "the same folder as ./, which is read already",
        "a/self/": "a link to a/, which is read already",
        "a/up/": "a link to ./, which is read already",
        "b/": "a link to a/, which is read already",
    }


def test_a_folder_that_two_links_lead_to_is_read_once(tmp_path):
    put(tmp_path, "data/x.png", "data/deep/y.png", "pool/z.png")
    os.symlink("../data", tmp_path / "pool/b")
    os.symlink("../data", tmp_path / "pool/a")
    os.symlink("../data/deep", tmp_path / "pool/0")  # before the folder in which it lies
    ids, skipped = walked(tmp_path / "pool")
    assert ids == ["0/y.png", "a/x.png", "z.png"]
    assert sorted(skipped) == [
        ("a/deep/", "the same folder as 0/, which is read already"),
        ("b/", "a link to a/, which is read already"),
    ]


def test_a_folder_is_read_by_its_own_path_rather_than_by_a_link(tmp_path):
    put(tmp_path, "z/x.png")
    os.symlink("z", tmp_path / "a")
    assert walked(tmp_path) == (["z/x.png"], [("a/", "a link to z/, which is read already")])


# --- what changes -----------------------------------------------------------------------------


def test_a_folder_without_permission_is_listed_and_others_are_read(tmp_path):
    put(tmp_path, "a/x.png", "locked/y.png", "z/w.png")
    os.chmod(tmp_path / "locked", 0)
    try:
        if os.access(tmp_path / "locked", os.R_OK):
            pytest.skip("this user may read everything")
        ids, skipped = walked(tmp_path)
        assert (ids, skipped) == (["a/x.png", "z/w.png"], [("locked/", "Permission denied")])
    finally:
        os.chmod(tmp_path / "locked", 0o755)


def test_the_content_is_the_basis_of_the_fingerprint_if_asked(tmp_path):
    put(tmp_path, "x.png", data=encoded("BMP", 1))
    os.utime(tmp_path / "x.png", ns=(10**18, 10**18))

    def fingerprints():
        return [
            open_source(f"folder:{tmp_path}", verify=v).fingerprint for v in ("stat", "content")
        ]

    before = fingerprints()
    assert fingerprints() == before and before[0] != before[1]
    put(tmp_path, "x.png", data=encoded("BMP", 2))  # of the same size
    os.utime(tmp_path / "x.png", ns=(10**18, 10**18))  # and, as after cp -p, of the same time
    after = fingerprints()
    assert after[0] == before[0] and after[1] != before[1]
    os.utime(tmp_path / "x.png", ns=(10**18 + 1, 10**18 + 1))
    last = fingerprints()
    assert last[0] != after[0] and last[1] == after[1]
    shutil.move(tmp_path / "x.png", tmp_path / "y.png")
    assert fingerprints()[1] != last[1]
    with pytest.raises(InputError, match="verify='hash'; known: 'stat', 'content'"):
        open_source(f"folder:{tmp_path}", verify="hash")


def test_a_picture_that_becomes_readable_is_an_item_from_then_on(tmp_path):
    put(tmp_path, "a.png", "b.png")
    source = open_source(f"folder:{tmp_path}")
    os.rename(tmp_path / "b.png", tmp_path / "c")
    with pytest.raises(UnreadableItem, match=r"b\.png: No such file or directory"):
        source.read(1)
    os.rename(tmp_path / "c", tmp_path / "b.png")
    assert source.read(1).content == encoded()


# --- buckets ----------------------------------------------------------------------------------


def test_pictures_of_a_bucket(tmp_path):
    bucket = fsspec.filesystem("memory")
    files = {"a/x.png": encoded(), "b/deep/y": encoded("JPEG"), "notes.txt": b"", "empty": b""}
    hidden = {".git/z.png": encoded(), "@eaDir/z.png": encoded(), "a/Thumbs.db": b""}
    bucket.pipe({f"/pictures/{name}": data for name, data in {**files, **hidden}.items()})
    try:
        source = open_source("folder:memory://pictures/")
        assert list(source.ids) == ["a/x.png", "b/deep/y"]
        assert source.skipped == [
            (".git/z.png", "hidden"),
            ("@eaDir/z.png", "a file of the system"),
            ("a/Thumbs.db", "a file of the system"),
            ("empty", "not a picture"),
            ("notes.txt", "not a picture"),
        ]
        assert source.read(1) == ("b/deep/y", encoded("JPEG"))
        assert source.annotations([0, 1]).label.tolist() == ["a", "b/deep"]
        images = [decode(source.read(row).content, 4) for row in range(2)]
        np.testing.assert_array_equal(images[0], 0)
        before = open_source("folder:memory://pictures", verify="content").fingerprint
        bucket.pipe("/pictures/a/x.png", encoded(color=9))
        assert open_source("folder:memory://pictures", verify="content").fingerprint != before
        bucket.rm("/pictures/a/x.png")
        with pytest.raises(UnreadableItem, match=r"a/x\.png: there is no such file"):
            source.read(0)
    finally:
        bucket.rm("/pictures", recursive=True)
    with pytest.raises(InputError, match="memory://pictures"):
        open_source("folder:memory://pictures")
