"""The synthetic pool has the skew of its recipe, and no held-out item leaks into it."""

import gzip
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxcurate import sources
from jaxcurate.dataclass_fields import to_dataclass
from jaxcurate.sources import Domain, Jitter, Recipe, open_source, pictures, read_items
from jaxcurate.sources.synthetic import raw
from jaxcurate.sources.synthetic.holdout import group, hold_out
from jaxcurate.sources.synthetic.jitter import jitter
from jaxcurate.sources.synthetic.weblike import assemble, falling_sizes, prepare

N_FAKE = 400


@pytest.fixture(scope="module")
def data_dir():
    """Raw images that scripts/fetch downloaded."""
    path = Path(os.environ.get("JAXCURATE_DATA") or "data")
    if not all((path / "raw" / name / ".whole").exists() for name in raw.READERS):
        pytest.skip("run scripts/fetch")
    return path


@pytest.fixture(scope="module")
def web_like(data_dir):
    return assemble(sources.web_like(), data_dir / "raw")


def write_fake_fashion(folder: Path, seed: int = 0) -> None:
    """Fashion images of noise in the format of the files, every tenth of them twice."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(seed).integers(0, 256, (N_FAKE, 28, 28), np.uint8)
    images[1::10] = images[::10]
    labels = (np.arange(N_FAKE) // 10 % 4).astype(np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        for part, half in (("train", array[:-100]), ("t10k", array[-100:])):
            shape = np.array(half.shape, ">u4").tobytes()
            with gzip.open(folder / f"{part}-{name}-ubyte.gz", "wb") as file:
                file.write(bytes([0, 0, 8, half.ndim]) + shape + half.tobytes())
    (folder / ".whole").touch()


@pytest.fixture
def fake_data_dir(tmp_path):
    write_fake_fashion(tmp_path / "raw" / "fashion")
    return tmp_path


def fake_recipe(**fields):
    fields = {"n_originals": 40, "n_items": 100, "n_probe": 10, "n_test": 10} | fields
    return Recipe((Domain("web", "fashion", **fields),))


# --- recipes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [sources.web_like, sources.web_like_diverse, sources.fashion_longtail, sources.balanced],
)
def test_a_recipe_survives_plain_mappings(made):
    recipe = made(seed=3)
    assert to_dataclass(Recipe, recipe.to_dict(), "recipe") == recipe
    assert to_dataclass(Recipe, recipe.to_dict(), "recipe").digest == recipe.digest
    assert made(seed=4).digest != recipe.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sead": 1},
            "recipe.sead is unknown; did you mean seed\\? known are domains, seed, image_size",
        ),
        ({"seed": "1"}, "recipe.seed must be int, not '1'"),
        ({"seed": True}, "recipe.seed must be int, not True"),
        ({"domains": []}, "domains must not be empty"),
        ({"domains": "fashion"}, "recipe.domains must be a list, not 'fashion'"),
        ({"domains": [3]}, r"recipe.domains\[0\] must be a mapping, not 3"),
        ({"domains": [{"name": "x"}]}, r"recipe.domains\[0\].source is missing"),
        ({"size": 1}, r"recipe.domains\[0\].size is unknown"),
        ({"source": "cats"}, "domain 'x': source 'cats' is not one of"),
        ({"n_items": "9"}, r"domains\[0\].n_items must be int, not '9'"),
        ({"n_items": 2}, "domain 'x': n_items must be at least n_originals"),
        ({"imbalance": 0.5}, "domain 'x': imbalance must be at least 1"),
        ({"jitter": {"shaft": 1}}, r"domains\[0\].jitter.shaft is unknown"),
        ({"jitter": {"noise": -1}}, "jitter noise must not be negative"),
        ({"unclassed": "junk"}, r"domains\[0\].unclassed must be a list, not 'junk'"),
    ],
)
def test_a_wrong_field_is_named(change, message):
    domain = {"name": "x", "source": "digits", "n_originals": 3}
    fields = {"seed": 0, "domains": [domain]}
    whole = change.keys() & {"sead", "seed", "domains"}
    (fields if whole else domain).update(change)
    with pytest.raises(ValueError, match=message):
        to_dataclass(Recipe, fields, "recipe")


def test_two_domains_of_one_source_are_refused():
    with pytest.raises(ValueError, match="two domains have the same source"):
        Recipe((Domain("a", "digits", 1), Domain("b", "digits", 1)))


def test_class_sizes_fall_geometrically():
    assert falling_sizes(30, 3, 1.0).tolist() == [10, 10, 10]
    assert falling_sizes(111, 3, 100.0).tolist() == [100, 10, 1]
    sizes = falling_sizes(9_928, 10, 100.0)
    assert (sizes.sum(), sizes[0], sizes[-1]) == (9_928, 4_000, 40)


# --- jitter -----------------------------------------------------------------------------------


def test_no_jitter_changes_nothing():
    images = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(jitter(images, Jitter(), np.random.default_rng(1)), images)


def test_shift_moves_whole_pixels_and_repeats_the_edge():
    image = np.arange(25, dtype=np.uint8).reshape(1, 5, 5, 1).repeat(3, -1)
    moved = jitter(image.repeat(200, 0), Jitter(shift=1), np.random.default_rng(0))
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)), mode="edge")
    expected = {padded[y : y + 5, x : x + 5].tobytes() for y in range(3) for x in range(3)}
    assert {one.tobytes() for one in moved} == expected


def test_strengths_bound_the_change_and_gray_stays_gray():
    gray = np.random.default_rng(0).integers(60, 180, (300, 8, 8, 1)).astype(np.uint8)
    gray = gray.repeat(3, -1)
    changed = jitter(gray, Jitter(brightness=0.1, noise=0.01), np.random.default_rng(1))
    assert (changed == changed[..., :1]).all()
    factor = changed.mean((1, 2, 3)) / gray.mean((1, 2, 3))
    assert 0.89 < factor.min() < 0.92 and 1.08 < factor.max() < 1.11
    residual = changed - gray * factor[:, None, None, None]
    assert 2.3 < residual.std() < 2.8  # 255 x .01


# --- holding out ------------------------------------------------------------------------------


def test_groups_join_equal_pixels_and_equal_origins_and_what_these_join():
    pixels = np.array([1, 2, 1, 3, 4, 2], np.uint8)[:, None]
    origins = np.array(["a", "b", "c", "c", "d", "e"])
    # 0 and 2 by pixels, 2 and 3 by origin; 1 and 5 by pixels.
    assert group(pixels, origins).tolist() == [0, 1, 0, 0, 4, 1]


def test_long_chains_are_joined():
    n = 200
    order = np.random.default_rng(0).permutation(2 * n)
    pixels = (np.arange(2 * n) // 2).astype(np.uint8)[order][:, None]
    origins = ((np.arange(2 * n) + 1) // 2)[order]
    assert (group(pixels, origins) == 0).all()


def test_held_out_classes_are_balanced_and_small_ones_stay_in_the_pool():
    labels = np.repeat(["big", "fair", "small", "junk"], [300, 45, 15, 100])
    probe, test, rest = hold_out(
        np.arange(460), labels, 40, 20, unclassed=("junk",), rng=np.random.default_rng(0)
    )
    assert Counter(labels[probe].tolist()) == {"big": 40, "fair": 15}
    assert Counter(labels[test].tolist()) == {"big": 20, "fair": 15}
    assert sorted(np.concatenate([probe, test, rest])) == list(range(460))


def test_a_group_of_two_labels_is_never_held_out():
    labels = np.repeat(["a", "b"], 30)
    groups = np.arange(60)
    groups[30:40] = groups[:10]
    probe, test, rest = hold_out(groups, labels, 8, 8, rng=np.random.default_rng(0))
    held = np.concatenate([probe, test])
    assert Counter(labels[held].tolist()) == {"a": 16, "b": 16}
    assert not np.isin(held, np.r_[0:10, 30:40]).any()
    # The pool may have such a group, once.
    assert np.isin(np.arange(10), rest).all() and not np.isin(np.arange(30, 40), rest).any()


# --- the dataset, from made-up raw images -----------------------------------------------------


def test_no_group_and_no_pixels_are_in_two_splits(fake_data_dir):
    parts = assemble(fake_recipe(), fake_data_dir / "raw")
    sizes = {split: len(part.id) for split, part in parts.items()}
    assert sizes == {"train": 100, "probe": 40, "test": 40}
    for a, b in (("train", "probe"), ("train", "test"), ("probe", "test")):
        assert not set(parts[a].group) & set(parts[b].group)
        assert not {i.tobytes() for i in parts[a].image} & {i.tobytes() for i in parts[b].image}
    for part in (parts["probe"], parts["test"]):
        assert len(set(part.group)) == len(part.group)
        assert set(Counter(part.label.tolist()).values()) == {10}


def test_copies_are_dealt_evenly_and_named(fake_data_dir):
    pool = assemble(fake_recipe(), fake_data_dir / "raw")["train"]
    copies = Counter(pool.group.tolist())
    assert len(copies) == 40 and sorted(copies.values()) == [2] * 20 + [3] * 20
    assert len(set(pool.id)) == 100
    stems = {id.split("-copy")[0] for id in pool.id.tolist()}
    assert len(stems) == 40 and all(stem.startswith("web/0") for stem in stems)


def test_imbalance_shapes_the_classes(fake_data_dir):
    recipe = fake_recipe(n_originals=30, n_items=None, imbalance=8.0)
    pool = assemble(recipe, fake_data_dir / "raw")["train"]
    assert sorted(Counter(pool.label.tolist()).values()) == sorted(falling_sizes(30, 4, 8.0))


def test_a_recipe_that_asks_for_too_much_is_refused(fake_data_dir):
    with pytest.raises(ValueError, match="domain 'web': n_originals 1000 is more than the 280"):
        assemble(fake_recipe(n_originals=1000, n_items=None), fake_data_dir / "raw")
    with pytest.raises(ValueError, match=r"asks for \d+ of class '[a-z-]+', of which 70 are"):
        recipe = fake_recipe(n_originals=270, n_items=None, imbalance=2.0)
        assemble(recipe, fake_data_dir / "raw")


def test_the_seed_and_nothing_else_decides(fake_data_dir):
    def ids(seed):
        recipe = Recipe(fake_recipe(jitter=Jitter(noise=0.1)).domains, seed=seed)
        parts = assemble(recipe, fake_data_dir / "raw")
        return [array.tobytes() for part in parts.values() for array in part]

    assert ids(0) == ids(0)
    assert ids(0) != ids(1)


def test_missing_raw_images_name_the_script(tmp_path):
    with pytest.raises(ValueError, match=r"run scripts/fetch .* --only fashion"):
        prepare(fake_recipe(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_dataset_holds_what_was_assembled_and_is_built_once(fake_data_dir, capfd):
    recipe = fake_recipe(jitter=Jitter(shift=1, noise=0.02))
    expected = assemble(recipe, fake_data_dir / "raw")
    for split, part in expected.items():
        source = open_source("tfds:weblike", split=split, data_dir=fake_data_dir, recipe=recipe)
        (batch,) = read_items(
            source,
            prepare=lambda item: pictures.decode(item.content, recipe.image_size),
            batch_size=1000,
            n_threads=2,
        )
        order = np.argsort(batch.ids)
        reference = np.argsort(part.id)
        np.testing.assert_array_equal(batch.ids[order], part.id[reference])
        np.testing.assert_array_equal(np.stack(batch.contents)[order], part.image[reference])
        label, domain = source.annotations(batch.rows[order])
        np.testing.assert_array_equal(label, part.label[reference])
        np.testing.assert_array_equal(domain, part.domain[reference])
    folder = prepare(recipe, fake_data_dir)
    assert folder == fake_data_dir / "weblike" / recipe.digest / "1.0.0"
    assert source.name == f"tfds:weblike/{recipe.digest}/1.0.0:test"
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = open_source(f"tfds:weblike/{recipe.digest}", split="test", data_dir=fake_data_dir)
    assert again.fingerprint == source.fingerprint
    prepare(recipe, fake_data_dir)
    assert written == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert [path.name for path in fake_data_dir.iterdir() if path.name.startswith(".")] == []
    assert capfd.readouterr().out == ""


def test_a_damaged_dataset_is_built_again(fake_data_dir):
    recipe = fake_recipe()
    folder = prepare(recipe, fake_data_dir)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (damaged,) = folder.glob("*train*")
    os.truncate(damaged, 100)
    (folder / "dataset_info.json").unlink()
    assert prepare(recipe, fake_data_dir) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_only_weblike_takes_a_recipe(fake_data_dir):
    with pytest.raises(ValueError, match="tfds:mnist takes none"):
        open_source("tfds:mnist", data_dir=fake_data_dir, recipe=fake_recipe())


def test_other_raw_images_give_another_fingerprint(fake_data_dir):
    recipe = fake_recipe()
    before = open_source("tfds:weblike", data_dir=fake_data_dir, recipe=recipe)
    sizes = {path.name: path.stat().st_size for path in prepare(recipe, fake_data_dir).iterdir()}
    shutil.rmtree(prepare(recipe, fake_data_dir))
    write_fake_fashion(fake_data_dir / "raw" / "fashion", seed=1)
    after = open_source("tfds:weblike", data_dir=fake_data_dir, recipe=recipe)
    # The name and the sizes of the data's files are as before.
    written = {path.name: path.stat().st_size for path in prepare(recipe, fake_data_dir).iterdir()}
    assert (after.name, written) == (before.name, sizes)
    assert after.fingerprint != before.fingerprint


# --- scripts/fetch ----------------------------------------------------------------------------


def fetch(*arguments, **environment):
    script = Path(__file__).parents[3] / "scripts" / "fetch"
    return subprocess.run(
        ["bash", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=60,
    )


@pytest.fixture
def no_clients(tmp_path):
    """A PATH with the shell's common tools, and neither apt nor pip."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "dirname", "find", "mkdir", "mktemp", "rm", "sed"):
        (folder / tool).symlink_to(shutil.which(tool))
    return str(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--only", "cats"],
            "unknown name 'cats'; known are fashion digits clipart emoji minilm "
            "descriptions glyphs",
        ),
        (["--only"], "--only needs a list of names"),
        (["--all"], "unknown option '--all'"),
        (["a", "b"], "more than one DATA_DIR: 'a' and 'b'"),
        (["--only=fashion"], "'apt-get' is missing; it is needed to fetch fashion"),
        (["--only=digits"], "'pip' is missing; it is needed to fetch digits"),
    ],
)
def test_fetch_ends_with_one_line_and_code_2(tmp_path, no_clients, arguments, message):
    done = fetch(*arguments, PATH=no_clients, PYTHON="", JAXCURATE_DATA=str(tmp_path / "data"))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"fetch: error: {message}\n")
    assert not [path for path in tmp_path.rglob("data/**/*") if path.name != "raw"]


