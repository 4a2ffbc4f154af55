"""Samples of tar files: keys, choice of the content, hostile archives."""

import io
import tarfile

import datasets_on_disk as on_disk
import fsspec
import numpy as np
import pytest

from jaxcurate.sources import UnreadableItem, open_source
from jaxcurate.sources.pictures import encode_png

PNG = encode_png(np.zeros((2, 2, 3), np.uint8))


@pytest.fixture
def opened(tmp_path):
    """Writes a tar file of members, and opens it."""

    def open_members(members, name="a.tar", **options):
        (tmp_path / name).write_bytes(on_disk.tar_of(members))
        return open_source(f"webdataset:{tmp_path}", **options)

    return open_members


def all_of(source):
    return [tuple(source.read(row)) for row in range(len(source))]


def test_the_key_ends_at_the_first_dot_of_the_last_part(opened):
    source = opened([("v1.2/a.b.png", b"1"), ("v1.2/a.png", PNG), ("./b.PNG", PNG)])
    assert all_of(source) == [("v1.2/a", PNG), ("b", PNG)]
    assert source.skipped == []
    assert not source.ids_are_hashes


def test_text_is_read_if_there_is_no_picture_or_the_key_says_so(opened):
    members = [("a.png", PNG), ("a.txt", b"a cat"), ("b.png", PNG), ("b.txt", b"\xff")]
    assert opened(members).kind == "picture"
    source = opened(members, content_key="txt")
    assert source.kind == "text" and source.read(0) == ("a", "a cat")
    with pytest.raises(UnreadableItem, match="b: not UTF-8"):
        source.read(1)
    assert opened([("a.caption", b"a cat")]).read(0) == ("a", "a cat")


def test_several_pictures_in_a_sample_are_refused(opened):
    members = [("a.jpg", b"1"), ("a.png", b"2"), ("b.png", b"3")]
    with pytest.raises(ValueError, match=r"'a' of a\.tar .*\(jpg, png\); content_key names one"):
        opened(members)
    assert all_of(opened(members, content_key="png")) == [("a", b"2"), ("b", b"3")]
    assert all_of(opened(members, content_key="jpg;png")) == [("a", b"1"), ("b", b"3")]
    assert all_of(opened([("a.seg.png", b"1")], content_key="seg.png")) == [("a", b"1")]


def test_members_of_a_sample_need_not_be_neighbors(opened):
    members = [("a.png", b"1"), ("b.png", b"2"), ("a.cls", b"cat\n"), ("b.cls", b"dog")]
    source = opened(members)
    assert all_of(source) == [("a", b"1"), ("b", b"2")]
    assert source.annotations([1, 0]).label.tolist() == ["dog", "cat"]


def test_what_is_no_item_is_listed(opened):
    source = opened(
        [("a.png", b"1"), ("b.txt", b"2"), ("README", b""), (".x", b""), ("a.png", b"again")]
    )
    assert all_of(source) == [("a", b"1")]
    assert sorted(source.skipped) == [
        ("a.tar/.x", "hidden"),
        ("a.tar/README", "a name without a suffix"),
        ("a.tar/a.png", "a second member of this name"),
        ("a.tar/b", "has no picture"),
    ]


def test_keys_that_two_files_share_begin_with_the_name_of_the_file(opened):
    opened([("1.png", b"1"), ("2.png", b"2")], "00.tar")
    source = opened([("1.png", b"3")], "01.tar")
    assert all_of(source) == [("00/1", b"1"), ("00/2", b"2"), ("01/1", b"3")]


def test_fields_of_json_are_ids_labels_and_domains(opened):
    members = [("a.png", b"1"), ("a.json", b'{"uid": "x", "n": 3, "site": "s"}')]
    members += [("b.png", b"2"), ("b.json", b"[1]"), ("c.png", b"3")]
    source = opened(members, id_key="json:uid", label_key="json:n", domain_key="json:site")
    assert source.read(0) == ("x", b"1")
    for row, key in ((1, "b"), (2, "c")):
        with pytest.raises(UnreadableItem, match=f"{key}: has no id 'json:uid'"):
            source.read(row)
    notes = source.annotations([0, 1, 2])
    assert (notes.label.tolist(), notes.domain.tolist()) == (["3", "", ""], ["s", "", ""])
    with pytest.raises(ValueError, match="no sample has the label_key 'class'"):
        opened(members, label_key="class")


