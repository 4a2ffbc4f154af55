import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest

from jaxcurate.config import Clustering, Sampling, Settings, to_config
from jaxcurate.plain import to_dataclass
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
    settings = Settings(
        "tfds:weblike", Clustering((9, 3), (1, 1), (2, 2)), Sampling(5), recipe=recipe
    )
    assert to_dataclass(Settings, to_config(settings).to_dict(), "config") == settings
    assert dataclasses.asdict(settings)["cluster"]["n_splits"] == ()
