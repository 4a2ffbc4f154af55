"""The notebooks are committed clean, run top to bottom on a CPU, and show what their text says."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement

from jaxcurate.sources.synthetic import raw

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ("quickstart", "your_data", "curated_vs_random")
LESS = {
    "imports": {"ROUNDS = 10": "ROUNDS = 3"},
    "images": {
        "read_items(source, ": "read_items(source, range(0, len(source), 2), ",
        "decode(item.content, 32)": "decode(item.content, 16)",
    },
    "balance": {"range(len(source))": "range(0, len(source), 2)"},
    "cluster": {"n_resamples=ROUNDS, n_per_cluster=10": "n_resamples=1, n_per_cluster=10"},
}
"""Replacements that save time in the quickstart. What its text says holds with them as well."""
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


def read(name):
    return nbformat.read(ROOT / "colab" / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def cell_of(notebook, id):
    return next(cell for cell in notebook.cells if cell.id == id)


def replaced(source, replacements):
    """Returns the source of a cell with other values of its parameters."""
    for old, new in replacements.items():
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def data_with(names):
    """Returns the folder of the raw images; a test that needs them is skipped without them."""
    data = Path(os.environ.get("JAXCURATE_DATA") or ROOT / "data").resolve()
    if not all((data / "raw" / name / ".whole").exists() for name in names):
        pytest.skip("no raw images: run scripts/fetch")
    return data


def execute(notebook, folder, data, home):
    """Runs a notebook in a fresh kernel, in a folder from which no file of the repository is seen.

    Code that XLA compiled is shared with the other tests (`tests/conftest.py`).
    """
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAXCURATE_DATA": str(data)}
    env |= {"IPYTHONDIR": str(home), "JUPYTER_RUNTIME_DIR": str(home), "PYTHONPATH": str(ROOT)}
    env.pop("JAX_NUM_CPU_DEVICES", None)  # the tests' four; a reader's machine has one
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, resources=where).execute(env=env)


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def drawn(notebook):
    return {
        cell.id
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    }


def warned(notebook):
    return {
        cell.id: output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
    }


@pytest.fixture(
    scope="module",
    params=[LESS, pytest.param({}, marks=pytest.mark.slow)],
    ids=["less", "as it is"],
)
def executed(request, tmp_path_factory):
    """The quickstart after a run in a fresh kernel, and what its variables hold."""
    data = data_with(raw.READERS)
    notebook = read("quickstart")
    for id, replacements in request.param.items():
        cell = cell_of(notebook, id)
        cell.source = replaced(cell.source, replacements)
    notebook.cells.append(nbformat.v4.new_code_cell(TELL, id="tell"))
    execute(notebook, tmp_path_factory.mktemp("here"), data, tmp_path_factory.mktemp("jupyter"))
    return notebook, json.loads(notebook.cells.pop().outputs[0].text)


@pytest.fixture(scope="module")
def told(executed):
    return executed[1]


# --- as committed -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_committed_clean(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        assert cell.metadata == {}, cell.id
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.id


# --- the cell that installs -------------------------------------------------------------------

ADDRESS = "https://example.org/it.git"
NEWEST = {"numpy": "2.5.5", "jax": "0.10.2", "jaxlib": "0.10.2", "flax": "0.12.8"}


def setup(address=ADDRESS):
    source = cell_of(read("quickstart"), "setup").source
    return replaced(source, {'REPOSITORY = ""': f'REPOSITORY = "{address}"'})


class Machine:
    """Machine with some installed packages, and a pip that would like to have the newest ones."""

    def __init__(self, installed, fails=False):
        self.installed, self.fails = dict(installed), fails
        self.commands, self.pins = [], None

    def run(self, command, capture_output, text):
        self.commands.append(command)
        self.pins = set(Path(command[command.index("-c") + 1]).read_text().split())
        if self.fails:
            return SimpleNamespace(returncode=1, stderr="ERROR: no network")
        pinned = {pin.partition("==")[0] for pin in self.pins}
        self.installed |= {k: v for k, v in NEWEST.items() if k not in pinned}
        self.installed["jaxcurate"] = "0.1.0"
        return SimpleNamespace(returncode=0, stderr="")

    def kernel(self, imported):
        """Returns a function that runs the cell in a kernel that has imported some packages."""
        variables = {}

        def run_cell(source=None):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("subprocess.run", self.run)
                patch.setattr("importlib.util.find_spec", self.installed.get)
                patch.setattr("importlib.metadata.version", lambda name: self.installed[name])
                patch.setattr(
                    "importlib.metadata.packages_distributions",
                    lambda: {name: [name] for name in self.installed},
                )
                patch.setattr("sys.modules", dict.fromkeys(imported))
                exec(setup() if source is None else source, variables)

        return run_cell


def test_all_begin_with_the_same_cell():
    for name in NOTEBOOKS:
        assert cell_of(read("quickstart"), "setup") == cell_of(read(name), "setup")
        code = [cell.id for cell in read(name).cells if cell.cell_type == "code"]
        assert code[0] == "setup"


def test_floors_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = {one.name: str(one.specifier) for one in map(Requirement, project["dependencies"])}
    floors["jaxlib"] = floors["jax"]
    variables = {}
    exec(next(line for line in setup().splitlines() if line.startswith("NEEDED")), variables)
    assert variables["NEEDED"] == {
        name: floors[name] for name in ("numpy", "jax", "jaxlib", "flax")
    }


@pytest.mark.parametrize(
    ("installed", "imported", "pins", "replaced"),
    [
        # Colab: an older numpy is imported, and jax is too old.
        ({"numpy": "2.0.2", "jax": "0.7.2", "jaxlib": "0.7.2"}, ["numpy"], {"numpy==2.0.2"}, []),
        ({"numpy": "2.0.2"}, ["numpy", "os"], {"numpy==2.0.2"}, []),
        (
            {"numpy": "2.0.2", "jax": "0.10.0", "jaxlib": "0.10.0", "flax": "0.12.1"},
            ["numpy", "jax", "jaxlib", "flax"],
            {"numpy==2.0.2", "jax==0.10.0", "jaxlib==0.10.0", "flax==0.12.1"},
            [],
        ),
        ({"numpy": "1.26.4"}, ["numpy"], set(), ["numpy"]),
        ({"numpy": "1.26.4"}, [], set(), []),
        (
            {"numpy": "2.0.2", "jax": "0.9.9", "jaxlib": "0.9.9"},
            ["numpy", "jax", "jaxlib"],
            {"numpy==2.0.2"},
            ["jax", "jaxlib"],
        ),
        ({}, [], set(), []),
    ],
)
def test_what_is_new_enough_stays(installed, imported, pins, replaced):
    machine = Machine(installed)
    run_cell = machine.kernel(imported)
    if replaced:
        with pytest.raises(SystemExit, match=f"^Restart now .*: {', '.join(replaced)} had been"):
            run_cell()
        # Without a restart, it is said again.
        with pytest.raises(SystemExit, match=r"^Restart now"):
            run_cell()
    else:
        run_cell()
        run_cell()
    assert machine.pins == pins
    (command,) = machine.commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-1] == f"jaxcurate[demo] @ git+{ADDRESS}"
    assert {f"{name}=={machine.installed[name]}" for name in machine.installed} >= pins
    # After a restart nothing is left to do, and the address is not needed any more.
    machine.kernel([*imported, "jax"])(setup(""))
    assert len(machine.commands) == 1


def test_it_says_what_is_missing():
    with pytest.raises(ValueError, match="fill in REPOSITORY"):
        Machine({}).kernel(())(setup(""))
    with pytest.raises(RuntimeError, match="no network"):
        Machine({}, fails=True).kernel(())()


IN_A_KERNEL = """
import json, {imported}
from importlib import metadata
before = numpy.__version__
{setup}
{imports}
{choose}
print(json.dumps([before, metadata.version("numpy"), len(source), SIZE]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("jax", [None, "0.7.2"])
def test_a_real_older_numpy_stays(tmp_path, jax):
    """Installs the package beside numpy 2.0.2, which the kernel has imported, as on Colab.

    A jax that is too old is replaced, and the cell says so if it has been imported.
    """
    data, python = data_with(["clipart"]), tmp_path / "venv" / "bin" / "python"
    # Before Python 3.13, which numpy 2.0.2 has no wheel for.
    if sys.version_info >= (3, 13):
        pytest.skip("numpy 2.0.2 is older than this Python")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    # A pip that takes the address of a local repository, as that of Colab does.
    packages = ["pip>=24.1", "numpy==2.0.2", "packaging", *([f"jax[cpu]=={jax}"] if jax else [])]
    pip = [python, "-m", "pip", "install", "--quiet", *packages]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip(f"no network: pip cannot install {packages}")
    env = os.environ | {"JAXCURATE_DATA": str(data), "MPLBACKEND": "agg"}
    env.pop("PYTHONPATH", None)

    def kernel(address, imported="numpy"):
        cells = {"setup": setup(address), "imported": imported}
        cells["imports"] = cell_of(read("quickstart"), "imports").source
        cells["choose"] = cell_of(read("your_data"), "choose").source
        done = subprocess.run(
            [python, "-W", "error", "-c", IN_A_KERNEL.format(**cells)],
            capture_output=True,
            text=True,
            env=env,
            cwd=tmp_path,
        )
        if done.returncode:
            return done.stderr.splitlines()[-1]
        return json.loads(done.stdout.splitlines()[-1])

    expected = ["2.0.2", "2.0.2", 8121, 500]
    if jax:
        told = kernel(f"file://{ROOT}", "numpy, jax")
        assert told.startswith("Restart now") and "jax" in told and "numpy" not in told
    else:
        assert kernel(f"file://{ROOT}") == expected
    assert kernel("") == expected  # after a restart
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 4)))
    run = ["-m", "jaxcurate", "run", "--config=auto:x.npy,50", "--workdir=run"]
    subprocess.run([python, *run], check=True, env=env, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "run" / "report.html").exists()


