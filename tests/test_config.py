from dataclasses import dataclass
from typing import Literal

import pytest
from ml_collections import ConfigDict

import jaxcurate as jc
from jaxcurate import Level, encoders, evaluation, export, sources
from jaxcurate.config import (
    ClusterConfig,
    Config,
    EmbedConfig,
    EvaluateConfig,
    ExportConfig,
    SampleConfig,
    to_config,
)
from jaxcurate.dataclass_fields import explained, kind_of, may_be_none, to_dataclass
from jaxcurate.encoders import Encoder
from jaxcurate.evaluation import Arm, draws
from jaxcurate.sources import fashion_longtail, web_like


@dataclass(frozen=True)
class Inner:
    x: float = 1.0
    kind: Literal["a", "b"] = "a"

    def __post_init__(self):
        if self.x < 0:
            raise ValueError(f"x={self.x} is negative")


@dataclass(frozen=True)
class Outer:
    n: int
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    pair: tuple[int, str] = (1, "x")
    perhaps: int | None = None
    flag: bool = False


def test_nested_mappings_become_dataclasses():
    made = to_dataclass(
        Outer,
        {"n": 3, "inner": {"x": 2}, "many": [{"kind": "b"}], "pair": [5, "y"], "perhaps": None},
        "config",
    )
    assert made == Outer(3, Inner(2.0), (Inner(kind="b"),), (5, "y"))
    assert isinstance(made.inner.x, float)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"config\.n is missing"),
        ({"n": 1, "m": 2}, r"config\.m is unknown; known are n, inner, many"),
        ({"n": "1"}, r"config\.n must be int, not '1'"),
        ({"n": True}, r"config\.n must be int, not True"),
        ({"n": 1.5}, r"config\.n must be int"),
        ({"n": 1, "flag": 1}, r"config\.flag must be bool"),
        ({"n": 1, "inner": {"y": 1}}, r"config\.inner\.y is unknown"),
        ({"n": 1, "inner": 7}, r"config\.inner must be a mapping, not 7"),
        ({"n": 1, "inner": {"x": -1}}, r"config\.inner: x=-1\.0 is negative"),
        ({"n": 1, "inner": {"kind": "c"}}, r"config\.inner\.kind='c'; known: 'a', 'b'"),
        ({"n": 1, "many": [{}, {"x": "z"}]}, r"config\.many\[1\]\.x must be float"),
        ({"n": 1, "many": "abc"}, r"config\.many must be a list"),
        ({"n": 1, "pair": [1]}, r"config\.pair must have 2 entries, not 1"),
        ({"n": 1, "perhaps": "x"}, r"config\.perhaps must be int"),
    ],
)
def test_errors_name_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        to_dataclass(Outer, fields, "config")


@pytest.mark.parametrize("recipe", [None, web_like(3), fashion_longtail()])
def test_settings_survive_a_config(recipe):
    settings = Config(
        "tfds:weblike",
        ClusterConfig((Level(9, 1, 2), Level(3, 1, 2))),
        SampleConfig(5),
        recipe=recipe,
    )
    assert to_dataclass(Config, to_config(settings).to_dict(), "config") == settings


def test_none_waits_for_a_value_of_its_type():
    config = to_config(Config("npy:x.npy", ClusterConfig((Level(9),)), SampleConfig(5)))
    config.n_devices, config.platform, config.cluster.levels[0].n_fit = 2, "cpu", 20
    made = to_dataclass(Config, config.to_dict(), "config")
    assert (made.n_devices, made.platform, made.memory_limit) == (2, "cpu", None)
    assert made.cluster.levels == (Level(9, n_fit=20),)
    with pytest.raises(TypeError):
        config.n_devices = "two"


def test_fields_are_found_by_their_path():
    assert kind_of(Config, "cluster.levels[1].n_clusters", "config") is int
    assert may_be_none(kind_of(Config, "dedup.threshold", "config"))
    assert not may_be_none(kind_of(Config, "seed", "config"))
    for path, message in {
        "cluster.levels.n": r"config\.cluster\.levels has no field n",
        "seed.x": r"config\.seed has no field x",
        "sampel.size": r"config\.sampel is unknown; did you mean sample\? known are",
        "cluster.n_splits": r"write config\.cluster\.levels\[0\]\.n_splits=",
    }.items():
        with pytest.raises(jc.InputError, match=message):
            kind_of(Config, path, "config")


def test_a_table_is_where_names_are_known_from(tmp_path, monkeypatch):
    """Adding an encoder, a format, an arm or a source is one line."""
    cluster, sample = ClusterConfig((Level(2),)), SampleConfig(1)
    encoder = Encoder(lambda images, params: images, (), ("picture",))
    for table, made, take in (
        (encoders.ENCODERS, lambda *_: encoder, lambda: EmbedConfig("new")),
        (export.FORMATS, lambda *_: None, lambda: ExportConfig("new")),
        (evaluation.ARMS, Arm(draws.pool, "all"), lambda: EvaluateConfig(("new",))),
    ):
        with pytest.raises(jc.InputError, match="'new'"):
            take()
        with monkeypatch.context() as patched:
            patched.setitem(table, "new", made)
            assert Config("new:x", cluster, sample, **{_field_of(take()): take()})
            assert any("new" in field.kind for field in explained(Config))
    with pytest.raises(jc.InputError, match="source 'new:x' is not one of folder"):
        sources.open_source("new:x")
    opened = []
    monkeypatch.setitem(sources.SCHEMES, "new", lambda *given: opened.append(given))
    sources.open_source("new:x", id_key="name")
    assert opened[0][0] == "x" and opened[0][1].id_key == "name"
    monkeypatch.setitem(encoders.ENCODERS, "new", lambda *_: encoder)
    assert encoders.make_encoder(EmbedConfig("new"), list, None) is encoder


def _field_of(config):
    names = {"EmbedConfig": "embed", "ExportConfig": "export", "EvaluateConfig": "evaluate"}
    return names[type(config).__name__]


def test_a_recipe_can_be_given_whole():
    config = to_config(Config("tfds:weblike", ClusterConfig((Level(9),)), SampleConfig(5)))
    config.recipe = ConfigDict({"domains": ({"name": "a", "source": "digits", "n_originals": 3},)})
    made = to_dataclass(Config, config.to_dict(), "config")
    assert made.recipe == sources.Recipe((sources.Domain("a", "digits", 3),))
