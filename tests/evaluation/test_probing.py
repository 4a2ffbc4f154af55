"""Measures of all probes: their names, parts and refusals."""

import numpy as np
import pytest

from jaxcurate.checks import InputError
from jaxcurate.evaluation import PROBES, Probe, label_frequency, macro_accuracy, probe_all, ridge
from jaxcurate.evaluation.frequency import frequency_parts
from jaxcurate.evaluation.probing import check_labels, check_probes

POOL = label_frequency(np.repeat(["a", "b", "c", "d"], [70, 20, 8, 2]))


@pytest.fixture(scope="module")
def sets():
    """Returns features, labels and domains of a probe set and of a test set."""
    rng = np.random.default_rng(0)
    names = np.array(["a", "b", "c", "d"])

    def split(n):
        y = np.concatenate([np.arange(4), rng.integers(0, 4, n - 4)])
        x = np.eye(4, 6)[y] * 1.5 + rng.normal(size=(n, 6))
        return x.astype(np.float32), names[y], np.array(["x", "y"])[rng.integers(0, 2, n)]

    return *split(120)[:2], *split(90)


def measured(sets, names, frequency=POOL, **options):
    train_x, train_labels, test_x, test_labels, domains = sets
    return probe_all(
        train_x, test_x, train_labels, test_labels, domains, frequency, names, **options
    )


def test_measures_are_means_over_parts_of_the_test_set(sets):
    train_x, train_labels, test_x, labels, domains = sets
    got = measured(sets, ["ridge"], per_class=True)
    predicted = ridge(train_x, train_labels, test_x)
    right = predicted == labels

    def macro(rows):
        return macro_accuracy(predicted[rows], labels[rows], domains[rows])

    assert got == {
        "ridge": macro(labels != ""),
        "ridge/x": macro(domains == "x"),
        "ridge/y": macro(domains == "y"),
        "ridge/head": macro(labels == "a"),
        "ridge/middle": macro(np.isin(labels, ["b", "c"])),
        "ridge/tail": macro(np.isin(labels, ["b", "c", "d"])),
        "ridge/micro": right.mean(),
        **{f"ridge/class/{label}": right[labels == label].mean() for label in "abcd"},
    }


def test_every_probe_has_the_same_measures(sets):
    got = measured(sets, list(PROBES))
    parts = ("", "/x", "/y", "/head", "/middle", "/tail", "/micro")
    expected = {f"{name}{part}" for name, probe in PROBES.items() for part in parts} - {
        f"rankme{part}" for part in parts[1:]
    }
    assert set(got) == expected
    assert all(0 <= value <= 1 for name, value in got.items() if name != "rankme")
    assert 1 < got["rankme"] <= 6
    for name in ("knn", "linear", "few_shot_10", "retrieval"):
        assert got[name] > 0.3  # chance is 0.25


def test_a_probe_is_added_by_one_line(sets, monkeypatch):
    constant = Probe(lambda task: np.full(len(task.test_x), 0.25), "constant")
    monkeypatch.setitem(PROBES, "constant", constant)
    got = measured(sets, ["constant"])
    assert got["constant"] == got["constant/head"] == got["constant/micro"] == 0.25


def test_shuffled_labels_leave_chance(sets):
    train_x, train_labels, test_x, labels, domains = sets
    shuffled = np.random.default_rng(1).permutation(train_labels)
    got = measured((train_x, shuffled, test_x, labels, domains), ["knn", "linear", "few_shot_5"])
    for name in ("knn", "linear", "few_shot_5"):
        assert got[name] < 0.45


def test_items_without_a_label_are_left_out(sets):
    train_x, train_labels, test_x, labels, domains = sets
    rows, test_rows = np.arange(len(train_x)) % 3 > 0, np.arange(len(test_x)) % 4 > 0
    partly = (
        train_x,
        np.where(rows, train_labels, ""),
        test_x,
        np.where(test_rows, labels, ""),
        domains,
    )
    kept = (
        train_x[rows],
        train_labels[rows],
        test_x[test_rows],
        labels[test_rows],
        domains[test_rows],
    )
    assert measured(partly, ["ridge"]) == measured(kept, ["ridge"])
    assert check_labels(partly[1], partly[3]) == [
        "the held-out items: 40 of 120 to fit probes to have no label and are left out",
        "the held-out items: 23 of 90 to test on have no label and are left out",
    ]