# --- the quickstart, as executed --------------------------------------------------------------


def test_every_picture_is_drawn_and_nothing_warns(executed):
    notebook, _ = executed
    assert drawn(notebook) == PICTURES
    assert warned(notebook) == {}
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
    pool = told["entropy"].pop("pool")
    assert pool == pytest.approx(0.1707, abs=0.01)  # exactly so of all the images
    assert told["entropy"] == pytest.approx(entropy, abs=1e-4)


# --- your data, as executed -------------------------------------------------------------------

FAKE_COLAB = """
import types

files = types.SimpleNamespace(download=lambda path: print("sent", path))
colab = types.SimpleNamespace(files=files)
sys.modules["google.colab"] = colab
sys.modules.setdefault("google", types.ModuleType("google")).colab = colab
"""


@pytest.fixture(scope="module")
def own_data(tmp_path_factory):
    """The other notebook after a run with pictures, and once more with vectors in the same kernel.

    Returns the notebook, the folder of the pictures, the vectors, and the folder that it ran in.
    """
    data, folder = data_with(["clipart"]), tmp_path_factory.mktemp("elsewhere")
    (pictures := folder / "pictures").mkdir()
    small = [
        path
        for path in sorted((data / "raw" / "clipart" / "png").glob("*/*.png"))
        if not path.is_symlink() and path.stat().st_size < 20_000
    ]
    for i, path in enumerate(small[:: len(small) // 210][:210]):
        (pictures / f"{i % 3}").mkdir(exist_ok=True)
        shutil.copy(path, pictures / f"{i % 3}" / f"{i:03}.png")
    vectors = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    np.save(folder / "x.npy", vectors)

    notebook = read("your_data")
    smaller = {"{FORMAT}": "{FORMAT} --config.embed.resolution=64"}
    again = {"choose": {}, "run": {}, "load": {}, "look": {}, "balance": {}, "download": {}}
    for id in again:
        cell = cell_of(notebook, id)
        later = nbformat.v4.new_code_cell(cell.source, id=f"{id}-vectors")
        if id == "choose":
            sizes = {"SIZE = 500": "SIZE = 40"}
            cell.source = replaced(cell.source, sizes | {'SOURCE = ""': 'SOURCE = "pictures"'})
            sizes |= {'"runs/your_data"': '"runs/vectors"', 'SOURCE = ""': 'SOURCE = "x.npy"'}
            later.source = replaced(later.source, sizes)
        if id == "run":
            cell.source = replaced(cell.source, smaller)
        if id == "download":
            cell.source = FAKE_COLAB + cell.source
            later.source = replaced(later.source, {'"curated.zip", "w"': '"vectors.zip", "w"'})
        notebook.cells.append(later)
    execute(notebook, folder, data, tmp_path_factory.mktemp("jupyter"))
    return notebook, pictures, vectors, folder


def test_pictures_are_shown_and_nothing_warns(own_data):
    notebook, *_ = own_data
    shown = {"look", "balance"}
    assert drawn(notebook) == shown | {f"{id}-vectors" for id in shown}
    assert warned(notebook) == {}
    assert cell_of(notebook, "setup").outputs == []
    assert "pictures: 210 pictures, 40 of them wanted" in printed(cell_of(notebook, "choose"))
    assert printed(cell_of(notebook, "load")).startswith("40 of 210 kept, from ")
    assert "400 vectors, 40 of them wanted" in printed(cell_of(notebook, "choose-vectors"))
    assert printed(cell_of(notebook, "load-vectors")).startswith("40 of 400 kept, from ")


def test_the_download_holds_the_curated_pictures(own_data):
    notebook, pictures, _, folder = own_data
    assert "sent curated.zip" in printed(cell_of(notebook, "download"))
    with zipfile.ZipFile(folder / "curated.zip") as archive:
        names = archive.namelist()
        assert {"report.html", "curated/card.json"} < set(names)
        copies = [name for name in names if name.endswith(".png")]
        assert len(copies) == 40
        for name in copies:
            original = pictures.joinpath(*Path(name).parts[-2:])
            assert archive.read(name) == original.read_bytes()


def test_the_download_holds_the_curated_vectors(own_data):
    *_, vectors, folder = own_data
    with zipfile.ZipFile(folder / "vectors.zip") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/items.npy"))
        kept = np.load(archive.open(name))
    assert kept.shape == (40, 5)
    assert {row.tobytes() for row in kept} <= {row.tobytes() for row in vectors}


def test_the_example_is_found_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXCURATE_DATA", str(data_with(["clipart"])))
    exec(cell_of(read("your_data"), "choose").source, variables := {})
    assert (len(variables["source"]), variables["source"].kind) == (8121, "picture")


def test_a_dataset_is_opened_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXCURATE_DATA", str(data_with(raw.READERS)))
    choose = cell_of(read("your_data"), "choose").source
    exec(replaced(choose, {'SOURCE = ""': 'SOURCE = "tfds:weblike"'}), variables := {})
    assert (len(variables["source"]), variables["source"].kind) == (21_000, "picture")


def test_a_run_that_fails_stops_the_notebook():
    last = cell_of(read("your_data"), "run").source.splitlines()[-2:]
    with pytest.raises(SystemExit, match="The run failed"):
        exec("\n".join(last), {"_exit_code": 2})


# --- curated against random, as executed ------------------------------------------------------

SMALL = {
    "choose": {"SEEDS = 5": "SEEDS = 2", "STEPS = 300": "STEPS = 3"},
    "run": {
        "--config=weblike": "--config=weblike --config.split=test --config.sample.size=100 "
        "--config.embed.n_components=16 '--config.cluster.levels[0].n_clusters=60' "
        "'--config.cluster.levels[1].n_clusters=12' '--config.cluster.levels[0].n_resamples=1' "
        "'--config.cluster.levels[1].n_resamples=0' --config.evaluate.pretraining.batch_size=16 "
        "--config.evaluate.pretraining.model.depth=1 --config.evaluate.pretraining.model.width=16 "
        "--config.evaluate.pretraining.model.n_heads=1"
    },
    "look": {
        "data_dir=DATA, ": 'data_dir=DATA, split="test", ',
        "500, replace": "100, replace",
    },
}
"""Replacements with which the comparison takes seconds: held-out images stand for the pool."""


def test_the_comparison_is_drawn_and_told(tmp_path_factory):
    data, notebook = data_with(raw.READERS), read("curated_vs_random")
    for id, replacements in SMALL.items():
        cell = cell_of(notebook, id)
        cell.source = replaced(cell.source, replacements)
    folder = tmp_path_factory.mktemp("compared")
    execute(notebook, folder, data, tmp_path_factory.mktemp("jupyter"))
    assert drawn(notebook) == {"look", "losses", "compare"}
    assert warned(notebook) == {}
    results = json.loads(next(folder.rglob("results.json")).read_text())
    found = results["differences"]["curated - random"]["knn"]
    said = printed(cell_of(notebook, "compare"))
    assert said.startswith(f"curated - random: {found['mean']:+.3f}, 95 % interval")
    assert said.strip().endswith("over 2 seeds: no difference shown") or found["low"] > 0
    assert np.load(next(folder.rglob("losses_curated.npy"))).shape == (2, 3)
