"""Random settings, command lines, cards, locks and marks, and those that failed once."""

import copy
import json
from pathlib import Path

import pytest
from etils import epath
from faults import corpus, fuzz_artifacts, fuzz_settings
from faults.commands import CONFIG
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from jaxcurate import cli
from jaxcurate.artifacts import files, folders, lock, temporary
from jaxcurate.artifacts.owner import Owner
from jaxcurate.checks import InputError
from jaxcurate.config import Config
from jaxcurate.dataclass_fields import to_dataclass


def _paths(at, where=()):
    """Every field, those within others included."""
    for key, inner in at.items() if isinstance(at, dict) else enumerate(at):
        yield (*where, key)
        if isinstance(inner, dict | tuple | list):
            yield from _paths(inner, (*where, key))


def changed(path, value):
    """Right settings in which one field is another."""
    settings = at = copy.deepcopy(fuzz_settings.WHOLE)
    for key in path[:-1]:
        if isinstance(at[key], tuple):
            at[key] = list(at[key])
        at = at[key]
    at[path[-1]] = value
    return settings


PATHS = list(_paths(fuzz_settings.WHOLE))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.sampled_from(fuzz_settings.HOSTILE) | st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3)
)


@how(max_examples=80, deadline=None, database=None, derandomize=True)
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_any_value_of_any_field_is_right_or_refused(path, value):
    fuzz_settings.check(changed(path, value))


def test_many_fields_at_once():
    counts = fuzz_settings.run(200, 0)
    assert counts["accepted"] > 10 and counts["refused"] > 90


@pytest.mark.parametrize(
    ("field", "value"), corpus.SETTINGS, ids=lambda value: ascii(str(type(value)))
)
def test_settings_that_failed_once(field, value):
    path = tuple(field.split("."))
    with pytest.raises(InputError) as refused:
        to_dataclass(Config, changed(path, value), "config")
    line = str(refused.value)
    assert path[-1] in line and len(line) < 1000
    assert not any(ord(letter) < 32 for letter in line)


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_command_lines(place, capsys):
    counts = fuzz_settings.run_commands(place, 100, 0)
    assert counts[0] > 5 and counts[2] > 50


@pytest.mark.parametrize("flags", corpus.COMMANDS, ids=lambda flags: ascii(flags[0]))
def test_command_lines_that_failed_once(place, flags):
    assert fuzz_settings.check_command(place, list(flags)) == 2


def test_a_field_that_is_not_there_is_told_as_such(place, capsys):
    command = ["status", f"--config={place}/config.py:npy:x.npy", "--workdir=work"]
    assert cli.main([*command, "--config.cluster.n_cluster=3"]) == 2
    assert "n_cluster" in capsys.readouterr().err.splitlines()[-1].replace("n_clusters", "")


def test_cards_locks_and_marks():
    counts = fuzz_artifacts.run(150, 0)
    assert counts["accepted"] > 10 and counts["refused"] > 50


@pytest.mark.parametrize("target", corpus.TARGETS, ids=lambda target: ascii(target)[:20])
def test_a_mark_whose_target_is_no_name_is_none(tmp_path, target):
    gone = Owner.current()._replace(pid=2**22 + 1, started="1")
    name = f".jaxcurate-{'0' * 32}-{gone.pid}-1.tmp"
    mark = {"token": "0" * 32, "target": target, **gone._asdict()}
    assert not fuzz_artifacts.check_mark(tmp_path, name, json.dumps(mark).encode())


def test_what_is_nested_too_deeply_is_damaged(tmp_path):
    deep = "[" * 100_000
    (tmp_path / "card.json").write_text(deep)
    with pytest.raises(files.DamagedError, match="nested too deeply"):
        folders.read_card(tmp_path)
    (tmp_path / lock.NAME).write_text(deep)
    with lock.locked(epath.Path(tmp_path)):
        pass
    temporary.clean(epath.Path(tmp_path))
    assert [entry.name for entry in Path(tmp_path).iterdir()] == ["card.json"]