def test_fetch_leaves_alone_what_is_there(tmp_path, no_clients):
    for name in raw.READERS:
        (tmp_path / "raw" / name).mkdir(parents=True)
        (tmp_path / "raw" / name / ".whole").touch()
    done = fetch(tmp_path, PATH=no_clients)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("already in") == len(raw.READERS)


# --- the default pool, from the real raw images -----------------------------------------------


def test_raw_packages_have_the_sizes_they_are_known_for(data_dir):
    fashion = raw.read("fashion", data_dir / "raw")
    assert Counter(fashion.labels.tolist()) == dict.fromkeys(raw.FASHION_CLASSES, 7_000)
    digits = raw.read("digits", data_dir / "raw")
    assert Counter(digits.labels.tolist()) == {str(digit): 500 for digit in range(10)}
    assert digits.rgb(np.array([0, 3])).shape == (2, 32, 32, 3)
    clipart = raw.read("clipart", data_dir / "raw")
    assert len(clipart.keys) > 8_000 and len(set(clipart.labels)) == 22
    emoji = raw.read("emoji", data_dir / "raw")
    assert 1_200 < len(emoji.keys) < 1_600 and len(set(emoji.labels)) == 9
    assert emoji.labels[emoji.keys == "1f600"].tolist() == ["smileys-and-emotion"]
    for images in (clipart, emoji):
        assert images.pixels.shape[1:] == (32, 32, 3) and images.pixels.dtype == np.uint8
        assert len(set(images.keys)) == len(images.keys)
    # Emoji are drawn in color, each differently.
    assert len({image.tobytes() for image in emoji.pixels}) > 0.97 * len(emoji.pixels)
    assert (np.ptp(emoji.pixels, axis=-1).max((1, 2)) > 50).mean() > 0.9


