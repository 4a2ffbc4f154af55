"""Folders, arrays and datasets are read in the same way, and unreadable items are listed."""

import io
import json
import os
import shutil
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.sources import Item, UnreadableItem, open_source, pictures, read_items
from jaxcurate.sources.names import content_id


def png_of(path: Path, color: tuple, size: tuple[int, int] = (20, 10), mode: str = "RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    chunks = b""
    for kind, data in (
        (b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ):
        crc = zlib.crc32(kind + data).to_bytes(4, "big")
        chunks += len(data).to_bytes(4, "big") + kind + data + crc
    return b"\x89PNG\r\n\x1a\n" + chunks


def decoded(size):
    """Returns what a reading makes of each item: a square of the picture."""
    return lambda item: pictures.decode(item.content, size)


# --- pictures ---------------------------------------------------------------------------------


def test_transparency_is_flattened_on_white(tmp_path):
    png_of(tmp_path / "clear.png", (255, 0, 0, 0), mode="RGBA")
    png_of(tmp_path / "half.png", (255, 0, 0, 128), mode="RGBA")
    clear = pictures.decode(tmp_path / "clear.png", 8)
    half = pictures.decode(tmp_path / "half.png", 8)
    assert (clear == 255).all()
    np.testing.assert_allclose(half.astype(int) - [255, 127, 127], 0, atol=1)


def test_transparent_colors_do_not_bleed_into_opaque_ones():
    # Left half transparent green, right half opaque black: an average over both is mid-gray.
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[:, 0] = (0, 255, 0, 0)
    pixels[:, 1] = (0, 0, 0, 255)
    small = np.asarray(pictures.square(Image.fromarray(pixels), 1, "crop")).ravel()
    np.testing.assert_allclose(small.astype(int), 127, atol=1)


def test_resizing_averages_over_the_area():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    small = np.asarray(pictures.square(Image.fromarray(stripes), 8, "crop"))
    np.testing.assert_allclose(small.astype(int), 100, atol=2)


def test_crop_keeps_the_center_and_pad_keeps_everything():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, :10, 0], wide[:, 10:20, 1], wide[:, 20:, 2] = 255, 255, 255
    crop = np.asarray(pictures.square(Image.fromarray(wide), 10, "crop"))
    np.testing.assert_array_equal(crop, wide[:, 10:20])
    pad = np.asarray(pictures.square(Image.fromarray(wide), 30, "pad"))
    np.testing.assert_array_equal(pad[10:20], wide)
    assert (pad[:10] == 255).all() and (pad[20:] == 255).all()


def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    assert (pictures.decode(tmp_path / "deep.png", 4) == 100).all()


def test_exif_orientation_is_applied():
    picture = Image.new("RGB", (8, 8), "black")
    picture.paste("white", (0, 0, 8, 4))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 3  # to be turned by 180 degrees
    buffer = io.BytesIO()
    picture.save(buffer, "png", exif=exif)
    decoded = pictures.decode(buffer.getvalue(), 8)
    assert (decoded[:4] == 0).all() and (decoded[4:] == 255).all()


def test_unknown_fit_is_refused():
    with pytest.raises(ValueError, match="fit='stretch'; known: 'crop', 'pad', 'squash'"):
        pictures.decode(b"", 8, fit="stretch")


# --- folders ----------------------------------------------------------------------------------


@pytest.fixture
def messy_folder(tmp_path):
    """Two good pictures, and five files with the suffix of a picture that are no pictures."""
    png_of(tmp_path / "b/good.png", (10, 20, 30))
    png_of(tmp_path / "a/good.webp", (0, 0, 0))
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(whole, "png")
    (tmp_path / "a/truncated.png").write_bytes(whole.getvalue()[:2000])
    (tmp_path / "a/empty.jpg").write_bytes(b"")
    (tmp_path / "a/text.gif").write_text("no picture")
    (tmp_path / "bomb.png").write_bytes(png_header(10_000, 10_000))
    (tmp_path / "larger-bomb.png").write_bytes(png_header(30_000, 30_000))
    (tmp_path / "notes.txt").write_text("not counted")
    return tmp_path


def test_folder_ids_are_sorted_relative_paths_and_labels_are_folders(messy_folder):
    source = open_source(f"folder:{messy_folder}")
    assert len(source) == 7
    assert source.kind == "picture"
    assert source.read(4) == ("b/good.png", (messy_folder / "b/good.png").read_bytes())
    decoded = pictures.decode(source.read(4).content, 8)
    assert (decoded == np.full((8, 8, 3), (10, 20, 30))).all() and decoded.dtype == np.uint8
    label, domain = source.annotations([0, 4, 5])
    assert label.tolist() == ["a", "b", ""]
    assert domain.tolist() == ["", "", ""]


def test_unreadable_pictures_are_skipped_and_listed(messy_folder):
    source = open_source(f"folder:{messy_folder}")
    reading = read_items(source, prepare=decoded(8), batch_size=2, n_threads=2)
    batches = list(reading)
    assert [batch.ids.tolist() for batch in batches] == [["a/good.webp", "b/good.png"]]
    assert batches[0].rows.tolist() == [1, 4]
    reasons = {row.id: row.reason for row in reading.unreadable}
    assert list(reasons) == [
        "a/empty.jpg", "a/text.gif", "a/truncated.png", "bomb.png", "larger-bomb.png",
    ]  # fmt: skip
    assert "too many" in reasons["bomb.png"] and "too many" in reasons["larger-bomb.png"]
    assert "truncated" in reasons["a/truncated.png"]
    assert [row.row for row in reading.unreadable] == [0, 2, 3, 5, 6]


def test_a_picture_that_is_gone_is_unreadable(messy_folder):
    source = open_source(f"folder:{messy_folder}")
    os.remove(messy_folder / "b/good.png")
    with pytest.raises(UnreadableItem, match=r"b/good\.png"):
        source.read(4)


def test_folder_fingerprint_follows_content(messy_folder):
    before = open_source(f"folder:{messy_folder}").fingerprint
    assert open_source(f"folder:{messy_folder}").fingerprint == before
    (messy_folder / "notes.txt").write_text("still not counted")
    assert open_source(f"folder:{messy_folder}").fingerprint == before
    png_of(messy_folder / "b/good.png", (10, 20, 31))
    assert open_source(f"folder:{messy_folder}").fingerprint != before


def test_a_name_that_is_not_unicode_gives_an_id_that_is(tmp_path):
    png_of(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")), (0, 0, 0))
    item = open_source(f"folder:{tmp_path}").read(0)
    assert item.id == "caf\\xe9.png"
    assert pictures.decode(item.content, 32).shape == (32, 32, 3)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="holds no pictures"):
        open_source(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match="is not a folder"):
        open_source(f"folder:{tmp_path}/nothing")


# --- arrays -----------------------------------------------------------------------------------


def test_rows_of_an_array_are_items(tmp_path):
    x = np.random.default_rng(0).standard_normal((5, 3))
    np.save(tmp_path / "x.npy", x)
    source = open_source(f"npy:{tmp_path}/x.npy")
    id, vector = source.read(3)
    assert (id, vector.dtype, len(source)) == ("3", np.float32, 5)
    np.testing.assert_array_equal(vector, x[3].astype(np.float32))
    assert source.annotations([0, 1]).label.tolist() == ["", ""]
    (batch,) = read_items(source, [4, 0], batch_size=9, n_threads=1)
    assert batch.ids.tolist() == ["4", "0"]
    np.testing.assert_array_equal(batch.contents, x[[4, 0]].astype(np.float32))
    told = []
    first, last = read_items(source, batch_size=3, progress=told.append)
    assert (first.ids.tolist(), last.ids.tolist(), told) == (["0", "1", "2"], ["3", "4"], [3, 2])
    assert first.contents.dtype == np.float32
    np.testing.assert_array_equal(last.contents, x[3:].astype(np.float32))


def test_array_fingerprint_is_of_the_content(tmp_path):
    x = np.zeros((5, 3), np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "copy.npy", x)
    x[4, 2] = 1e-9
    np.save(tmp_path / "other.npy", x)
    prints = [open_source(f"npy:{tmp_path}/{n}.npy").fingerprint for n in ("x", "copy", "other")]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2), np.float32), r"must be \[n, d\] with n, d > 0, not \[2, 2, 2\]"),
        (np.zeros((0, 3), np.float32), r"must be \[n, d\] with n, d > 0, not \[0, 3\]"),
        (np.zeros((2, 2), bool), "must hold real numbers, not bool"),
        (np.zeros((2, 2), complex), "must hold real numbers, not complex128"),
        (np.zeros((2, 2), "V3"), r"must hold real numbers, not \|V3"),
        (np.array([["a", None]], object), "is not a whole .npy file of numbers"),
    ],
)
def test_unsuitable_arrays_are_refused(tmp_path, array, message):
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array(file, array)  # pickles an array of objects
    with pytest.raises(ValueError, match=rf"x\.npy {message}"):
        open_source(f"npy:{tmp_path}/x.npy")


