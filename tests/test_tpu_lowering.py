"""Every k-means kernel through the real TPU compiler, ahead of time; no TPU is needed."""

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import plan_tpu

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="no libtpu: run scripts/test_tpu",
    ),
]

N, D, K = 8 * 65536, 256, 8192
"""Rows on eight chips; [n, k] would be 2 GB on each."""


@pytest.fixture(scope="module", params=["v5e:2x4", "v6e:2x4"])
def slice_of_eight(request):
    return plan_tpu.mesh_of(request.param)


@pytest.mark.parametrize(
    ("kernel", "static"),
    [
        ("lloyd", {}),
        ("lloyd", {"precision": "bfloat16"}),
        ("assigned", {}),
        ("seeding", {}),
    ],
    ids=["lloyd", "lloyd in bfloat16", "assigned", "seeding"],
)
def test_no_array_of_rows_by_clusters_and_few_collectives(slice_of_eight, kernel, static):
    made = plan_tpu.compiled(slice_of_eight, kernel, N, D, K, **static)
    rows = 4 * N * D // 8
    assert made.arguments >= rows  # the rows are split over the chips
    assert made.arguments < 1.5 * rows
    rows_by_clusters = 4 * N * K // 8
    assert made.temporaries < rows_by_clusters / 4
    allowed = {
        "lloyd": {"all-reduce"},
        "assigned": set(),
        "seeding": {"all-reduce", "all-gather"},
    }[kernel]
    assert set(made.collectives) <= allowed
    assert sum(made.collectives.values()) <= 12
