"""Filters compared with a plain Python loop, their files, and columns that cannot be compared."""

import dataclasses
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcurate as jc
from jaxcurate.artifacts.files import DamagedError
from jaxcurate.config import Config
from jaxcurate.curation import FilterConfig, Filtered, Rule, filter_rows, similarity_to
from jaxcurate.dataclass_fields import explained, placeholders, to_dataclass

numbers = st.one_of(st.integers(-5, 5), st.floats(-5, 5))
values = {
    "number": st.lists(st.one_of(numbers, st.none(), st.just(math.nan)), min_size=6, max_size=6),
    "text": st.lists(st.one_of(st.text("ab", max_size=3), st.none()), min_size=6, max_size=6),
}


@st.composite
def rules(draw):
    column = draw(st.sampled_from(sorted(values)))
    some = numbers if column == "number" else st.text("ab", max_size=3)
    low, high = draw(st.none() | some), draw(st.none() | some)
    if None not in (low, high) and low > high:
        low, high = high, low
    isin = draw(st.none() | st.lists(some, min_size=1, max_size=4).map(tuple))
    if low is high is isin is None:
        low = draw(some)
    return Rule(column, low, high, isin, draw(st.booleans()))


def loop(columns, rules):
    """The reason and the value of each row, one row and one rule at a time."""
    for i in range(6):
        reason = value = ""
        for rule in rules:
            value = columns[rule.column][i]
            if value is None or value != value:
                reason, value = "" if rule.keep_missing else f"{rule.column} missing", ""
            elif rule.min is not None and value < rule.min:
                reason = f"{rule.column} below {rule.min}"
            elif rule.max is not None and value > rule.max:
                reason = f"{rule.column} above {rule.max}"
            elif rule.isin is not None and value not in rule.isin:
                reason = rule.tests[-1]
            if reason:
                break
        yield reason, value


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries(values), st.lists(rules(), max_size=4))
def test_a_plain_loop_finds_the_same(columns, rules):
    arrays = {name: np.array(column, object) for name, column in columns.items()}
    filtered = filter_rows(arrays, rules)
    expected = list(loop(columns, rules))
    assert filtered.reason.tolist() == [reason for reason, _ in expected]
    assert filtered.kept.tolist() == [i for i in range(6) if not expected[i][0]]
    assert filtered.dropped.tolist() == [i for i in range(6) if expected[i][0]]
    for shown, i in zip(filtered.values.tolist(), filtered.dropped, strict=True):
        value = expected[i][1]
        assert shown == value if isinstance(value, str) else float(shown) == value
    assert sum(filtered.counts.values()) == 6 - len(filtered.kept)
    for reason, count in filtered.counts.items():
        assert count == sum(reason == other for other, _ in expected)


def test_each_type_of_column():
    def kept(column, **rule):
        return filter_rows({"c": np.asarray(column)}, [Rule("c", **rule)]).kept.tolist()

    assert kept(np.array([0.1, 0.2], np.float32), isin=(0.1,)) == [0]
    assert kept(np.array([0.1, 0.2], np.float32), max=0.1) == [0]
    assert kept(np.array([1, 2], np.float16), max=1e9) == [0, 1]
    assert kept(np.array([0, 255], np.uint8), min=-1, max=300) == [0, 1]
    assert kept(np.array([2**53, 2**53 + 1]), min=2**53 + 1) == [1]
    assert kept([True, False, True], max=0) == [1]
    assert kept(["2023-12-31", "2024-01-01"], min="2024") == [1]
    dates = np.array(["2023-12-31", "2024-01-01", "NaT"], "datetime64[s]")
    assert kept(dates, min="2024-01-01") == [1]
    assert kept(dates, isin=("2023-12-31",), keep_missing=True) == [0, 2]
    assert kept([math.nan, math.nan], min=0) == kept(np.array([None]), min="a") == []
    assert kept(np.zeros(0), min=0) == []


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Rule("side"), "rule on 'side': min, max or isin is needed"),
        (lambda: Rule("", min=1), "column='' must be"),
        (lambda: Rule("side", isin=()), r"isin=\(\) keeps no row"),
        (lambda: Rule("side", min=3, max=2), "min=3 is above max=2"),
        (lambda: Rule("side", min=3, max="4"), "both numbers and texts"),
        (lambda: Rule("side", min=math.nan), "min=nan must be"),
        (lambda: Rule("side", isin="ab"), "isin must be a tuple"),  # type: ignore[arg-type]
        (lambda: FilterConfig(min_wanted=0.5), "min_wanted is given without wanted"),
        (lambda: FilterConfig(unwanted="npy:x"), "unwanted is given without max_unwanted"),
        (lambda: FilterConfig(wanted="npy:x", min_wanted=2), "within"),
        (
            lambda: FilterConfig((Rule("wanted", min=0),), wanted="npy:x", min_wanted=0),
            "names a column 'wanted'",
        ),
    ],
)
def test_settings_that_cannot_be_meant(make, message):
    with pytest.raises(jc.InputError, match=message):
        make()


