"""A bare path is opened as what it is, and what is not clear is refused with the choices."""

import io
import json
import tarfile

import fsspec
import numpy as np
import pytest
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.sources import open_source
from jaxcurate.sources.detect import detect

TENSORS = (2).to_bytes(8, "little") + b'{"x": 1}'


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "png")
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((3, 2), np.float32))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.ones((3, 2), np.float32))
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        info = tarfile.TarInfo("a.png")
        info.size = len(png())
        file.addfile(info, io.BytesIO(png()))
    return buffer.getvalue()


def put(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        detect(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "scheme"),
    [
        ("x.npy", npy(), "npy"),
        ("embeddings", npy(), "npy"),
        ("x.txt", npy(), "npy"),
        ("x.npy", b"id,x\n", "npy"),  # refused there, with its kind
        ("x.npy", b"", "npy"),
        ("x.npz", npz(), "npz"),
        ("x.zip", npz(), "npz"),
        ("x.parquet", b"PAR1....", "parquet"),
        ("part-0", b"PAR1....", "parquet"),
        ("x.safetensors", TENSORS, "safetensors"),
        ("weights", TENSORS, "safetensors"),
        ("x.tar", tar(), "webdataset"),
        ("shard", tar(), "webdataset"),
        ("x.tar.gz", b"\x1f\x8b..", "webdataset"),
        ("x.jsonl", b'{"text": "a"}\n', "text"),
        ("x.ndjson", b"", "text"),
        ("X.TXT", b"a line\n", "text"),
        ("x.jsonl.gz", b"\x1f\x8b..", "text"),
    ],
)
def test_files_are_known_by_content_and_then_by_suffix(tmp_path, name, data, scheme):
    put(tmp_path, {name: data})
    assert detect(f"{tmp_path}/{name}") == f"{scheme}:{tmp_path}/{name}"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.png", png(), "is a single picture; a folder of pictures is needed"),
        ("x.csv", b"id,x\n1,2\n", "is text, such as CSV, which is not read; sources are npy:PATH"),
        ("x.pt", b"\x80\x02....", "is a pickle, which is never read"),
        ("x.arrow", b"ARROW1..", "a saved dataset is opened by its folder"),
        ("x.bin", b"\xff\x00\xfe", "is of an unknown kind"),
        ("x.zip", b"PK\x03\x04..", "is a zip archive"),
    ],
)
def test_files_of_no_source_are_refused_by_their_kind(tmp_path, name, data, message):
    put(tmp_path, {name: data})
    assert message in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("files", "scheme"),
    [
        ({"a/x.png": png(), "y.jpg": png()}, "folder"),
        ({"a/b/c/x": png()}, "folder"),  # without a suffix
        ({"x.png": png(), "x.txt": b"a caption", "labels.csv": b"", "x.json": b"{}"}, "folder"),
        ({"a/x.png": png(), "captions.jsonl": b"{}"}, "folder"),
        ({}, "folder"),  # refused there, because it holds no pictures
        ({"0.tar": tar(), "1.tar": tar(), "notes.md": b"", ".hidden.npy": b""}, "webdataset"),
        ({"0.parquet": b"PAR1", "README": b"read me"}, "parquet"),
        ({"0.npy": npy(), "1.npy": npy()}, "npy"),
        ({"0.safetensors": TENSORS}, "safetensors"),
        ({"0.jsonl": b"{}", "1.jsonl": b"{}"}, "text"),
        ({"zarr.json": b"{}", "c/0/0": b""}, "zarr"),
        ({".zarray": b"{}", "0.0": b""}, "zarr"),
        ({"state.json": b"{}", "dataset_info.json": b"{}", "data-0.arrow": b""}, "huggingface"),
        ({"dataset_dict.json": b"{}", "train/state.json": b"{}"}, "huggingface"),
        ({"features.json": b"{}", "dataset_info.json": b"{}"}, "tfds"),
    ],
)
def test_folders_are_known_by_their_files(tmp_path, files, scheme):
    put(tmp_path, files)
    assert detect(str(tmp_path)) == f"{scheme}:{tmp_path}"


