"""Proposed levels, and the configurations that publish or propose levels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcurate import Level, cli
from jaxcurate.config import Config
from jaxcurate.curation.suggest_levels import propose_levels
from jaxcurate.dataclass_fields import to_dataclass

CONFIGS = Path(__file__).parents[2] / "configs"


def settings_of(argument):
    fields = cli._parsed(["jaxcurate", "run", f"--config={CONFIGS}/{argument}", "--workdir=w"])[1]
    return to_dataclass(Config, fields, "config")


def test_published_settings_are_proposed():
    web = propose_levels(743_000_000, 100_000_000)
    assert web.levels == settings_of("published/web_4levels.py").cluster.levels
    assert web.levels == (
        Level(100_000, n_splits=100),
        Level(500_000, 10, 10),
        Level(50_000, 10, 5),
        Level(10_000, 10, 3),
    )
    small = propose_levels(100_000, 20_000)
    assert small.levels == settings_of("small_2levels.py").cluster.levels
    assert small.levels == (Level(5000, 10, 10), Level(1000, 10, 3))


def test_published_numbers_of_clusters_of_five_levels():
    levels = settings_of("published/dinov3_5levels.py").cluster.levels
    totals = [level.n_clusters * level.n_splits for level in levels]
    assert totals == [200_000_000, 8_000_000, 800_000, 100_000, 25_000]
    proposed = propose_levels(17 * 10**9, 10**9).levels
    totals = [level.n_clusters * level.n_splits for level in proposed]
    assert totals[:2] == [200_000_000, 8_000_000] and len(totals) == 5


@given(st.integers(200, 10**11), st.floats(0, 1))
def test_what_is_proposed_can_be_clustered(n, share):
    size = max(1, int(n * share))
    levels, reasons = propose_levels(n, size)
    below = n
    for level in levels:
        total = level.n_clusters * level.n_splits
        assert 1 <= total <= below / 2
        assert not level.resampled or level.n_clusters * level.n_per_cluster < below
        below = total
    assert len(reasons) > len(levels) and all(0 < len(line) < 200 for line in reasons)


def test_a_small_target_gets_a_small_top():
    levels, reasons = propose_levels(1_000_000, 400)
    assert levels[-1].n_clusters == 100
    assert any("instead" in line and "400" in line for line in reasons)


def test_pools_too_large_for_one_kmeans_are_split():
    levels, reasons = propose_levels(10**9, 10**8)
    assert levels[0].n_splits == 100 and not levels[0].resampled
    assert any("each split into 100" in line for line in reasons)
    assert all(level.n_splits == 1 for level in propose_levels(10**7, 10**6).levels)


@pytest.mark.parametrize(
    ("n", "size", "message"),
    [(199, 10, "n=199"), (1000, 0, "size=0"), (1000, 1001, "size=1001 must be within 1 and")],
)
def test_bad_numbers_are_named(n, size, message):
    with pytest.raises(ValueError, match=message):
        propose_levels(n, size)


def test_auto_prints_its_reasons_and_runs(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    config = f"--config={CONFIGS}/auto.py:{tmp_path}/x.npy,40"
    assert cli.main(["sample", config, f"--workdir={tmp_path}/work"]) == 2  # nothing embedded yet
    said = capsys.readouterr().err
    for line in propose_levels(400, 40).reasons:
        assert line in said
    assert cli.main(["run", config, f"--workdir={tmp_path}/work", "--quiet"]) == 0
    taken = np.load(tmp_path / "work/subsets/curated/indices.npy")
    assert len(np.unique(taken)) == 40


@pytest.mark.parametrize("argument", ["auto.py", "auto.py:x.npy", "auto.py:x.npy,many"])
def test_auto_needs_a_file_and_a_number(argument):
    with pytest.raises(ValueError, match=r"must be auto:SOURCE,SIZE"):
        settings_of(argument)


@pytest.mark.parametrize("name", sorted(p.name for p in CONFIGS.glob("*.py") if p.stem != "auto"))
def test_every_config_is_whole_and_explains_itself(name):
    assert settings_of(name).sample.size > 0
    header = (CONFIGS / name).read_text().split('"""')[1]
    text = " ".join(header.split())
    stem = name.removesuffix(".py")
    assert any(f"jaxcurate run --config={known}" in text for known in (f"configs/{name}", stem))
