"""Every k-means kernel through the real TPU compiler, ahead of time; no TPU is needed."""

import pytest

from jaxcurate.planning.ahead_of_time import compiled, devices_of, has_tpu_compiler
from jaxcurate.planning.kernels import kernels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not has_tpu_compiler(),
        reason="no libtpu: run scripts/test_tpu",
    ),
]

N, D, K = 8 * 65536, 256, 8192
"""Rows on eight chips; [n, k] would be 2 GB on each."""
KERNELS = kernels(N, D, K, 8)
ALLOWED = {
    "iterations": {"all-reduce"},
    "streamed": {"all-reduce"},
    "seeds": {"all-reduce", "all-gather"},
    "first seed": {"all-reduce", "all-gather"},
    "ring": {"all-reduce", "collective-permute"},
}
"""The collectives of each kernel; none where it is not named."""
TAKE_ROWS = set(KERNELS) - {"pairs", "splits"}


@pytest.fixture(scope="module", params=["v5e:2x4", "v6e:2x4"])
def slice_of_eight(request):
    return devices_of(request.param)


@pytest.mark.parametrize("name", KERNELS)
def test_no_array_of_rows_by_clusters_and_few_collectives(slice_of_eight, name):
    made = compiled(slice_of_eight, KERNELS[name])
    if name in TAKE_ROWS:
        rows = 4 * N * D // 8
        assert made.arguments < 1.7 * rows  # they are split over the chips
        assert made.arguments >= rows or name == "begin"  # which reads none
    rows_by_clusters = 4 * N * K // 8
    assert made.temporaries < rows_by_clusters / 4
    assert set(made.collectives) <= ALLOWED.get(name, set())
    assert sum(made.collectives.values()) <= 12


@pytest.mark.parametrize("name", ["iterations", "assigned", "ring", "streamed"])
def test_in_bfloat16(slice_of_eight, name):
    made = compiled(slice_of_eight, KERNELS[name], precision="bfloat16")
    assert made.temporaries < 4 * N * K // 8 / 4


def test_centroids_in_a_ring_are_split(slice_of_eight):
    few, many = (compiled(slice_of_eight, kernels(N, D, k, 8)["ring"]) for k in (K, 32 * K))
    centroids = 4 * 32 * K * D
    assert many.arguments - few.arguments < centroids / 6
    assert many.temporaries < centroids