def test_what_is_not_clear_is_refused_with_the_choices(tmp_path):
    put(tmp_path, {"x.npy": npy(), "x.parquet": b"PAR1"})
    assert f"one of npy:{tmp_path} or parquet:{tmp_path}" in refused(tmp_path)
    put(tmp_path / "mixed", {"x.npy": npy(), "cats/deep/a.png": png()})
    assert f"one of folder:{tmp_path}/mixed or npy:" in refused(tmp_path / "mixed")
    put(tmp_path / "repository", {"README.md": b"", "data/train-0.parquet": b"PAR1"})
    wanted = f"write parquet:{tmp_path}/repository/data"
    assert wanted in refused(tmp_path / "repository")
    put(tmp_path / "zarrs", {"x.zarr/zarr.json": b"{}", "y.zarr/zarr.json": b"{}"})
    assert f"zarr:{tmp_path}/zarrs/x.zarr" in refused(tmp_path / "zarrs")


def test_versions_of_a_dataset(tmp_path):
    files = {"features.json": b"{}", "dataset_info.json": b"{}"}
    put(tmp_path / "zoo/1.0.0", files)
    assert detect(f"{tmp_path}/zoo") == f"tfds:{tmp_path}/zoo/1.0.0"
    assert detect(f"{tmp_path}/zoo/") == f"tfds:{tmp_path}/zoo/1.0.0"
    put(tmp_path / "zoo/2.0.0", files)
    wanted = f"several versions of a dataset, 1.0.0, 2.0.0: name one, as in tfds:{tmp_path}/zoo"
    assert wanted in refused(tmp_path / "zoo")


def test_patterns_and_paths_that_are_not_there(tmp_path, monkeypatch):
    assert detect(f"{tmp_path}/*.npy") == f"npy:{tmp_path}/*.npy"
    assert detect(f"{tmp_path}/{{}}-*.tar") == f"webdataset:{tmp_path}/{{}}-*.tar"
    assert "is not known by its suffix: write a scheme" in refused(tmp_path / "*")
    assert "there is no such file or folder" in refused(tmp_path / "none")
    assert "there is no such file or folder" in refused("C:\\pictures")
    (tmp_path / "dangling.npy").symlink_to("nowhere")
    assert "there is no such file" in refused(tmp_path / "dangling.npy")


def test_bare_paths_are_opened(tmp_path, monkeypatch):
    put(tmp_path, {"pool/x.png": png(), "a:b.npy": npy(), "arrays/1.npy": npy()})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("pool", "./pool", "~/pool", str(tmp_path / "pool"), "pool/"):
        source = open_source(path)
        assert (source.kind, list(source.ids)) == ("picture", ["x.png"])
    for path in ("a:b.npy", "arrays", "~/arrays/*.npy"):
        assert (open_source(path).kind, len(open_source(path))) == ("vector", 3)
    with pytest.raises(InputError, match=r"source 'folder:' is not one of folder:.*npy:"):
        open_source("folder:")
    with pytest.raises(InputError, match="source '' is not one of"):
        open_source("")


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    def refuse(*args, **named):  # the tests may run as root, for whom there are no permissions
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    assert "cannot be read (Permission denied)" in refused(tmp_path)


def test_paths_in_a_bucket():
    bucket = fsspec.filesystem("memory")
    bucket.pipe({"/seen/a/x.png": png(), "/seen/rows/x.npy": npy(), "/seen/z/zarr.json": b"{}"})
    bucket.pipe({"/seen/mixed/x.npy": npy(), "/seen/mixed/x.png": png()})
    try:
        assert detect("memory://seen/rows") == "npy:memory://seen/rows"
        assert detect("memory://seen/rows/x.npy") == "npy:memory://seen/rows/x.npy"
        assert detect("memory://seen/rows/*.npy") == "npy:memory://seen/rows/*.npy"
        assert detect("memory://seen/a") == "folder:memory://seen/a"
        assert detect("memory://seen") == "folder:memory://seen"
        assert detect("memory://seen/z/") == "zarr:memory://seen/z/"
        assert "one of folder:memory://seen/mixed or npy:" in refused("memory://seen/mixed")
        assert "seen/none: there is no such file or bucket" in refused("memory://seen/none")
        assert len(open_source("memory://seen/rows")) == 3
        assert len(open_source("memory://seen/a")) == 1
    finally:
        bucket.rm("/seen", recursive=True)


def test_metadata_that_are_damaged_do_not_decide(tmp_path):
    put(tmp_path, {"zarr.json": json.dumps({"node_type": "group"}).encode()})
    assert detect(str(tmp_path)) == f"zarr:{tmp_path}"
    with pytest.raises(InputError, match="is not a Zarr array"):
        open_source(str(tmp_path))
