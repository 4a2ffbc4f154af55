"""The stage `filter` on a pool with columns and examples, beside the rest of a run."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

import jaxcurate as jc
from jaxcurate.artifacts.files import array_digest
from jaxcurate.config import ClusterConfig, Config, FilterConfig, Rule, SampleConfig
from jaxcurate.curation import Filtered
from jaxcurate.pipeline.filter import Filter


class Blocks(list):
    """Embedded examples of a source, of which some could not be read."""

    unreadable = (["broken.png", "is no picture"],)


@pytest.fixture
def config():
    rules = Rule("side", min=64), Rule("language", isin=("de",))
    config = FilterConfig(rules, unwanted="npy:unwanted.npy", max_unwanted=0.9)
    cluster, sample = ClusterConfig((jc.Level(2),)), SampleConfig(size=2)
    return Config("npy:x.npy", cluster, sample, filter=config)


@pytest.fixture
def context(config, devices, tmp_path):
    """Context for the stage: a pool of five rows, and an unwanted example."""
    pool = jc.make_pool(np.array([[1.0, 0], [0, 1], [1, 1], [3, 0], [0, 2]]), np.array([*"abcde"]))
    columns = {
        "side": np.array([100, 100, 10, 100, 100]),
        "language": np.array(["de", "en", "de", "de", "de"]),
    }
    example, lines = np.array([[2.0, 0]]), []
    items = SimpleNamespace(
        examples={"unwanted": SimpleNamespace(fingerprint=array_digest(example))},
        embedded=lambda *args, **kwargs: Blocks([SimpleNamespace(embeddings=example)]),
    )
    return SimpleNamespace(
        writes=True,
        settings=config,
        items=items,
        devices=devices,
        pool=lambda: pool,
        columns=lambda names: {name: columns[name] for name in names},
        folder=lambda stage: tmp_path / stage,
        digest=lambda stage: {stage: pool.fingerprint},
        plain=lambda field: dataclasses.asdict(getattr(config, field)),
        progress=SimpleNamespace(line=lines.append),
        lines=lines,
    )


def test_rules_and_examples_drop_rows_with_reasons(config, context, tmp_path):
    stage = Filter()
    assert stage.enabled(config)
    output = stage.output(config, tmp_path)
    inputs = stage.inputs(context)
    card = lambda **more: {"made_from": inputs, **more}
    assert stage.run(context, card) == {"kept": 1, "dropped": 4}
    assert output.path == tmp_path / "filter" and output.is_made_from(inputs, output.card())
    assert output.card()["pool"] == context.pool().fingerprint
    assert Filtered.load(output.path).kept.tolist() == [4]
    table = pq.read_table(tmp_path / "filter" / "dropped.parquet")
    assert list(zip(table["id"].to_pylist(), table["reason"].to_pylist(), strict=True)) == [
        ("a", "unwanted above 0.9"),
        ("b", "language not in ('de',)"),
        ("c", "side below 64"),
        ("d", "unwanted above 0.9"),
    ]
    assert table["value"].to_pylist() == ["1.0", "en", "10", "1.0"]
    assert context.lines[0].startswith("  1 unwanted example(s) could not be read or used")
    assert "  2 row(s) dropped: unwanted above 0.9" in context.lines


def test_inputs_change_with_the_rules_and_the_examples(context):
    before = Filter().inputs(context)
    context.items.examples["unwanted"].fingerprint = "another"
    assert Filter().inputs(context) != before


def test_nothing_to_filter_by(config):
    assert not Filter().enabled(dataclasses.replace(config, filter=FilterConfig()))
    assert Filter().enabled(
        dataclasses.replace(config, filter=FilterConfig((Rule("side", min=1),)))
    )
