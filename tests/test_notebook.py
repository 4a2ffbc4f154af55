"""The notebook is committed clean, runs top to bottom on a CPU, and shows what its text says."""

import json
import os
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from jaxcurate.sources.synthetic import raw

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "colab" / "quickstart.ipynb"
PICTURES = {
    *("rings-pool", "trees", "why", "rings-sample"),
    *("allocate", "images", "cluster", "sample", "balance"),
}
TELL = """
import json
print(json.dumps({
    "rings": {"pool": SIZES} | {name: found.tolist() for name, found in counts.items()},
    "centroids": {name: np.bincount(rings_of_clusters(tree), minlength=5).tolist()
                  for name, tree in trees.items()},
    "kl": {name: float(one) for name, one in kl.items()},
    "quota": quota.tolist(),
    "nested": [rows.tolist() for rows in nested],
    "domains": {name: domain[rows].tolist() for name, rows in picked.items()},
    "rows": {name: rows.tolist() for name, rows in picked.items()},
    "entropy": {name: one.entropy for name, one in balances.items()},
}))
"""


def read():
    return nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)


def cell_of(notebook, id):
    return next(cell for cell in notebook.cells if cell.id == id)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after a run in a fresh kernel, and what its variables hold."""
    data = Path(os.environ.get("JAXCURATE_DATA") or ROOT / "data").resolve()
    if not all((data / "raw" / name / ".whole").exists() for name in raw.READERS):
        pytest.skip("no raw images: run scripts/fetch")
    notebook = read()
    notebook.cells.append(nbformat.v4.new_code_cell(TELL, id="tell"))
    home = str(tmp_path_factory.mktemp("jupyter"))
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAXCURATE_DATA": str(data)}
    env |= {"IPYTHONDIR": home, "JUPYTER_RUNTIME_DIR": home}
    env.pop("JAX_NUM_CPU_DEVICES", None)  # the tests' four; a reader's machine has one
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=600, resources=where).execute(env=env)
    return notebook, json.loads(notebook.cells.pop().outputs[0].text)


@pytest.fixture(scope="module")
def told(executed):
    return executed[1]


# --- as committed -----------------------------------------------------------------------------


def test_it_is_committed_clean():
    notebook = read()
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        assert cell.metadata == {}, cell.id
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.id


def test_setup_installs_only_where_it_has_to(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands = []
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command))
    setup = cell_of(read(), "setup").source
    filled_in = setup.replace('REPOSITORY = ""', 'REPOSITORY = "https://example.org/it.git"')
    exec(filled_in, there := {})
    assert commands == [] and there["ROOT"] == Path("..")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="fill in REPOSITORY"):
        exec(setup, {})
    assert commands == []

    exec(filled_in, there := {})
    clone, install = commands
    assert clone[:2] == ["git", "clone"]
    assert clone[-2:] == ["https://example.org/it.git", there["ROOT"]]
    assert install[:4] == [sys.executable, "-m", "pip", "install"]
    assert install[-1] == f"./{there['ROOT']}"


# --- as executed ------------------------------------------------------------------------------


def test_every_picture_is_drawn_and_nothing_warns(executed):
    notebook, _ = executed
    drawn, warned = set(), {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                drawn.add(cell.id)
            if output.get("name") == "stderr":
                warned[cell.id] = output.text
    assert drawn == PICTURES
    assert warned == {}
    assert cell_of(notebook, "setup").outputs == []


def kl_to_uniform(counts):
    shares = np.array(counts) / sum(counts)
    return float(np.sum(shares * np.log(shares * len(shares))))


def test_the_rings_become_even(told):
    assert {sum(one) for name, one in told["rings"].items() if name != "pool"} == {1000}
    kl = {name: kl_to_uniform(counts) for name, counts in told["rings"].items()}
    assert kl["pool"] == pytest.approx(0.773, abs=0.001)
    assert kl["at random"] == pytest.approx(0.77, abs=0.06)
    assert kl["at random"] > kl["flat"] > kl["two levels"] > 2 * kl["two levels, resampled"]
    assert kl["two levels, resampled"] <= 0.035
    assert told["rings"]["two levels, resampled"][1] > 100, "the text: more than a tenth"
    assert told["kl"] == pytest.approx({name: kl[name] for name in told["kl"]})


@pytest.mark.parametrize(("name", "exponent"), [("flat", 1 / 2), ("two levels", 1 / 4)])
def test_centroids_follow_the_roots_of_the_density(told, name, exponent):
    expected = np.array(told["rings"]["pool"]) ** exponent
    expected *= 300 / expected.sum()
    assert sum(told["centroids"][name]) == 300
    np.testing.assert_allclose(told["centroids"][name], expected, atol=12)


def test_sampling_by_hand(told):
    assert told["quota"][:3] == [2, 5, 12] and sorted(told["quota"][3:]) == [20, 21]
    nested = [set(rows) for rows in told["nested"]]
    assert [len(rows) for rows in nested] == [100, 300, 1000, 3000]
    assert nested[0] < nested[1] < nested[2] < nested[3]


def normalized_entropy(names):
    _, counts = np.unique(names, return_counts=True)
    shares = counts / counts.sum()
    return float(-np.sum(shares * np.log(shares)) / np.log(4))  # the pool has four domains


def test_the_images_become_varied(told):
    assert {name: len(set(rows)) for name, rows in told["rows"].items()} == {
        "random": 500,
        "curated": 500,
    }
    entropy = {name: normalized_entropy(names) for name, names in told["domains"].items()}
    assert entropy["random"] < 0.3
    assert entropy["curated"] > 0.85
    assert told["entropy"] == pytest.approx(entropy | {"pool": 0.1707}, abs=1e-4)
