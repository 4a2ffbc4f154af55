"""The page of the report is well-formed, self-contained and true to any findings."""

import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxcurate.artifacts.pool import make_pool
from jaxcurate.artifacts.tree import ClusterTree
from jaxcurate.evaluation.intervals import count_comparisons, paired_differences
from jaxcurate.report import Findings, render

VOID = {"meta", "link", "img", "br", "hr", "input", "col", "source", "wbr"}
HOSTILE = '<script>alert("1")</script>&amp;'
TEXT = f"{HOSTILE} two\nlines, \u202e\x00 and {'words ' * 500}"
MADE_FROM = "feedc0de12345678"


class Page(HTMLParser):
    """Parsed page whose tags must be balanced: its text, its tables and its links."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.attributes, self.texts = [], [], [], []
        self.rows = []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.texts).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            return
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


EVEN = {"counts": {"cats": 10, "dogs": 10}, "entropy": 1.0, "gini": 0.0}


def interval(values, half):
    mean = float(np.mean(values))
    return {"mean": mean, "low": mean - half, "high": mean + half, "values": list(values)}


def results_of(n_seeds, reach, shift=0.05):
    """Returns results of three arms and two probes, one of which has parts as well."""
    base = np.linspace(0.30, 0.32, n_seeds)
    accuracies = {
        arm: {m: (base + step).tolist() for m in ("knn", "knn/cats", "knn/head", "ridge")}
        for arm, step in (("curated", shift), ("random", 0.0), ("untrained", -0.1))
    }
    pairs = (("curated", "random"), ("curated", "untrained"), ("random", "untrained"))
    differences = {
        f"{a} - {b}": {
            m: interval(np.subtract(accuracies[a][m], accuracies[b][m]), reach)
            for m in accuracies[a]
        }
        for a, b in pairs
    }
    skewed = {"counts": {"cats": 90, HOSTILE: 10}, "entropy": 0.46899, "gini": 0.4}
    even = {"counts": {"cats": 10, HOSTILE: 10}, "entropy": 1.0, "gini": 0.0}
    balance = {"domain": {"curated": even, "random": skewed, "pool": skewed}}
    return {"balance": balance, "accuracies": accuracies, "differences": differences}


@pytest.fixture(scope="module")
def findings():
    """A pool of 100 images, six clusters in four with one empty at each level, and 20 kept rows."""
    rng = np.random.default_rng(0)
    n = 100
    labels = np.repeat([0, 1, 2, 4, 5], [60, 20, 10, 6, 4])
    tree = ClusterTree.from_labels([labels, np.array([0, 0, 1, 1, 3, 3])])
    ids = np.array([f"item-{i}" for i in range(n)], dtype="<U60")
    ids[:60] = [f"{HOSTILE}{i}" for i in range(60)]
    images = rng.integers(0, 256, (n, 8, 8, 3), np.uint8)
    card = {
        "stage": "embed",
        "seconds": 12.3,
        "devices": "4 x cpu",
        "mapper": "shard_map",
        "versions": {"jax": "9.8.7"},
        "made_from": {"source": "0a1b2c3d", "embed": {"encoder": "pca"}},
        "files": {"ids.npy": {"bytes": 1234, "sha256": "ab" * 32}},
    }
    level = {"level": 1, "n_clusters": 5, "empty": 0.4, "entropy": 0.61234, "gini": 0.25}
    covered = {"mean": 12.3456, "error": 0.0123, "largest": 98765.4, "n_measured": 100}
    measures = {
        "curated": {
            "levels": [level, {**level, "level": 2, "n_clusters": 3, "empty": 0, "gini": 0.125}],
            "coverage": covered,
        },
        "random": {
            "levels": [{**level, "entropy": 0.5}, {**level, "level": 2, "n_clusters": 3}],
            "coverage": {**covered, "mean": 23.4567},
        },
    }
    unreadable = [[f"broken-{i}{HOSTILE}", "truncated"] for i in range(70)]
    return Findings(
        title=f"Cats {HOSTILE}",
        source=f"folder:{HOSTILE}",
        kind="picture",
        made_from=MADE_FROM,
        settings={"source": HOSTILE, "seed": 7, "cluster": {"n_clusters": [6, 4]}},
        cards={
            "embed": {
                **card,
                "unreadable": unreadable,
                "left_out": {"too small": 12, HOSTILE: 70, "empty": 0},
            },
            "sample": {**card, "shortfall": 13, "measures": measures},
        },
        pool=make_pool(rng.normal(size=(n, 5)), ids),
        tree=tree,
        indices=np.arange(0, n, 5),
        contents=lambda rows: list(images[rows]),
        links=lambda rows: [f"/data/{ids[row]}" if row % 2 else None for row in rows],
        results=results_of(3, 0.01),
        losses={arm: rng.random((3, 700), np.float32) for arm in ("curated", "random")},
    )


def five_arms():
    """Returns results with two more arms."""
    results = results_of(3, 0.01)
    more = {"flat": 0.02, "stratified": 0.01}
    random = results["accuracies"]["random"]
    for arm, step in more.items():
        results["accuracies"][arm] = {m: [v + step for v in values] for m, values in random.items()}
        results["balance"]["domain"][arm] = {
            "counts": {"cats": 15, HOSTILE: 5}, "entropy": 0.81234, "gini": 0.25
        }  # fmt: skip
        results["differences"][f"curated - {arm}"] = {
            m: interval([0.05 - step] * 3, 0.01) for m in random
        }
    return results


def corrected_results():
    """Returns results as the comparison writes them, with a subset from elsewhere and RankMe."""
    rng = np.random.default_rng(0)
    measures = ("knn", "knn/cats", "knn/micro", "rankme", "knn@cars", "knn@cars/micro")
    shift = {"curated": 1.0, "random": 0.9, "theirs": 0.99, "untrained": 0.5}
    accuracies = {
        arm: {m: (shift[arm] * (0.5 + 0.02 * rng.random(4))).tolist() for m in measures}
        for arm in shift
    }
    differences = paired_differences(accuracies)
    return {
        "balance": {"label": dict.fromkeys(("pool", "random", "curated", "theirs"), EVEN)},
        "accuracies": accuracies,
        "differences": {
            pair: {m: dataclasses.asdict(interval) for m, interval in by_measure.items()}
            for pair, by_measure in differences.items()
        },
        "comparisons": count_comparisons(differences),
        "budget": "epochs",
        "arms": {
            arm: {"rows": rows, "steps": 10 * rows, "images": 320 * rows, "epochs": 320.0}
            for arm, rows in (("curated", 20), ("random", 20), ("theirs", 1234))
        },
    }


def mixed_and_deduplicated(cards):
    made_from = {"embed": "0a1b", "dedup": {"threshold": 0.95, "content": "items"}}
    dedup = {**cards["embed"], "made_from": made_from, "kept": 70, "same": 25, "near": 5}
    dedup |= {"rule": "cover", "largest_group": {"row": 4, "n_others": 9}}
    dedup |= {"lowest_similarity": 0.9512}
    why = {"curated": 10, "retrieved": 4, "raw": 6}
    return {**cards, "sample": {**cards["sample"], "why": why}, "dedup": dedup}


def variants(name, findings):
    """Returns the findings with a part missing or degenerate."""
    one_seed = json.loads(json.dumps(results_of(1, math.inf)))  # as the pipeline reads it
    n = len(findings.pool)
    flat = ClusterTree.from_labels([np.zeros(n, np.int32)])
    return {
        "whole": findings,
        "no evaluation": findings._replace(results=None, losses={}),
        "balance only": findings._replace(
            results={"balance": findings.results["balance"]}, losses={}
        ),
        "no labels": findings._replace(results={**findings.results, "balance": {}}),
        "texts": findings._replace(kind="text", contents=lambda rows: [TEXT] * len(rows)),
        "vectors": findings._replace(kind="vector", contents=lambda rows: [None] * len(rows)),
        "filtered": findings._replace(
            cards={**findings.cards, "filter": {"dropped": {"width": 3, HOSTILE: 1}}}
        ),
        "no title": findings._replace(title=""),
        "one seed": findings._replace(
            results=one_seed, losses={arm: curve[:1] for arm, curve in findings.losses.items()}
        ),
        "no steps": findings._replace(losses={"curated": np.zeros((3, 0), np.float32)}),
        "one cluster": findings._replace(tree=flat),
        "all kept": findings._replace(indices=np.arange(n)),
        "repeated": findings._replace(indices=np.repeat(np.arange(n), 2)),
        "one kept": findings._replace(indices=np.array([3])),
        "no cards": findings._replace(cards={}, settings={}),
        "all arms": findings._replace(results=five_arms()),
        "corrected": findings._replace(
            results=json.loads(json.dumps(corrected_results())),
            settings={"evaluate": {"manifests": [f"theirs=/a/{HOSTILE}.parquet"]}},
        ),
        "mixed": findings._replace(
            cards=mixed_and_deduplicated(findings.cards),
            duplicates=[(1, 0, 0.99), (3, 2, 0.95432)],
        ),
        "plane": findings._replace(
            kind="vector",
            contents=lambda rows: [None] * len(rows),
            pool=make_pool(np.asarray(findings.pool.embeddings)[:, :2], findings.pool.ids),
        ),
    }[name]


VARIANTS = (
    "whole", "no evaluation", "balance only", "no labels", "vectors", "one seed", "no steps",
    "one cluster", "all kept", "repeated", "one kept", "no cards", "plane",
    "all arms", "corrected", "mixed", "texts", "filtered", "no title",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(findings):
    return render(findings)


@pytest.mark.parametrize("name", VARIANTS)
def test_any_page_is_well_formed_self_contained_and_small(name, findings):
    text = render(variants(name, findings))
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert ("meta", "content", MADE_FROM) in page.attributes
    own = {f"#{id_}" for id_ in page.ids}
    for tag, attribute, value in page.attributes:
        assert not attribute.startswith("on"), (tag, attribute)
        assert tag not in ("script", "link", "iframe", "object"), tag
        if attribute in ("href", "src", "srcset", "data", "action"):
            link = tag == "a" and value.startswith("file:///data/")
            assert link or value in own or value.startswith("data:image/"), value
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target in own or target.startswith("data:image/"), target
    assert "@import" not in text
    assert "://" not in text.replace('<a href="file:///data/', "")
    assert "nan" not in page.text.lower().split()
    assert len(text) < 1_000_000


def test_key_numbers_are_those_of_the_findings(findings, page):
    page = Page(page)
    assert "100 items" in page.text
    assert "20 % of the pool" in page.text
    assert "kept 20 : 20 %" in page.text
    # Sizes of clusters that are not empty: 60, 20, 10, 6, 4; above them 80, 10, 10.
    assert ["1", "6", "1", "4", "10", "20", "60", "0.504"] in page.rows
    assert ["2", "4", "1", "10", "10", "33.3", "80", "0.467"] in page.rows
    assert "12 s" in page.text
    assert "broken-49" in page.text
    assert "broken-50" not in page.text
    assert "The first 50 of 70" in page.text
    assert "13 items short" in page.text
    for text in ("0a1b2c3d", "ab" * 32, "jax 9.8.7", findings.pool.fingerprint):
        assert text in page.text


def test_balance_over_clusters_needs_no_labels(findings, page):
    (row,) = [row for row in Page(page).rows if row and row[0].startswith("top-level clusters")]
    taken = np.array([16, 2, 2]) / 20
    entropies = [-(p * np.log(p)).sum() / np.log(3) for p in (np.array([0.8, 0.1, 0.1]), taken)]
    assert [row[1], row[3]] == [f"{entropy:.3f}" for entropy in entropies]
    without = render(findings._replace(results=None, losses={}))
    assert row in Page(without).rows


def test_domains_are_reported_before_and_after(page):
    rows = Page(page).rows
    assert [
        "domains 2",
        "0.469",
        "0.469",
        "1.000",
        "0.400",
        "0.400",
        "0.000",
        "2",
        "2",
        "2",
    ] in rows
    assert ["cats", "90 % 90", "90 % 90", "50 % 10"] in rows


def test_measures_are_those_of_the_card(findings, page):
    page = Page(page)
    assert "measures" in page.ids
    assert ["1", "5", "0.500", "0.612", "0.250", "0.250", "40 %", "40 %"] in page.rows
    assert ["2", "3", "0.612", "0.612", "0.250", "0.125", "40 %", "0 %"] in page.rows
    assert ["random", "23.46", "0.0123", "9.877e+04", "100"] in page.rows
    assert ["curated", "12.35", "0.0123", "9.877e+04", "100"] in page.rows
    cards = json.loads(json.dumps(findings.cards))
    for arm, kl in (("curated", 0.04321), ("random", 0.98765)):
        cards["sample"]["measures"][arm]["kl_to_uniform"] = kl
    rows = Page(render(findings._replace(cards=cards))).rows
    assert ["curated", "12.35", "0.0123", "9.877e+04", "100", "0.043"] in rows
    assert "measures" not in Page(render(variants("no cards", findings))).ids


def test_reasons_and_duplicates_are_reported_where_there_are_any(findings, page):
    mixed = Page(render(variants("mixed", findings)))
    for row in (["curated", "10", "50 %"], ["retrieved", "4", "20 %"], ["raw", "6", "30 %"]):
        assert row in mixed.rows
        assert row not in Page(page).rows
    assert "a mixture with balanced sampling kept 20" in mixed.text
    assert "used 70 of the pool's 100 items, 70 %" in mixed.text
    assert "near-duplicates (cosine similarity of 0.95 or more) 5" in mixed.text
    assert "duplicates (the item equals an earlier one) 25" in mixed.text
    assert "most items that one item stands for 9 (9 % of the pool)" in mixed.text
    assert "the one that stands for it 0.951" in mixed.text
    assert "chain" not in mixed.text
    assert "duplicates" in mixed.ids and "duplicates" not in Page(page).ids


def test_further_arms_are_reported_beside_the_others(findings):
    page = Page(render(variants("all arms", findings)))
    assert [
        "domains 2",
        *("0.469", "0.469", "0.812", "0.812", "1.000"),
        *("0.400", "0.400", "0.250", "0.250", "0.000"),
        *("2", "2", "2", "2", "2"),
    ] in page.rows
    pair = "curated \N{MINUS SIGN} flat"
    assert [pair, "k-NN", "+0.030", "+0.020 to +0.040", "better"] in page.rows
    assert "the whole pool in batches balanced over the tree" in page.text


def test_budgets_and_corrected_verdicts_are_reported(findings):
    page = Page(render(variants("corrected", findings)))
    results = corrected_results()
    assert results["comparisons"] == {"overall": 18, "parts": 18}
    assert "Of these, 18 are over all test items and 18 over parts of them" in page.text
    assert "The budget is equal epochs" in page.text
    assert ["theirs", "1,234", "12,340", "394,880", "320"] in page.rows
    assert f"the subset of /a/{HOSTILE}.parquet" in page.text
    words = {
        row[-2:][0]: row[-1] for row in page.rows if row[:1] == ["curated \N{MINUS SIGN} theirs"]
    }
    assert set(words) | set(words.values()) <= {"better", "worse", "no difference shown"}
    row = next(r for r in page.rows if r[:2] == ["curated \N{MINUS SIGN} random", "k-NN on cars"])
    assert row[-2:] == ["better", "better"]
    assert results["differences"]["curated - random"]["knn@cars"]["p_holm"] < 0.05
    # RankMe is reported beside the accuracies, but the main sentence is about accuracies.
    assert any(row[1:2] == ["RankMe"] for row in page.rows)
    assert "by RankMe" not in page.text and "RankMe accuracy" not in page.text
    assert "after Holm's correction for 18 comparisons: better" in page.text
    assert "after Holm" not in Page(render(findings)).text


@pytest.mark.parametrize(
    ("shift", "reach", "word", "sentence"),
    [
        (0.05, 0.01, "better", "was better than training on a random subset"),
        (-0.05, 0.01, "worse", "was worse than training on a random subset"),
        (0.05, 0.06, "no difference shown", "No difference shown between the curated subset"),
    ],
)
def test_verdict_is_that_of_the_interval(findings, shift, reach, word, sentence):
    page = Page(render(findings._replace(results=results_of(3, reach, shift))))
    assert sentence in page.text
    signed = lambda x: f"{x:+.3f}".replace("-", "\N{MINUS SIGN}")
    low, high = signed(shift - reach), signed(shift + reach)
    pair = "curated \N{MINUS SIGN} random"
    assert [pair, "k-NN", signed(shift), f"{low} to {high}", word] in page.rows
    verdicts = ("was better than", "was worse than", "No difference shown between")
    assert sum(verdict in page.text for verdict in verdicts) == 1


def test_probes_that_disagree_are_both_reported(findings):
    results = results_of(3, 0.01)
    results["differences"]["curated - random"]["ridge"] = interval([-0.05] * 3, 0.01)
    page = Page(render(findings._replace(results=results)))
    assert "by k-NN, better; by ridge, worse" in page.text
    assert "better on cats (k-NN), head (k-NN)" in page.text


def test_one_seed_has_no_interval_and_no_verdict(findings):
    page = Page(render(variants("one seed", findings)))
    assert "One seed cannot tell" in page.text
    assert "one seed: no interval" in page.text
    assert "better" not in page.text.replace("better encoder", "").replace("train better", "")
    assert "\N{INFINITY}" not in page.text
    assert "inf" not in page.text.split()


def test_hostile_names_stay_text(page):
    assert "<script" not in page
    assert f"Cats {HOSTILE}" in Page(page).text
    assert any(HOSTILE in (value or "") for _, name, value in Page(page).attributes
               if name == "title")  # fmt: skip


def test_hostile_texts_and_files_stay_text_and_links(findings):
    text = render(variants("texts", findings))
    page = Page(text)
    assert "<script" not in text and "\u202e" not in text and "\x00" not in text
    assert f"{HOSTILE} two lines," in page.text
    links = {value for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    files = [value for value in links if value.startswith("file:")]
    assert files and all(re.fullmatch(r"[\w/:.%~-]*", value) for value in files)


def test_left_out_items_are_counted_by_reason_and_by_rule(findings, page):
    rows = Page(page).rows
    assert rows.index([HOSTILE, "70"]) < rows.index(["too small", "12"])
    assert not any(row[:1] == ["empty"] for row in rows)
    assert "82 items of the source" in Page(page).text
    filtered = Page(render(variants("filtered", findings)))
    assert ["width", "3"] in filtered.rows and [HOSTILE, "1"] in filtered.rows
    assert "left-out" not in Page(render(variants("no cards", findings))).ids


def test_dropped_items_stand_beside_what_was_kept_for_them(findings):
    page = render(variants("mixed", findings))
    captions = re.findall(r"<figcaption>similarity ([\d.]+)</figcaption>", page)
    assert captions == ["0.954", "0.990"]
    marks = [value for _, name, value in Page(page).attributes if name == "alt"]
    pairs = [mark for mark in marks if mark.startswith(("dropped: ", "stands for it: "))][:4]
    rows = [int(re.search(r"(\d+)$", mark)[1]) for mark in pairs]
    assert rows == [3, 2, 1, 0]


def test_title_is_the_source_unless_there_is_one(findings, page):
    assert f"on folder:{HOSTILE}" in Page(page).text
    assert f"folder:{HOSTILE} From a pool" in Page(render(variants("no title", findings))).text


def test_ids_that_are_not_unicode_do_not_break_the_page(findings):
    ids = findings.pool.ids.copy()
    ids[:] = [f"\udcff\x00{i}" for i in range(len(ids))]
    pool = make_pool(np.asarray(findings.pool.embeddings), ids)
    settings = {"source": "folder:\udcff"}
    render(findings._replace(pool=pool, settings=settings)).encode("utf-8")


def test_names_in_plots_are_neither_maths_nor_missing_glyphs(findings):
    results = json.loads(json.dumps(results_of(3, 0.01)).replace("cats", "$x^2$ \u732b"))
    drawn = re.findall(r"<svg.*?</svg>", render(findings._replace(results=results)), re.DOTALL)
    assert any("$x^2$ \u732b" in plot for plot in drawn)


def test_same_findings_give_the_same_bytes(findings, page):
    import matplotlib

    with matplotlib.rc_context({"axes.labelsize": 30, "lines.markersize": 1}):  # of the user's own
        assert render(findings) == page
