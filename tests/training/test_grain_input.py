"""Pictures that are decoded and cropped on the host, by threads and by workers of Grain."""

import copy
import io
import json
import sys
import tarfile
from collections import Counter
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

import jaxcurate as jc
from jaxcurate import export
from jaxcurate.checks import InputError
from jaxcurate.curation.stratified_batches import Batches
from jaxcurate.sources import open_source
from jaxcurate.sources.pictures import encode_png
from jaxcurate.training import Augmentation, Run, augment
from jaxcurate.training import grain_input as module
from jaxcurate.training.grain_input import CropInput
from jaxcurate.training.host_crops import N_DRAWS, crop_box, draws, random_crops
from jaxcurate.training.objectives import Crop
from jaxcurate.training.runs import batches_of

N = 40
CROPS = (Crop(2, 12), Crop(3, 6, scale=(0.05, 0.3)))
RUN = Run(np.arange(0, N, 2), seed=3)


def contents() -> list[bytes]:
    """Pictures of different sizes: a color that is the number of the picture, and a gradient."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(N):
        height, width = rng.integers(5, 40, 2)
        pixels = np.full((height, width, 3), i, np.uint8)
        pixels[..., 1] = np.linspace(0, 255, width)
        made.append(encode_png(pixels))
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i, content in enumerate(contents()):
        (folder / f"{i:02}.png").write_bytes(content)
    return open_source(f"folder:{folder}")


def given(source, run=RUN, n_steps=5, batch_size=8, first=0, crops=CROPS, **options):
    pytest.importorskip("grain")
    data = CropInput(source, run, crops, Augmentation(), n_steps, batch_size, **options)
    try:
        return list(data.fed(first))
    finally:
        data.close()


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.ids, y.ids)
        for p, q in zip(x.arrays, y.arrays, strict=True):
            np.testing.assert_array_equal(p, q)


# Crops of one picture.


def test_crops_have_the_areas_and_ratios_that_are_asked_for():
    drawn = draws(0, 5, np.arange(2000), 1)[:, 0]
    boxes = np.array([crop_box(numbers, 100, 80, (0.1, 0.5), 4 / 3) for numbers in drawn])
    left, upper, right, lower = boxes.T
    assert (left >= 0).all() and (upper >= 0).all() and (right <= 100).all() and (lower <= 80).all()
    area = (right - left) * (lower - upper) / 8000
    assert area.min() >= 0.1 and area.max() <= 0.5
    np.testing.assert_allclose(area.mean(), 0.3, atol=0.01)  # uniform
    logarithm = np.log((right - left) / (lower - upper)) / np.log(4 / 3)
    assert np.abs(logarithm).max() <= 1 + 1e-9
    np.testing.assert_allclose(logarithm.mean(), 0, atol=0.05)
    slack = left / (100 - (right - left))
    np.testing.assert_allclose([slack.mean(), slack.std()], [0.5, 12**-0.5], atol=0.02)


@pytest.mark.parametrize("width, height", [(100, 10), (10, 100)])
def test_a_narrow_picture_is_cropped_in_the_middle(width, height):
    left, upper, right, lower = crop_box([0.5] * N_DRAWS, width, height, (0.9, 1.0), 4 / 3)
    sides = sorted([right - left, lower - upper])
    np.testing.assert_allclose(sides, [10, 40 / 3])
    np.testing.assert_allclose([(left + right) / 2, (upper + lower) / 2], [width / 2, height / 2])


def test_draws_depend_on_seed_step_and_position_alone():
    whole = draws(3, 7, np.arange(64), 4)
    assert whole.shape == (64, 4, N_DRAWS) and whole.min() >= 0 and whole.max() < 1
    np.testing.assert_array_equal(draws(3, 7, np.arange(32, 64), 4), whole[32:])
    assert len(np.unique(whole)) == whole.size
    for other in (draws(4, 7, np.arange(64), 4), draws(3, 8, np.arange(64), 4)):
        assert len(np.intersect1d(other, whole)) == 0
        assert abs(np.corrcoef(other.ravel(), whole.ravel())[0, 1]) < 0.05


def test_crops_are_those_of_pillow():
    pixels = np.random.default_rng(1).integers(0, 256, (30, 50, 3), np.uint8)
    drawn = draws(0, 0, np.arange(1), 5)[0]
    got = np.concatenate(
        [
            group.reshape(-1)
            for group in random_crops(encode_png(pixels), drawn, CROPS, (0.4, 1.0), 4 / 3)
        ]
    )
    wanted = []
    for i, (size, scale) in enumerate([(12, (0.4, 1.0))] * 2 + [(6, (0.05, 0.3))] * 3):
        box = crop_box(drawn[i], 50, 30, scale, 4 / 3)
        resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, box=box)
        wanted.append(np.asarray(resized).reshape(-1))
    np.testing.assert_array_equal(got, np.concatenate(wanted))


def test_a_picture_smaller_than_a_crop_is_enlarged():
    png = encode_png(np.full((2, 3, 3), 77, np.uint8))
    groups = random_crops(png, draws(0, 0, np.arange(1), 5)[0], CROPS, (0.01, 0.02), 4 / 3)
    assert [group.shape for group in groups] == [(2, 12, 12, 3), (3, 6, 6, 3)]
    assert all((group == 77).all() for group in groups)


def photo(orientation: int | None = None, **options) -> bytes:
    """A smooth photo of 800 x 640, stored as a camera that is held in another way stores it."""
    x, y = np.meshgrid(np.linspace(0, 6, 800), np.linspace(0, 5, 640))
    pixels = np.stack([np.sin(x) * np.cos(y), np.cos(x + y), np.sin(y)], -1) * 100 + 128
    picture, file = Image.fromarray(pixels.astype(np.uint8)), io.BytesIO()
    if orientation == 6:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        options["exif"] = exif
    picture.save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize("orientation", [None, 6])
def test_large_photos_are_decoded_small_and_look_the_same(monkeypatch, orientation):
    drawn = draws(0, 0, np.arange(1), 5)[0]
    wanted = random_crops(photo(format="png"), drawn, CROPS, (0.4, 1.0), 4 / 3)
    jpeg = photo(orientation, format="jpeg", quality=95)
    got = random_crops(jpeg, drawn, CROPS, (0.4, 1.0), 4 / 3)
    for a, b in zip(got, wanted, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 1.5
    sizes, load = [], JpegImageFile.load
    monkeypatch.setattr(
        JpegImageFile, "load", lambda self: (sizes.append(self.size), load(self))[1]
    )
    random_crops(jpeg, drawn, CROPS, (0.4, 1.0), 4 / 3)
    assert max(sizes[0]) <= 400


# Batches.


def test_rows_are_those_of_the_resident_input_and_nothing_is_lost_or_doubled(source):
    fed = given(source, n_steps=10, batch_size=4)  # two epochs
    wanted = batches_of(RUN, 10, 4)
    for step in range(10):
        np.testing.assert_array_equal(fed[step].ids, wanted[step])
        large, small = fed[step].arrays
        assert large.shape == (4, 2, 12, 12, 3) and small.shape == (4, 3, 6, 6, 3)
        # The red of a picture is its row.
        for array in (large, small):
            assert (array[..., 0] == wanted[step][:, None, None, None]).all()
    seen = Counter(int(array[0, 0, 0, 0]) for step in fed for array in step.arrays[0])
    assert seen == dict.fromkeys(RUN.rows.tolist(), 2)


def test_pieces_of_a_batch_keep_their_order(source, monkeypatch):
    whole = given(source, batch_size=10)
    monkeypatch.setattr(module, "_PIECE", 3)  # 3, 3, 2 and 2 pictures
    assert_same(given(source, batch_size=10), whole)


def test_crops_do_not_depend_on_the_rows(tmp_path):
    """The arms of a comparison are paired: the same crops at the same positions."""
    for i in range(16):
        pixels = np.full((20, 30, 3), i, np.uint8)
        pixels[..., 1:] = np.random.default_rng(0).integers(0, 256, (20, 30, 2))
        (tmp_path / f"{i:02}.png").write_bytes(encode_png(pixels))
    source = open_source(f"folder:{tmp_path}")
    even, odd = (given(source, Run(np.arange(first, 16, 2), 0)) for first in (0, 1))
    for a, b in zip(even, odd, strict=True):
        assert not np.intersect1d(a.ids, b.ids).size
        for x, y in zip(a.arrays, b.arrays, strict=True):
            np.testing.assert_array_equal(x[..., 1:], y[..., 1:])
            assert (x[..., 0] != y[..., 0]).all()


def test_processes_read_disjoint_parts_of_the_batch(source):
    whole = given(source)
    parts = [given(source, n_parts=2, part=i) for i in range(2)]
    for step in range(5):
        joined = [
            np.concatenate(arrays) for arrays in zip(*(p[step].arrays for p in parts), strict=True)
        ]
        for a, b in zip(joined, whole[step].arrays, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.concatenate([p[step].ids for p in parts]), whole[step].ids)


def test_stratified_batches_are_taken_as_they_are(source):
    tree = jc.ClusterTree.from_labels([np.arange(N) // 10])
    batches = Batches(tree, 4, n_steps=3, equal="clusters")
    fed = given(source, Run(np.arange(N), 0, batches), n_steps=3, batch_size=4)
    for step in range(3):
        np.testing.assert_array_equal(fed[step].ids, batches[step])
        assert sorted(fed[step].arrays[0][:, 0, 0, 0, 0] // 10) == [0, 1, 2, 3]


def test_a_training_that_goes_on_gets_the_rest(source):
    pytest.importorskip("grain")
    data = CropInput(source, RUN, CROPS, Augmentation(), 5, 8)
    begun = data.fed(0)
    first = [next(begun), next(begun)]
    state = json.loads(json.dumps(data.state()))
    data.close()
    again = CropInput(source, RUN, CROPS, Augmentation(), 5, 8)
    again.restore(state)
    assert_same(first + list(again.fed(state["step"])), given(source))
    with pytest.raises(InputError, match="checkpoint's pictures are not those of folder:"):
        again.restore({**state, "source": "other"})
    with pytest.raises(InputError, match="batches are others"):
        CropInput(source, Run(RUN.rows, 4), CROPS, Augmentation(), 5, 8).restore(state)


@pytest.mark.parametrize("scheme", ["parquet", "webdataset", "huggingface", "tfds"])
def test_every_source_of_pictures_can_be_sent_to_workers(source, scheme, tmp_path):
    pngs = contents()
    if scheme == "parquet":
        table = pa.table({"id": [f"{i:02}" for i in range(N)], "image": pngs})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
        other = open_source(f"parquet:{tmp_path}/a.parquet")
    elif scheme == "webdataset":
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for i, png in enumerate(pngs):
                member = tarfile.TarInfo(f"{i:02}.png")
                member.size = len(png)
                tar.addfile(member, io.BytesIO(png))
        other = open_source(f"webdataset:{tmp_path}/a.tar")
    elif scheme == "huggingface":
        (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "0.arrow"}]}')
        table = pa.table({"id": [f"{i:02}" for i in range(N)], "image": pngs})
        with pa.ipc.new_stream(str(tmp_path / "0.arrow"), table.schema) as stream:
            stream.write_table(table, max_chunksize=7)
        other = open_source(f"huggingface:{tmp_path}")
    else:
        pytest.importorskip("tensorflow_datasets")
        items = (export.ExportItem(f"{i:02}", png, None, i, 1) for i, png in enumerate(pngs))
        export.export_items(tmp_path / "items/1.0.0", items, "picture", "tfds", {}, n_items=N)
        other = open_source("tfds:items", data_dir=tmp_path)
    other.read(0)  # what is cached is left behind
    sent = copy.deepcopy(other)  # by the state that is sent to a worker
    if scheme == "huggingface":
        cloudpickle = pytest.importorskip("cloudpickle")  # by which Grain sends
        assert len(cloudpickle.dumps(other)) < sum(map(len, pngs))  # mapped anew, not copied
    assert [sent.read(i) for i in range(N)] == [other.read(i) for i in range(N)]
    red = [Image.open(io.BytesIO(sent.read(i).content)).getpixel((0, 0))[0] for i in range(N)]
    assert sorted(red) == list(range(N))
    for (large, _), ids in given(sent, n_steps=2):
        assert (large[:, 0, 0, 0, 0] == np.array(red)[ids]).all()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["folder", "parquet"])
def test_workers_give_the_same_bits(source, scheme, tmp_path):
    if scheme == "parquet":
        table = pa.table({"id": [f"{i:02}" for i in range(N)], "image": contents()})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
        source = open_source(f"parquet:{tmp_path}/a.parquet")
    whole = given(source, n_steps=10, batch_size=36)
    assert_same(given(source, n_steps=10, batch_size=36, num_workers=2), whole)
    rest = given(source, n_steps=10, batch_size=36, num_workers=3, first=7)
    assert_same(rest, whole[7:])


# Views on the device.


def test_views_are_ordered_by_crop(source):
    pytest.importorskip("grain")
    still = Augmentation(flip=0, brightness=0, contrast=0, saturation=0, gray=0)
    data = CropInput(source, RUN, CROPS, still, 5, 8)
    fed = next(data.fed(0))
    arrays = tuple(map(jnp.asarray, fed.arrays))
    batch = jax.jit(data.views, static_argnums=(4, 5))(
        (), arrays, fed.ids, jax.random.key(0), CROPS, still
    )
    assert [view.shape for view in batch.views] == [(16, 12, 12, 3), (24, 6, 6, 3)]
    for view, array in zip(batch.views, fed.arrays, strict=True):
        for n in range(array.shape[1]):
            wanted = augment.scale(jnp.asarray(array[:, n]))
            np.testing.assert_allclose(view[8 * n : 8 * n + 8], wanted, atol=1e-6)
    with pytest.raises(InputError, match="are not those that are made"):
        data.views((), arrays, fed.ids, jax.random.key(0), CROPS[:1], still)


def test_views_are_the_same_on_four_devices(source):
    pytest.importorskip("grain")
    data = CropInput(source, RUN, CROPS, Augmentation(blur=0.5), 5, 8)
    fed = next(data.fed(0))
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("rows"))

    def views(arrays, split):
        made = data.views((), arrays, fed.ids, jax.random.key(0), CROPS, Augmentation(blur=0.5))
        return jax.lax.with_sharding_constraint(made.views, rows) if split else made.views

    whole = jax.jit(lambda arrays: views(arrays, False))(fed.arrays)
    arrays = jax.device_put(fed.arrays, rows)
    split = jax.jit(lambda arrays: views(arrays, True)).lower(arrays).compile()
    for got, wanted in zip(split(arrays), whole, strict=True):
        assert got.sharding.is_equivalent_to(rows, 4)
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    text = split.as_text()
    # A device changes the colors of its own views alone: 16 / 4 and 24 / 4.
    assert "f32[4,12,12,3]" in text and "f32[16,12,12,3]" not in text
    assert "f32[6,6,6,3]" in text and "f32[24,6,6,3]" not in text


# Bad input.


@pytest.mark.parametrize("content", [b"no picture", contents()[0][:60]], ids=["other", "cut"])
def test_a_picture_that_cannot_be_decoded_is_named(content, tmp_path):
    for i, png in enumerate(contents()[:8]):
        (tmp_path / f"{i}.png").write_bytes(png)
    source = open_source(f"folder:{tmp_path}")
    (tmp_path / "5.png").write_bytes(content)
    words = r"^item '5.png' of folder:.* cannot be trained on: [^\n]*$"
    with pytest.raises(InputError, match=words):
        given(source, Run(np.arange(8), 0), n_steps=1)
    (tmp_path / "5.png").unlink()
    with pytest.raises(InputError, match=words):
        given(source, Run(np.arange(8), 0), n_steps=1)


@pytest.mark.slow
def test_a_worker_names_a_picture_that_cannot_be_decoded(tmp_path):
    for i, png in enumerate(contents()[:8]):
        (tmp_path / f"{i}.png").write_bytes(png)
    source = open_source(f"folder:{tmp_path}")
    (tmp_path / "5.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"^item '5.png' of folder:.* not a picture[^\n]*$"):
        given(source, Run(np.arange(8), 0), n_steps=1, num_workers=1)


def test_bad_arguments_are_named(source, tmp_path):
    pytest.importorskip("grain")
    assert given(source, first=5) == []  # after the last step
    with pytest.raises(InputError, match=r"first_step=6 must be within \[0, 5\]"):
        given(source, first=6)
    with pytest.raises(InputError, match="crops is empty"):
        given(source, crops=())
    with pytest.raises(InputError, match="num_workers=-1"):
        given(source, num_workers=-1)
    with pytest.raises(InputError, match=f"outside the {N}"):
        given(source, Run(np.arange(N + 1), 0))
    (tmp_path / "a.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="items of kind 'text', not pictures"):
        given(open_source(f"text:{tmp_path}/a.txt"), Run(np.arange(2), 0))


def test_too_little_shared_memory_is_told_before_workers_die(source, monkeypatch):
    pytest.importorskip("grain")
    monkeypatch.setattr(module, "_SHARED_MEMORY", ".")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(InputError, match=r"num_workers=2 needs .* MiB of \., which has 0 free"):
        given(source, num_workers=2)


def test_missing_grain_is_told_in_one_line(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(InputError, match=r"package grain: pip install 'jaxcurate\[grain\]'"):
        CropInput(source, RUN, CROPS, Augmentation(), 5, 8)