def test_files_that_are_no_array_are_refused(tmp_path):
    np.savez(tmp_path / "archive.npy.npz", x=np.zeros(3))
    np.save(tmp_path / "cut.npy", np.zeros((100, 100)))
    os.truncate(tmp_path / "cut.npy", 1000)
    (tmp_path / "text.npy").write_text("no array")
    for name, message in (
        ("archive.npy.npz", "is an archive of arrays"),
        ("cut.npy", "is not a whole"),
        ("text.npy", "is not a whole"),
        ("nothing.npy", "there is no such file"),
    ):
        with pytest.raises(ValueError, match=rf"{name}.*{message}"):
            open_source(f"npy:{tmp_path}/{name}")


# --- datasets ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def user_dataset(tmp_path_factory):
    """A dataset of the user's own: two splits, odd shapes, one broken picture."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from jaxcurate.sources.synthetic.building import quiet

    class TinyZoo(tfds.core.GeneratorBasedBuilder):
        """Pictures of one color."""

        VERSION = tfds.core.Version("1.2.3")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "picture": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "animal": tfds.features.ClassLabel(names=["cat", "dog"]),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(5), "held": self._generate_examples(2)}

        def _generate_examples(self, n):
            for i in range(n):
                image = np.full((6 + i, 9, 3), 10 * i, np.uint8)
                picture = b"broken" if i == 3 else pictures.encode_png(image)
                yield i, {"picture": picture, "animal": i % 2}

    data_dir = tmp_path_factory.mktemp("tfds")
    with quiet():
        TinyZoo(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir


def test_a_users_dataset_is_read_with_the_keys_found(user_dataset):
    source = open_source("tfds:tiny_zoo", data_dir=user_dataset)
    assert source.name == "tfds:tiny_zoo/1.2.3:train"
    encoded = [source.read(row).content for row in range(5)]
    ids = [content_id(content) for content in encoded]
    assert [source.read(row).id for row in range(5)] == ids and source.ids_are_hashes
    reading = read_items(source, prepare=decoded(8), batch_size=3, n_threads=2)
    batches = list(reading)
    assert [batch.ids.tolist() for batch in batches] == [ids[:3], ids[4:]]
    means = np.concatenate([np.stack(batch.contents) for batch in batches]).mean((1, 2, 3))
    assert means.tolist() == [0, 10, 20, 40]
    assert [(row.row, row.id) for row in reading.unreadable] == [(3, ids[3])]
    label, domain = source.annotations([1, 2, 3])
    assert label.tolist() == ["dog", "cat", "dog"]
    assert domain.tolist() == ["", "", ""]


def test_splits_differ_in_length_and_fingerprint(user_dataset):
    def open_split(split):
        return open_source("tfds:tiny_zoo:1.2.3", split=split, data_dir=user_dataset)

    sources = [open_split(split) for split in ("train", "held", "train[:2]")]
    assert [len(source) for source in sources] == [5, 2, 2]
    assert len({source.fingerprint for source in sources}) == 3
    assert open_split("train").fingerprint == sources[0].fingerprint
    with pytest.raises(ValueError, match="has no split 'valid'; known are"):
        open_split("valid")


def test_dataset_keys_can_be_given(user_dataset):
    source = open_source(
        "tfds:tiny_zoo", data_dir=user_dataset, content_key="picture", label_key="animal"
    )
    assert source.annotations([0]).label.tolist() == ["cat"]
    with pytest.raises(ValueError, match="has no feature 'photo'"):
        open_source("tfds:tiny_zoo", data_dir=user_dataset, content_key="photo")
    with pytest.raises(ValueError, match="has no picture or text 'animal' among"):
        open_source("tfds:tiny_zoo", data_dir=user_dataset, content_key="animal")


def test_a_dataset_is_opened_by_the_folder_of_a_version(user_dataset, tmp_path, monkeypatch):
    by_name = open_source("tfds:tiny_zoo", data_dir=user_dataset)
    (tmp_path / "elsewhere").symlink_to(user_dataset)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = f"{tmp_path}/elsewhere/tiny_zoo/1.2.3"
    for spec in (
        *(f"tfds:{folder}", f"tfds:{folder}/", "tfds:elsewhere/tiny_zoo/1.2.3"),
        *("tfds:./elsewhere/tiny_zoo/1.2.3", "tfds:~/elsewhere/tiny_zoo/1.2.3"),
        *(folder, "elsewhere/tiny_zoo/1.2.3", "~/elsewhere/tiny_zoo", "elsewhere/tiny_zoo"),
    ):
        source = open_source(spec, data_dir=tmp_path / "none")
        assert (source.name, len(source)) == (by_name.name, 5)
        assert source.read(1) == by_name.read(1) and source.fingerprint == by_name.fingerprint
    assert len(open_source(f"tfds:{folder}", split="held")) == 2
    for missing in ("elsewhere/tiny_zoo", "none"):
        with pytest.raises(InputError, match=r"features\.json is missing"):
            open_source(f"tfds:{tmp_path}/{missing}")


def test_a_folder_that_names_code_of_others_is_refused(user_dataset, tmp_path):
    shutil.copytree(user_dataset / "tiny_zoo/1.2.3", tmp_path / "zoo/1.2.3")
    described = json.loads((tmp_path / "zoo/1.2.3/features.json").read_text())
    described["featuresDict"]["features"]["other"] = {"pythonClassName": "payload.Image"}
    (tmp_path / "zoo/1.2.3/features.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"names 'payload\.Image', which would have to be"):
        open_source(f"{tmp_path}/zoo")
    (tmp_path / "zoo/1.2.3/dataset_info.json").unlink()
    with pytest.raises(InputError) as caught:
        open_source(f"tfds:{tmp_path}/zoo/1.2.3")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """A dataset of texts with keys, and one text that is not UTF-8."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from jaxcurate.sources.synthetic.building import quiet

    class Reviews(tfds.core.GeneratorBasedBuilder):
        """Texts with keys."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            texts = {key: tfds.features.Text() for key in ("id", "text", "title", "domain")}
            classes = tfds.features.ClassLabel(names=["bad", "good"])
            features = tfds.features.FeaturesDict({**texts, "label": classes})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, text in enumerate([b"zo\xc3\xab", b"caf\xe9", b"", b"last"]):
                title = f"title {i}".encode()
                notes = {"id": f"r{i}".encode(), "title": title, "domain": b"web"}
                yield i, {**notes, "text": text, "label": i % 2}

    data_dir = tmp_path_factory.mktemp("tfds")
    with quiet():
        Reviews(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir


def test_texts_of_a_dataset(reviews):
    source = open_source("tfds:reviews", data_dir=reviews)
    assert source.kind == "text" and not source.ids_are_hashes
    reading = read_items(source, batch_size=9, n_threads=2)
    (batch,) = reading
    assert (batch.ids.tolist(), batch.contents) == (["r0", "r2", "r3"], ["zoë", "", "last"])
    assert [(row.row, row.id, row.reason) for row in reading.unreadable] == [(1, "r1", "not UTF-8")]
    label, domain = source.annotations([3, 0])
    assert (label.tolist(), domain.tolist()) == (["good", "bad"], ["web", "web"])
    titles = open_source("tfds:reviews", data_dir=reviews, content_key="title", id_key="text")
    assert titles.read(3) == ("last", "title 3")
    assert titles.fingerprint != source.fingerprint
    with pytest.raises(InputError, match="has no picture or text 'label' among"):
        open_source("tfds:reviews", data_dir=reviews, content_key="label")


def test_a_dataset_without_random_access_is_refused(user_dataset, monkeypatch):
    import tensorflow_datasets as tfds

    def refuse(*args, **kwargs):
        raise NotImplementedError("Random access data source for file format tfrecord")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_data_source", refuse)
    with pytest.raises(ValueError, match="no random access: prepare it with file_format"):
        open_source("tfds:tiny_zoo", data_dir=user_dataset)


def test_unknown_specifications_are_refused_in_one_line(tmp_path):
    for spec, message in (
        ("s3:bucket", "source 's3:bucket' is not one of folder:..., tfds:..., webdataset:..."),
        ("pictures", "is not one of folder:.*, and there is no such file or folder"),
        ("folder:", "is not one of"),
        ("tfds:no_such_dataset", "tfds:no_such_dataset is not in"),
        ("tfds:weblike/0000", "no whole weblike/0000 in"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            open_source(spec, data_dir=tmp_path)
        assert "\n" not in str(caught.value)
    png_of(tmp_path / "x.png", (0, 0, 0))
    with pytest.raises(ValueError, match="has no splits, so no split 'test'"):
        open_source(f"folder:{tmp_path}", split="test")


# --- reading ----------------------------------------------------------------------------------


class Counting:
    """A source of numbers; multiples of ten are unreadable. Notes how far it was read."""

    name = "counting"
    fingerprint = "counting"

    def __init__(self, n):
        self.n = n
        self.furthest = 0
        self.threads = set()

    def __len__(self):
        return self.n

    def read(self, row):
        self.furthest = max(self.furthest, row)
        self.threads.add(threading.get_ident())
        if row % 10 == 0:
            raise UnreadableItem(f"n{row}", "multiple of ten")
        return Item(f"n{row}", np.array([row], np.float32))


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batches_are_full_and_in_order(batch_size, n_threads):
    progress = []
    reading = read_items(
        Counting(205), batch_size=batch_size, n_threads=n_threads, progress=progress.append
    )
    batches = list(reading)
    good = [row for row in range(205) if row % 10]
    assert np.concatenate([batch.rows for batch in batches]).tolist() == good
    assert np.concatenate([batch.contents for batch in batches]).ravel().tolist() == good
    assert {len(batch.rows) for batch in batches[:-1]} <= {batch_size}
    assert [row.row for row in reading.unreadable] == list(range(0, 205, 10))
    assert sum(progress) == 205
    assert len(list(reading)) == len(batches)  # a second time starts afresh
    assert len(reading.unreadable) == 21


def test_rows_are_read_in_the_order_given():
    (batch,) = read_items(Counting(50), np.array([33, 4, 20, 33]), batch_size=8, n_threads=2)
    assert batch.ids.tolist() == ["n33", "n4", "n33"]


def test_reading_ahead_is_bounded_and_stops_with_the_iteration():
    source = Counting(100_000)
    iterator = iter(read_items(source, batch_size=32, n_threads=2))
    next(iterator)
    iterator.close()
    assert source.furthest < 500
    assert threading.get_ident() not in source.threads


def test_an_unexpected_error_is_not_swallowed():
    class Broken(Counting):
        def read(self, row):
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        list(read_items(Broken(9), batch_size=2, n_threads=2))


def test_bad_reading_arguments_are_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        read_items(Counting(9), batch_size=0)
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 9\), the rows of counting"):
        read_items(Counting(9), [3, 9], batch_size=2)
    assert list(read_items(Counting(9), [], batch_size=2)) == []


def test_an_item_holds_no_annotation():
    assert Item._fields == ("id", "content")