def test_the_web_like_pool_has_a_crushing_head_and_a_thin_tail(web_like):
    pool = web_like["train"]
    assert pool.image.shape == (21_000, 32, 32, 3)
    counts = {"fashion": 20_000, "digits": 200, "clipart": 600, "emoji": 200}
    assert Counter(pool.domain.tolist()) == counts
    assert len(set(pool.id)) == 21_000
    head = pool.domain == "fashion"
    assert Counter(pool.group[head].tolist()).most_common()[-1][1] == 1_000
    originals = dict(zip(pool.group[head], pool.label[head], strict=True))
    assert Counter(originals.values()) == dict.fromkeys(set(originals.values()), 2)
    assert len(originals) == 20
    tail = pool.image[~head]
    assert len({image.tobytes() for image in tail}) == len(set(pool.group[~head])) == 1_000


def test_copies_of_the_head_are_nearer_to_their_own_than_to_others(web_like):
    pool = web_like["train"]
    head = np.flatnonzero(pool.domain == "fashion")[:2_000]  # the first hundred copies of each
    x = pool.image[head, ..., 0].reshape(2_000, -1).astype(np.float32)
    squares = (x**2).sum(1)
    distance = squares[:, None] + squares[None] - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(1)
    assert (pool.group[head][nearest] == pool.group[head]).mean() > 0.99
    assert len({image.tobytes() for image in pool.image[head]}) == 2_000


