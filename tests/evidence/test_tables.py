"""Tables of the evidence on lines with a known answer."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import statistics_of_lines as statistics
import tables

from jaxcurate.checks import InputError

MEASURES = {"weblike": "knn", "glyphs": "knn"}


def line(arm, seed, knn, pool="weblike", before=None, **changes):
    return {
        "pool": pool,
        "part": "primary",
        "command": f"scripts/evidence/run.py --pool={pool} --part=primary",
        "exploratory": False,
        "tier": "small",
        "variant": "main-200",
        "arm": arm,
        "seed": seed,
        "keep": 0.03,
        "size": 630,
        "n_pool": 21000,
        "encoder": "pca",
        "steps": 300,
        "batch": 128,
        "objective": "simclr",
        "seconds": 60.0,
        "device": "2 x cpu",
        "versions": {"jax": "0.10.2"},
        "protocol": "0",
        "before": {} if before is None else before,
        "probes": {"knn": knn, "ridge": knn / 2},
    } | changes


def compared(differences, pool="weblike", seeds=range(200, 208), **changes):
    """Lines in which `curated` is better than the others by given differences, up to a wobble."""
    wobble = lambda seed: 0.01 * math.sin(seed)
    lines = [line("curated", seed, 0.5 + wobble(seed), pool, **changes) for seed in seeds]
    for against, by in differences.items():
        lines += [line(against, seed, 0.5 - by, pool, **changes) for seed in seeds]
    return lines


def test_primary_differences_are_those_of_a_paired_t_test():
    lines = compared({"random": 0.1, "deduplicated": 0.0, "flat": 0.004})
    found = statistics.primary_comparisons(lines, MEASURES)
    assert [of.against for of in found] == ["random", "deduplicated", "flat"]
    curated = [0.5 + 0.01 * math.sin(seed) for seed in range(200, 208)]
    for of, by in zip(found, (0.1, 0.0, 0.004), strict=True):
        reference = scipy.stats.ttest_1samp(np.array(curated) - (0.5 - by), 0)
        low, high = reference.confidence_interval()
        np.testing.assert_allclose(of.interval.p, reference.pvalue, rtol=1e-9)
        np.testing.assert_allclose([of.interval.low, of.interval.high], [low, high], rtol=1e-9)


def test_the_correction_is_for_all_comparisons_of_the_protocol():
    lines = compared({"random": 0.1, "deduplicated": 0.0, "flat": 0.004})
    found = {of.against: of for of in statistics.primary_comparisons(lines, MEASURES)}
    assert all(of.complete for of in found.values())
    p = {name: of.interval.p for name, of in found.items()}
    order = sorted(p, key=lambda name: p[name])
    expected = {}
    for place, name in enumerate(order):  # twelve, though three have been run
        expected[name] = min(1, max([p[name] * (12 - place), *expected.values()]))
    for name, of in found.items():
        np.testing.assert_allclose(of.interval.p_holm, expected[name], rtol=1e-9)
    assert found["random"].verdict == "better"
    assert found["deduplicated"].verdict == "no difference shown"


def test_a_difference_that_only_the_correction_removes_is_told_as_such():
    # The wobble has a standard error of about 0.0026: 0.0075 is shown alone, not among twelve.
    lines = compared({"random": 0.0075, "deduplicated": 0.0, "flat": 0.0})
    [of, *_] = statistics.primary_comparisons(lines, MEASURES)
    assert of.interval.p < 0.05 < of.interval.p_holm
    assert of.verdict == "no difference shown (uncorrected: better)"


@pytest.mark.parametrize(
    "lines",
    [
        compared({"random": 0.1, "deduplicated": 0.1, "flat": 0.1}, seeds=range(200, 207)),
        compared({"random": 0.1, "deduplicated": 0.1, "flat": 0.1}, exploratory=True),
        compared({"random": 0.1, "flat": 0.1}),
    ],
    ids=["seven seeds", "development", "an arm missing"],
)
def test_what_does_not_meet_the_protocol_is_exploratory(lines):
    found = statistics.primary_comparisons(lines, MEASURES)
    assert found and not any(of.complete for of in found)
    assert {of.verdict for of in found} == {"exploratory: better"}
    assert {of.interval.p_holm for of in found} == {found[0].interval.p_holm}
    text = tables.section(lines)
    assert "full: 0 of the 12" in text


def gains_of(slope, n_pools=5, seed=0):
    rng = np.random.default_rng(seed)
    lines = []
    for pool in range(n_pools):
        for run in range(6):
            lines.append(line("random", run, 0.3, f"pool{pool}", {"cluster_gini": 0.8}))
            for arm in range(4):
                gini = rng.uniform()
                knn = 0.3 + slope * (gini - 0.8) + 0.001 * rng.normal()
                lines.append(line(f"arm{arm}", run, knn, f"pool{pool}", {"cluster_gini": gini}))
    return lines, {f"pool{pool}": "knn" for pool in range(n_pools)}


@pytest.mark.parametrize("slope", [-1.0, 1.0])
def test_the_correlation_with_the_gain_is_found(slope):
    runs = statistics.gains(*gains_of(slope))
    assert len(runs) == 5 * 6 * 4
    found = statistics.correlation(runs, "cluster_gini")
    x, y = np.array([(run.before["cluster_gini"], run.gain) for run in runs]).T
    np.testing.assert_allclose(found.value, scipy.stats.spearmanr(x, y).statistic, rtol=1e-9)
    assert slope * found.low > 0.9 and slope * found.high > 0.9
    assert slope * found.within > 0.9
    assert (found.n_runs, found.n_pools) == (120, 5)


def test_an_interval_without_a_relation_holds_zero():
    found = statistics.correlation(statistics.gains(*gains_of(0.0)), "cluster_gini")
    assert found.low < 0 < found.high
    assert statistics.correlation([], "cluster_gini") is None


def test_gains_are_paired_with_the_random_run_of_the_same_setting():
    before = {"held_out_distance": 2.0}
    lines = [
        line("random", 1, 0.3, before=before),
        line("random", 1, 0.9, before=before, keep=0.1),
        line("curated", 1, 0.5, before={"held_out_distance": 1.0}),
        line("curated", 2, 0.5, before=before),  # its random run is missing
        line("untrained", 1, 0.1),
        line("random, dino", 1, 0.2, before=before, objective="dino"),
        line("curated, dino", 1, 0.6, before=before, objective="dino"),
    ]
    runs = statistics.gains(lines, MEASURES)
    assert [round(run.gain, 6) for run in runs] == [0.2, 0.4]
    np.testing.assert_allclose(runs[0].before["held_out_distance"], -math.log(2))


def test_subsets_of_other_encoders_are_compared_with_the_one_random_draw():
    about = {"part": "encoders", "variant": "x"}
    lines = [
        line(arm, seed, knn, encoder=encoder, **about)
        for seed, wobble in ((200, 0.0), (201, 0.002))
        for arm, knn, encoder in (
            ("random", 0.3 - wobble, "pca"),
            ("curated by pca", 0.4, "pca"),
            ("curated by pixels", 0.35, "pixels"),
        )
    ]
    made = tables.section(lines)
    cells = [row.split(" | ") for row in made.splitlines() if "| curated by pixels" in row]
    [[*_, mean, less_random, pca_less, seeds]] = cells
    assert mean == "0.350" and seeds == "2 |"
    assert less_random.startswith("**+0.051** (")
    assert pca_less.startswith("**+0.050** (")


def test_a_section_has_every_table(tmp_path):
    before = {"domain_entropy": 0.9, "held_out_distance": 3.0, "near_duplicates": 0.0}
    lines = compared({"random": 0.1, "deduplicated": 0.0, "flat": 0.0, "pool": 0.0}, before=before)
    lines += [
        line(arm, seed, knn, before=before, part="sizes", keep=0.1, variant="keep10-200")
        for seed in (200, 201)
        for arm, knn in (("curated", 0.5 + seed / 1e5), ("random", 0.4))
    ]
    (tmp_path / "results").mkdir()
    text = "".join(json.dumps(of) + "\n" for of in lines)
    (tmp_path / "results" / "weblike.jsonl").write_text(text)
    readme = tmp_path / "README.md"
    readme.write_text(f"Before.\n\n{tables.BEGIN}\nearlier tables\n{tables.END}\n\nAfter.\n")
    given = [f"--results={tmp_path / 'results'}", f"--readme={readme}"]
    assert tables.main([*given, "--check"]) == 1
    assert tables.main(given) == 0
    assert tables.main([*given, "--check"]) == 0
    made = readme.read_text()
    assert made.startswith("Before.\n") and made.endswith("After.\n")
    assert "earlier tables" not in made
    mean = 0.1 + 0.01 * np.mean(np.sin(np.arange(200, 208)))
    assert f"| weblike | {tables.less('curated', 'random')} | **{mean:+.3f}** (" in made
    assert "### Keep rates" in made
    assert "| weblike | 10 % | 300 | simclr | curated | 0.502 | **+0.102** (" in made
    assert (
        f"| weblike | curated | 630 | {mean + 0.4:.3f} |  | {mean / 2 + 0.2:.3f} | 0.900 |" in made
    )
    first = (tmp_path / "results" / "primary.svg").read_bytes()
    assert tables.main(given) == 0
    assert (tmp_path / "results" / "primary.svg").read_bytes() == first


def test_damaged_lines_and_missing_marks_are_one_line(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("no marks\n")
    given = [f"--results={tmp_path}", f"--readme={readme}"]
    assert tables.main(given) == 2
    assert "once each" in capsys.readouterr().err
    (tmp_path / "weblike.jsonl").write_text('{"pool": \n')
    assert tables.main(given) == 2
    assert "weblike.jsonl, line 1 is not JSON" in capsys.readouterr().err
    with pytest.raises(InputError, match="once each"):
        tables.replaced(f"{tables.END}{tables.BEGIN}", "x")