def test_labels_that_the_probe_set_lacks_count_as_wrong(sets):
    train_x, train_labels, test_x, labels, domains = sets
    kept = train_labels != "d"
    got = measured(
        (train_x[kept], train_labels[kept], test_x, labels, domains),
        ["knn", "linear", "few_shot_1", "retrieval"],
        per_class=True,
    )
    for name in ("knn", "linear", "few_shot_1", "retrieval"):
        assert got[f"{name}/class/d"] == 0 < got[f"{name}/class/a"]
    n = int((labels == "d").sum())
    (sentence,) = check_labels(train_labels[kept], labels)
    assert f"{n} of 90 to test on have a label that the probe set lacks, the first 'd'" in sentence


def test_features_alone_need_no_labels(sets):
    _, _, test_x, _, domains = sets
    none = np.full(len(test_x), "")
    got = probe_all(test_x, test_x, none, none, domains, {}, ["rankme"])
    assert list(got) == ["rankme"]
    with pytest.raises(InputError, match="none of 90 to fit probes to has a label"):
        probe_all(test_x, test_x, none, none, domains, {}, ["rankme", "knn"])


@pytest.mark.parametrize(
    "train, test, words",
    [
        ([""] * 3, ["a"], "none of 3 to fit probes to has a label"),
        (["a", "b"], ["", ""], "none of 2 to test on has a label"),
        (["a", "a", ""], ["a"], "all to fit probes to have the label 'a', and probes need two"),
        ([], ["a"], "there are none to fit probes to"),
        (["a", "b"], [], "there are none to test on"),
    ],
)
def test_bad_labels_are_refused_in_one_line(train, test, words):
    train, test = np.array(train, "U1"), np.array(test, "U1")
    features = np.ones((len(train), 2)), np.ones((len(test), 2))
    with pytest.raises(InputError, match=f"^the held-out items: {words}") as caught:
        probe_all(*features, train, test, test, {}, ["knn"])
    assert "\n" not in str(caught.value)


def test_bad_arguments_are_refused(sets):
    train_x, train_labels, test_x, labels, domains = sets
    with pytest.raises(InputError, match="probes='kn'; known: 'knn', 'ridge'"):
        measured(sets, ["kn"])
    with pytest.raises(InputError, match="probes is empty"):
        check_probes(())
    with pytest.raises(InputError, match="the test set differ in rows: 90, 90, 89"):
        measured((train_x, train_labels, test_x, labels, domains[1:]), ["knn"])
    named = np.where(domains == "x", "head", "y")
    with pytest.raises(InputError, match="a domain is named 'head'"):
        measured((train_x, train_labels, test_x, labels, named), ["knn"])


def test_head_and_tail_are_told_apart_by_the_average_label():
    known = np.array(["a", "b", "c", "d", "e"])
    parts = frequency_parts(POOL, known)
    assert parts["head"].tolist() == [True, False, False, False, False]
    assert parts["tail"].tolist() == [False, True, True, True, True]
    even = label_frequency(np.repeat(["a", "b", "c"], [10, 11, 12]))
    assert frequency_parts(even, known) == {} and frequency_parts({}, known) == {}
    assert frequency_parts({"": 5}, known) == {}


def test_the_middle_is_a_third_of_the_labels_of_the_pool():
    known = np.array([f"{i:02}" for i in range(12)])
    frequency = {label: 2 ** (9 - i) for i, label in enumerate(known[:9])}
    parts = frequency_parts(frequency, known)
    assert known[parts["middle"]].tolist() == ["03", "04", "05"]
    # Labels as frequent as each other share their place: 6 of 9 have the mean rank 6 of 9.
    tied = dict(zip(known[:9], [100, 90, 80, *[1] * 6], strict=True))
    assert not frequency_parts(tied, known)["middle"].any()
    wide = dict(zip(known[:9], [100, 100, *[5] * 5, 1, 1], strict=True))
    assert known[frequency_parts(wide, known)["middle"]].tolist() == known[2:7].tolist()
    # Rows without a label are no label of their own, though they are counted for the average.
    assert frequency_parts({"": 900, **frequency}, known)["middle"].tolist() == (
        parts["middle"].tolist()
    )