def test_what_is_held_out_of_the_real_pool_is_disjoint_and_labeled_alike(web_like):
    seen = {}
    for split, part in web_like.items():
        for key in [*set(part.group.tolist()), *{image.tobytes() for image in part.image}]:
            assert seen.setdefault(key, split) == split
    for split in ("probe", "test"):
        counts = Counter(web_like[split].label.tolist())
        assert min(counts.values()) >= 8 and max(counts.values()) == 40
        assert {label.split("/")[0] for label in counts} == {
            "fashion", "digits", "clipart", "emoji",
        }  # fmt: skip
        assert "clipart/unsorted" not in counts and len(counts) >= 40
    assert set(web_like["probe"].label) == set(web_like["test"].label)


def test_the_diverse_head_has_no_copies_and_the_same_tail(web_like, data_dir):
    diverse = assemble(sources.web_like_diverse(), data_dir / "raw")
    pool = diverse["train"]
    head = pool.domain == "fashion"
    sizes = Counter(pool.label[head].tolist())
    assert set(sizes.values()) == {2_000} and len(sizes) == 10
    distinct = {image.tobytes() for image in pool.image[head]}
    assert len(distinct) == len(set(pool.group[head])) == 20_000
    tail = web_like["train"].domain != "fashion"
    for field in ("id", "image", "label", "domain", "group"):
        of_tail = getattr(web_like["train"], field)[tail]
        np.testing.assert_array_equal(getattr(pool, field)[~head], of_tail)
        for split in ("probe", "test"):
            held_out = getattr(web_like[split], field)
            np.testing.assert_array_equal(getattr(diverse[split], field), held_out)


def test_the_longtail_recipe_has_no_copies(data_dir):
    pool = assemble(sources.fashion_longtail(), data_dir / "raw")["train"]
    sizes = sorted(Counter(pool.label.tolist()).values())
    assert (len(sizes), sizes[0], sizes[-1], sum(sizes)) == (10, 40, 4_000, 9_928)
    assert len({image.tobytes() for image in pool.image}) == len(set(pool.group)) == 9_928