def hostile() -> bytes:
    """An archive with links, a device, and names that lead out of it, around one picture."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, link in (
            ("link.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard.png", tarfile.LNKTYPE, "a.png"),
            ("fifo.png", tarfile.FIFOTYPE, ""),
            ("device.png", tarfile.CHRTYPE, ""),
            ("folder.png", tarfile.DIRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            archive.addfile(member)
        for name in ("../out.png", "/etc/out.png", "x/../../out.png", "in.png"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    return buffer.getvalue()


def test_a_hostile_archive_is_listed_and_not_extracted(tmp_path):
    (tmp_path / "h.tar").write_bytes(hostile())
    source = open_source(f"webdataset:{tmp_path}/h.tar")
    assert all_of(source) == [("in", b"abc")]
    reasons = dict(source.skipped)
    assert reasons["h.tar/link.png"] == reasons["h.tar/hard.png"] == "a link"
    assert reasons["h.tar/fifo.png"] == reasons["h.tar/device.png"] == "not a file"
    outside = [name for name, reason in source.skipped if "leads out" in reason]
    assert outside == ["h.tar/../out.png", "h.tar//etc/out.png", "h.tar/x/../../out.png"]
    assert len(source.skipped) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["h.tar"]


def test_truncated_archives_are_read_as_far_as_they_go(tmp_path):
    whole = on_disk.tar_of([("a.png", b"1" * 600), ("b.png", b"2" * 600), ("c.png", b"3" * 600)])
    for n_bytes, rest in ((512 * 3 + 700, "a"), (512 * 4 + 300, "a"), (512 * 6 + 100, "ab")):
        (tmp_path / "t.tar").write_bytes(whole[:n_bytes])
        source = open_source(f"webdataset:{tmp_path}/t.tar")
        assert "".join(id for id, _ in all_of(source)) == rest
        assert source.skipped, n_bytes
    (tmp_path / "t.tar").write_bytes(whole[:300])
    with pytest.raises(ValueError, match=r"t\.tar") as caught:
        open_source(f"webdataset:{tmp_path}/t.tar")
    assert "\n" not in str(caught.value)


def test_a_file_that_shrinks_gives_unreadable_items(tmp_path):
    path = tmp_path / "t.tar"
    path.write_bytes(on_disk.tar_of([("a.png", b"1" * 600), ("b.png", b"2" * 600)]))
    source = open_source(f"webdataset:{path}")
    path.write_bytes(path.read_bytes()[:1500])
    assert source.read(0).id == "a"
    with pytest.raises(UnreadableItem, match=r"b: .*ends before byte"):
        source.read(1)


def test_a_damaged_header_is_told(tmp_path):
    data = bytearray(on_disk.tar_of([(f"{i}.png", b"x") for i in range(4)]))
    data[2 * 1024 + 10 : 2 * 1024 + 60] = b"?" * 50
    (tmp_path / "d.tar").write_bytes(data)
    source = open_source(f"webdataset:{tmp_path}/d.tar")
    assert [id for id, _ in all_of(source)] == ["0", "1"]
    assert source.skipped == [("d.tar", "damaged after byte 2048: what follows is not read")]


def test_joined_archives_are_told(tmp_path):
    data = on_disk.tar_of([("a.png", b"x")])
    (tmp_path / "j.tar").write_bytes(data + on_disk.tar_of([("b.png", b"y")]))
    source = open_source(f"webdataset:{tmp_path}/j.tar")
    assert len(source) == 1
    assert [name for name, reason in source.skipped if "that follow are not read" in reason] == [
        "j.tar"
    ]


def test_compressed_and_other_files_are_refused(tmp_path):
    for mode, program in (("gz", "gunzip"), ("bz2", "bunzip2"), ("xz", "unxz")):
        with tarfile.open(tmp_path / "c.tar", f"w:{mode}"):
            pass
        with pytest.raises(ValueError, match=f"c.tar is compressed by .* unpack it with {program}"):
            open_source(f"webdataset:{tmp_path}/c.tar")
    (tmp_path / "c.tar").write_text("no archive")
    with pytest.raises(ValueError, match="is not a tar file: it is text"):
        open_source(f"webdataset:{tmp_path}/c.tar")
    (tmp_path / "c.tar").write_bytes(on_disk.tar_of([]))
    with pytest.raises(ValueError, match="has no sample with"):
        open_source(f"webdataset:{tmp_path}/c.tar")
    with pytest.raises(ValueError, match="there is no such file"):
        open_source(f"webdataset:{tmp_path}/nothing.tar")
    with pytest.raises(ValueError, match="has no splits"):
        open_source(f"webdataset:{tmp_path}/c.tar", split="test")


def test_long_and_odd_names(tmp_path):
    names = ["d" * 200 + "/é", "f" * 300, "日本/語"]
    data = on_disk.tar_of([(f"{name}.png", b"x") for name in names], format=tarfile.PAX_FORMAT)
    (tmp_path / "p.tar").write_bytes(data)
    data = on_disk.tar_of([(f"{name}.png", b"x") for name in names], format=tarfile.GNU_FORMAT)
    fsspec.filesystem("memory").pipe("/odd/g.tar", data)
    for spec in (f"{tmp_path}/p.tar", "memory://odd/g.tar"):
        assert [id for id, _ in all_of(open_source(f"webdataset:{spec}"))] == names


def test_agrees_with_the_package(tmp_path):
    package = pytest.importorskip("webdataset")
    items = on_disk.pictures(9)
    with package.TarWriter(f"{tmp_path}/w.tar") as writer:
        for id, data in items.items():
            writer.write({"__key__": id, on_disk.suffix_of(data): data, "cls": 1})
    assert dict(all_of(open_source(f"webdataset:{tmp_path}/w.tar"))) == items
