"""Rows that cannot be used are skipped and listed, or refused if settings are strict."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from jaxcurate.checks import InputError
from jaxcurate.config import ClusterConfig, Config, SampleConfig
from jaxcurate.curation.level import Level
from jaxcurate.encoders import EmbedConfig
from jaxcurate.encoders.pca import fit_pca
from jaxcurate.pipeline import embedding
from jaxcurate.pipeline import items as items_module
from jaxcurate.pipeline.embed import _counts
from jaxcurate.pipeline.items import Items
from jaxcurate.pipeline.training_items import read_held_out, squared
from jaxcurate.runtime.devices import ONE_DEVICE
from jaxcurate.runtime.progress import Progress
from jaxcurate.sources import open_source, pictures, read_items
from jaxcurate.sources.usable import NO_DIRECTION, NOT_FINITE, unusable_rows


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)


def save(path, x):
    np.save(path, x)
    return f"npy:{path}"


def embedded(source, metric="euclidean", **fields):
    fields = {"embed": EmbedConfig(batch_size=8), **fields}
    settings = Config(source, ClusterConfig((Level(2),), metric=metric), SampleConfig(2), **fields)
    items = Items(settings, Progress(quiet=True))
    blocks = items.embedded("embedding", items.source, source)
    return list(blocks), blocks


def test_reasons_tell_rows_apart():
    rows = np.array([[1, 2], [np.nan, 0], [0, 0], [-np.inf, 1], [-0.0, 0.0]], np.float32)
    assert unusable_rows(rows) == {1: NOT_FINITE, 3: NOT_FINITE}
    assert unusable_rows(rows, need_direction=True) == {
        1: NOT_FINITE, 2: NO_DIRECTION, 3: NOT_FINITE, 4: NO_DIRECTION,
    }  # fmt: skip
    assert unusable_rows(np.zeros((3, 4, 4, 3), np.uint8), need_direction=True) == {}


def test_reasons_are_counted_without_their_numbers():
    reasons = [NOT_FINITE, "9 x 8 pixels are too many", "7 x 6 pixels are too many"]
    assert _counts(reasons) == {"N x N pixels are too many": 2, NOT_FINITE: 1}


def test_rows_without_numbers_are_listed_and_batches_stay_full(tmp_path, x):
    bad = [0, 7, 8, 9, 10, 11, 12, 13, 14, 15, 39]
    x[bad, np.arange(len(bad)) % 3] = np.tile([np.nan, np.inf, -np.inf, np.nan], 3)[: len(bad)]
    progress = []
    reading = read_items(
        open_source(save(tmp_path / "x.npy", x)), batch_size=8, progress=progress.append
    )
    batches = list(reading)
    good = np.setdiff1d(np.arange(40), bad)
    assert [len(batch.rows) for batch in batches] == [8, 8, 8, 5]
    np.testing.assert_array_equal(np.concatenate([batch.rows for batch in batches]), good)
    np.testing.assert_array_equal(np.concatenate([batch.contents for batch in batches]), x[good])
    assert [int(id) for batch in batches for id in batch.ids] == good.tolist()
    assert [tuple(row) for row in reading.unreadable] == [(r, str(r), NOT_FINITE) for r in bad]
    assert sum(progress) == 40


def test_numbers_beyond_float32_are_listed(tmp_path, x):
    x = x.astype(np.float64)
    x[3, 1] = 1e39
    reading = read_items(open_source(save(tmp_path / "x.npy", x)), batch_size=64)
    assert len(next(iter(reading)).rows) == 39
    assert [(row.id, row.reason) for row in reading.unreadable] == [("3", NOT_FINITE)]


def test_strict_reading_names_the_first(tmp_path, x):
    x[[5, 9]] = np.nan
    source = open_source(save(tmp_path / "x.npy", x))
    with pytest.raises(InputError, match=r"item '5' of npy:.* cannot be used: has a NaN"):
        list(read_items(source, batch_size=4, strict=True))
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"item 'broken\.png' of folder:.*strict=False"):
        decode = lambda item: pictures.decode(item.content, 4)
        source = open_source(f"folder:{tmp_path}")
        list(read_items(source, prepare=decode, batch_size=4, strict=True))


def test_rows_of_zeros_are_left_out_by_cosine_only(tmp_path, x):
    x[[4, 30]] = 0
    x[6] = np.nan
    source = save(tmp_path / "x.npy", x)
    blocks, told = embedded(source)
    assert sum(len(block.ids) for block in blocks) == told.n_items == 39
    assert told.unreadable == [["6", NOT_FINITE]]
    assert told.n_zeros == 2
    blocks, told = embedded(source, "cosine")
    assert told.n_items == 37
    assert told.unreadable == [
        ["4", f"its embedding {NO_DIRECTION}"],
        ["6", NOT_FINITE],
        ["30", f"its embedding {NO_DIRECTION}"],
    ]
    assert told.n_zeros == 2
    x[6] = 1
    with pytest.raises(InputError, match=r"item '4' of .* its embedding has no direction"):
        embedded(save(tmp_path / "x.npy", x), "cosine", strict=True)


def test_clean_rows_are_what_they_were(tmp_path, x):
    blocks, told = embedded(save(tmp_path / "x.npy", x), "cosine")
    np.testing.assert_array_equal(np.concatenate([block.embeddings for block in blocks]), x)
    assert (told.unreadable, told.n_zeros) == ([], 0)


def test_embeddings_that_an_encoder_spoils_are_left_out(tmp_path, x, monkeypatch):
    def spoilt(encoder, items, **_):
        return np.where(items[:, :1] > 0, items, np.nan)

    monkeypatch.setattr(embedding.encoders, "embed", spoilt)
    _, told = embedded(save(tmp_path / "x.npy", x))
    assert told.n_items == (x[:, 0] > 0).sum()
    assert {reason for _, reason in told.unreadable} == {f"its embedding {NOT_FINITE}"}


def test_nothing_usable_is_said_in_one_line(tmp_path):
    source = save(tmp_path / "x.npy", np.zeros((5, 2), np.float32))
    with pytest.raises(InputError, match="no item that can be used; the first, '0': its embedding"):
        embedded(source, "cosine")
    source = save(tmp_path / "x.npy", np.full((5, 2), np.nan, np.float32))
    with pytest.raises(InputError, match="no item that can be used; the first, '0': has a NaN"):
        embedded(source)
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(InputError, match="has no item that can be used"):
        read_held_out(open_source(f"folder:{tmp_path}"), squared(8))


def test_what_was_skipped_is_listed_with_what_was_not_read(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("nowhere")
    (tmp_path / "c.png").write_bytes(b"")
    _, told = embedded(f"folder:{tmp_path}", embed=EmbedConfig("pixels"))
    assert told.n_items == 1
    assert told.unreadable == [
        ["b.png", "No such file or directory"],
        ["c.png", "not a picture of a known format"],
    ]


def test_held_out_items_that_are_left_out_are_counted(tmp_path):
    for i in range(5):
        Image.new("RGB", (4, 4), (i, i, i)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"")
    lines = []
    held = read_held_out(open_source(f"folder:{tmp_path}"), squared(8), tell=lines.append)
    assert held.items.shape == (4, 8, 8, 3) and len(held.labels) == 4
    (line,) = lines
    assert "1 held-out item(s)" in line and "'3.png'" in line


@pytest.mark.parametrize("size", [8, 32])
def test_pca_of_equal_pictures_is_zero(size):
    pictures = np.full((12, size, size, 3), 77, np.uint8)
    fitted = fit_pca([pictures], 64)
    np.testing.assert_allclose(fitted.components @ fitted.components.T, np.eye(12), atol=1e-6)
    centered = pictures.reshape(12, -1) / 255 - fitted.mean
    np.testing.assert_allclose(centered @ fitted.components.T, 0, atol=1e-5)


def test_too_many_columns_for_pca_are_refused_by_name_at_once(tmp_path, x):
    levels, sampling = ClusterConfig((Level(2),)), SampleConfig(2)
    with pytest.raises(
        InputError,
        match=r"embed\.resolution=224 gives the encoder pca .*config\.embed\.resolution=52",
    ):
        Config("folder:x", levels, sampling, embed=EmbedConfig("pca", resolution=224))
    for embed in (
        EmbedConfig("pca", resolution=52),
        EmbedConfig("pixels", resolution=224),
        EmbedConfig(resolution=224),
    ):
        Config("folder:x", levels, sampling, embed=embed)


def test_batches_are_bounded_by_bytes(monkeypatch, tmp_path, x):
    from jaxcurate.encoders import base

    sizes = []

    def encode(images, params):
        sizes.append(len(images))
        return images.reshape(len(images), -1).astype(np.float32)

    items = np.arange(4 * 10, dtype=np.uint8).reshape(10, 2, 2)
    encoder = base.Encoder(encode, (), ("picture",), bytes_per_item=base._BYTES_AT_ONCE // 4)
    out = base.embed(encoder, items, batch_size=8, devices=ONE_DEVICE)
    np.testing.assert_array_equal(out, items.reshape(10, 4))
    assert set(sizes) == {4}
    monkeypatch.setattr(items_module, "_BYTES_AT_ONCE", 30_000)
    source = open_source(save(tmp_path / "x.npy", x))
    items = Items(Config(source.name, ClusterConfig((Level(2),)), SampleConfig(2)), Progress(True))
    assert items._most_at_once(source) == 30_000 // (4 * x.shape[1])
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    folder = open_source(f"folder:{tmp_path}")
    for side, most in ((100, 1), (50, 4)):
        settings = dataclasses.replace(items.settings, embed=EmbedConfig(resolution=side))
        assert Items(settings, Progress(True))._most_at_once(folder) == most
