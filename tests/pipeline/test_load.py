"""A subset gives its items from the source, to loops of Grain and PyTorch as the page says."""

import copy
import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

import jaxcurate as jc
from jaxcurate import export
from jaxcurate.checks import InputError
from jaxcurate.pipeline.load import load_subset
from jaxcurate.sources import open_source

PAGE = Path(jc.__file__).parent / "export/README.md"
DRAWN = np.array([0, 2, 2, 5])


def work_directory(tmp_path: Path, source: str, **settings) -> Path:
    """A work directory, as stages write it, whose pool leaves out the first item of the source."""
    work = tmp_path / "work"
    opened = open_source(source, leave_out=work)
    ids = [opened.read(position).id for position in range(1, len(opened))]
    pool = jc.make_pool(np.eye(len(ids)), np.array(ids), np.arange(1, len(opened)))
    pool.save(work / "pool", {"made_from": {"source": opened.fingerprint}})
    tree = jc.ClusterTree.from_labels([np.arange(len(ids)) // 2, np.zeros(4, int)])
    export.save_subset(work / "subsets/curated", DRAWN, pool, tree, {})
    config = {"source": source, "split": "train", "data_dir": None, "recipe": None, **settings}
    (work / "config.json").write_text(json.dumps(config))
    return work


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(9):
        file = io.BytesIO()
        Image.new("RGB", (4, 4), (i, i, i)).save(file, "PNG" if i % 2 else "JPEG")
        (folder / f"{i}.img").write_bytes(file.getvalue())
    return folder


@pytest.fixture
def work(tmp_path, pictures):
    return work_directory(tmp_path, f"folder:{pictures}")


def test_items_are_those_of_the_subset(work, pictures):
    items = load_subset(work)
    assert items.ids.tolist() == ["1.img", "3.img", "3.img", "6.img"]
    assert items.rows.tolist() == DRAWN.tolist() and len(items) == 4
    assert items.counts.tolist() == [1, 2, 2, 1]
    assert items.clusters["cluster_l1"].tolist() == [0, 1, 1, 2]
    assert list(items.clusters) == ["cluster_l1", "cluster_l2"]
    for id, content in (items[i] for i in range(len(items))):
        assert content == (pictures / id).read_bytes()
    assert items[-1].id == "6.img"
    with pytest.raises(IndexError):
        items[4]
    assert [item.id for item in items] == items.ids.tolist()


def test_the_source_is_opened_late_and_again_by_a_copy(work):
    """A copy is made from the state that a worker process is sent."""
    items = load_subset(work)
    assert not items._opened
    first = items[0]
    sent = copy.copy(items)
    assert not any(isinstance(key, int) for key in sent._opened)
    assert sent[0] == first and sent.source is not items.source
    assert repr(sent) == repr(items) and str(len(items)) in repr(items)


def test_a_forked_process_opens_the_source_anew(work, monkeypatch):
    items = load_subset(work)
    parent = items.source
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert items.source is not parent and items.source is items.source
    assert items[0].id == "1.img"


def test_vectors_are_read_as_well(tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    items = load_subset(work_directory(tmp_path, f"npy:{tmp_path}/x.npy"))
    np.testing.assert_array_equal(np.stack([item.content for item in items]), x[1 + DRAWN])
    assert items[0].content.dtype == np.float16


def test_a_source_that_has_changed_is_refused(work, pictures):
    items = load_subset(work)
    (pictures / "0.img").unlink()
    with pytest.raises(InputError, match="has changed since the pool was made"):
        items[0]
    # Without the fingerprint of a source, the id of each item tells.
    card = json.loads((work / "pool/card.json").read_text())
    assert card["made_from"]["source"]
    object.__setattr__(items, "made_from", None)
    with pytest.raises(InputError, match=r"has item '2.img' in the place of '1.img'"):
        items[0]


def test_what_is_no_subset_is_refused(work):
    with pytest.raises(InputError, match=r"subsets/other/card\.json is missing"):
        load_subset(work, "other")
    (work / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        load_subset(work)
    (work / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_subset(work)


def example(heading: str) -> str:
    """Code of the page below a heading."""
    return re.search(rf"## {heading}\n.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]


def test_the_example_of_grain_runs(work, monkeypatch):
    pytest.importorskip("grain")
    monkeypatch.chdir(work.parent)
    variables = {}
    exec(example("Grain"), variables)
    contents = Counter(variables["dataset"])
    items = load_subset(work)
    assert contents == Counter(item.content for item in items)


@pytest.mark.slow
def test_workers_of_grain_read_the_items(work):
    grain = pytest.importorskip("grain")
    dataset = grain.MapDataset.source(load_subset(work)).to_iter_dataset()
    dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=2))
    flags.FLAGS.mark_as_parsed()  # workers pass their flags on
    try:
        assert sorted(item.id for item in dataset) == ["1.img", "3.img", "3.img", "6.img"]
    finally:
        flags.FLAGS.unparse_flags()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_example_of_pytorch_runs(work, monkeypatch):
    pytest.importorskip("torch.utils.data")
    monkeypatch.chdir(work.parent)
    variables = {}
    exec(example("PyTorch"), variables)
    drawn = [item for batch in variables["loader"] for item in batch]
    items = load_subset(work)
    assert Counter(drawn) == Counter(iter(items))


def test_links_make_the_folder_of_the_page(work, pictures):
    items, source = load_subset(work), open_source(f"folder:{pictures}")
    rows, first = np.unique(items.rows, return_index=True)
    linked = (
        export.ExportItem(
            str(items.ids[i]), None, source.path(int(items.positions[i])), int(items.rows[i]),
            int(items.counts[i]), {name: labels[i] for name, labels in items.clusters.items()},
        )
        for i in first
    )  # fmt: skip
    out = work / "exports/curated"
    export.export_items(out, linked, "picture", "link", {}, n_items=len(rows))
    names = sorted(path.name for path in out.iterdir() if path.is_symlink())
    assert names == ["1.img%.png", "3.img%.png", "6.img%.jpg"]
    assert (out / "3.img%.png").read_bytes() == (pictures / "3.img").read_bytes()