@pytest.mark.parametrize(
    "column, rule, message",
    [
        ([1, 2], Rule("sides", min=1), "no such column; nearest are side"),
        ([1, 2], Rule("zzz", min=1), "no such column; known are side"),
        ([1, 2], Rule("side", min="a"), "has numbers, but the rule has texts"),
        (["1", "2"], Rule("side", min=1), "has texts or dates, but the rule has numbers"),
        ([b"1"], Rule("side", min="1"), "which no rule can compare"),
        (np.array(["a", 1], object), Rule("side", min=1), "alone, not int, str"),
        ([[1, 2]], Rule("side", min=1), "has shape"),
        (np.array(["2024"], "M8[D]"), Rule("side", min="May"), "'May' is no date"),
    ],
)
def test_columns_that_cannot_be_compared(column, rule, message):
    with pytest.raises(jc.InputError, match=message):
        filter_rows({"side": np.asarray(column)}, [rule])


def test_columns_of_two_lengths():
    with pytest.raises(jc.InputError, match="of one length"):
        filter_rows({"a": np.zeros(2), "b": np.zeros(3)}, [])


def test_a_folder_holds_all(tmp_path):
    columns = {"side": np.array([9.5, 50, np.nan, 70]), "word": np.array(["a", "b", "a", "a"])}
    filtered = filter_rows(columns, [Rule("word", isin=("a", "c")), Rule("side", min=10, max=99)])
    filtered.save(tmp_path / "filter", np.array(["i", "j", "k", "l"]), {"pool": "x"})
    again = Filtered.load(tmp_path / "filter")
    for field in dataclasses.fields(Filtered):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(filtered, field.name))
    assert list(again.counts.values()) == [1, 0, 1, 0, 1]
    table = pq.read_table(tmp_path / "filter" / "dropped.parquet").to_pylist()
    assert table == [
        {"id": "i", "row": 0, "reason": "side below 10", "value": "9.5"},
        {"id": "j", "row": 1, "reason": "word not in ('a', 'c')", "value": "b"},
        {"id": "k", "row": 2, "reason": "side missing", "value": ""},
    ]
    (tmp_path / "filter" / "kept.npy").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"kept\.npy"):
        Filtered.load(tmp_path / "filter")


def test_a_folder_of_a_filter_that_dropped_nothing(tmp_path):
    filtered = filter_rows({"side": np.arange(3)}, [Rule("side", min=0)])
    filtered.save(tmp_path / "filter", np.array(["i", "j", "k"]))
    assert Filtered.load(tmp_path / "filter").reasons == ("side below 0", "side missing")
    with pytest.raises(jc.InputError, match="ids has 2 entries"):
        filtered.save(tmp_path / "other", np.array(["i", "j"]))


@pytest.mark.parametrize("n_examples", [1, 5, 37])
def test_similarities_against_float64(n_examples, devices, monkeypatch):
    monkeypatch.setattr("jaxcurate.curation.filters._ROWS_AT_ONCE", 64)
    rng = np.random.default_rng(0)
    rows, examples = rng.normal(size=(150, 6)), rng.normal(size=(n_examples, 6))
    rows[3] = 0
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    directions = examples / np.linalg.norm(examples, axis=1, keepdims=True)
    found = similarity_to(rows, examples, devices=devices)
    np.testing.assert_allclose(found, (unit @ directions.T).max(axis=1), atol=1e-6)


def test_settings_from_plain_values_and_in_words():
    plain = {"rules": [{"column": "side", "min": 64}, {"column": "date", "isin": ["a", "b"]}]}
    config = to_dataclass(FilterConfig, plain, "filter")
    assert config.rules == (Rule("side", min=64), Rule("date", isin=("a", "b")))
    assert isinstance(config.rules[0].min, int)
    with pytest.raises(jc.InputError, match=r"rules\[0\]\.min must be one of int, float, str"):
        to_dataclass(FilterConfig, {"rules": [{"column": "a", "min": [1]}]}, "filter")
    words = {field.path: field.kind for field in explained(Config)}
    assert words["filter.rules[0].min"] == "int or float or str or None"
    assert placeholders(config)["rules"][0]["min"] == 64
