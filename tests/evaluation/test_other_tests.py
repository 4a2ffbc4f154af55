"""Probes on other labeled sources: their split by ids, and the names of their measures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcurate.checks import InputError
from jaxcurate.evaluation import probe_all, probe_other, split_by_id
from jaxcurate.evaluation.other_tests import parse_tests


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    seed=st.integers(0, 10**6),
    fraction=st.sampled_from([0.1, 0.5, 0.8]),
)
def test_a_split_depends_on_ids_and_labels_alone(counts, seed, fraction):
    labels = np.repeat([f"label {i}" for i in range(len(counts))], counts)
    ids = np.array([f"{i}.png" for i in range(len(labels))])
    fitted = split_by_id(ids, labels, fraction)
    for label, count in zip(np.unique(labels), counts, strict=True):
        assert fitted[labels == label].sum() == max(1, int(np.ceil(fraction * count - 1e-9)))
    order = np.random.default_rng(seed).permutation(len(labels))
    np.testing.assert_array_equal(split_by_id(ids[order], labels[order], fraction), fitted[order])


def test_another_source_is_measured_like_the_held_out_splits():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 80)
    x = (np.eye(3, 5)[y] + rng.normal(size=(80, 5))).astype(np.float32)
    labels, domains, ids = np.array(["a", "b", "c"])[y], np.full(80, ""), np.arange(80)
    fitted = split_by_id(ids, labels)
    expected = probe_all(
        x[fitted], x[~fitted], labels[fitted], labels[~fitted], domains[~fitted], {}, ["ridge"]
    )
    got = probe_other("pets", x, labels, domains, ids, {}, ["ridge"])
    assert got == {
        "ridge@pets": expected["ridge"],
        "ridge@pets/micro": expected["ridge/micro"],
    }


def test_a_source_without_labels_is_named():
    x, none = np.ones((4, 2)), np.full(4, "")
    with pytest.raises(InputError, match="extra_tests, pets: the held-out items: none of 2"):
        probe_other("pets", x, none, none, np.arange(4), {})
    with pytest.raises(InputError, match="3 ids and 4 labels"):
        split_by_id(np.arange(3), none)
    with pytest.raises(InputError, match="fraction=1"):
        split_by_id(np.arange(4), none, 1)
    with pytest.raises(InputError, match="'b' is there twice"):
        split_by_id(np.array(["a", "b", "b"]), none[:3])


@pytest.mark.parametrize(
    "entries, words",
    [
        (["cars"], "'cars' is not NAME=SOURCE"),
        (["=x"], "'=x' is not NAME=SOURCE"),
        (["a/b=x"], "must be of letters"),
        (["a=x", "a=y"], "'a' is the name of two sources"),
    ],
)
def test_bad_entries_are_refused(entries, words):
    with pytest.raises(InputError, match=words):
        parse_tests(entries)


def test_a_source_may_hold_an_equals_sign():
    assert parse_tests(("a=hf:x?config=y", "b=z")) == {"a": "hf:x?config=y", "b": "z"}
