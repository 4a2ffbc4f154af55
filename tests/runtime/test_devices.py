from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcurate.kmeans.lloyd import LLOYD_SPECS, lloyd
from jaxcurate.kmeans.seeding.plus_plus import greedy_kmeans_plus_plus
from jaxcurate.runtime import collectives
from jaxcurate.runtime import devices as devices_module
from jaxcurate.runtime.devices import ONE_DEVICE, ROWS, SAME, Devices


class Moments(NamedTuple):
    rows: jax.Array
    total: jax.Array


def moments(x, weights, *, axis_name):
    total = collectives.psum(jnp.sum(x * weights[:, None], axis=0), axis_name)
    return Moments(x * 2 + collectives.axis_index(axis_name), total)


SPECS = Moments(ROWS, SAME)


def test_first_devices():
    assert Devices.first(1) == ONE_DEVICE
    assert ONE_DEVICE.count == 1
    assert Devices.first(3).count == 3
    assert Devices.all().count == jax.device_count() == 4


@pytest.mark.parametrize("n_devices", [0, -1, 5])
def test_impossible_devices_are_refused(n_devices):
    with pytest.raises(ValueError, match=f"n_devices={n_devices}"):
        Devices.first(n_devices)


def test_put_rows_pads_with_weight_zero(devices):
    x = np.arange(10.0, dtype=np.float32).reshape(5, 2)
    placed, weights = devices.put_rows(x, multiple=3)
    assert placed.shape == (12, 2)
    np.testing.assert_array_equal(placed[:5], x)
    np.testing.assert_array_equal(weights, [1] * 5 + [0] * 7)
    assert len(placed.sharding.device_set) == 4
    assert ONE_DEVICE.put_rows(x, at_least=8)[0].shape == (8, 2)


@pytest.mark.parametrize("n_devices", [1, 4])
def test_cpu_devices_take_rows_without_a_copy(n_devices, monkeypatch):
    made, aligned = [], devices_module._aligned

    def noted(*given):
        made.append(aligned(*given))
        return made[-1]

    monkeypatch.setattr(devices_module, "_aligned", noted)
    x = np.random.default_rng(0).normal(size=(1001, 3)).astype(np.float32)
    placed, _ = Devices.first(n_devices).put_rows(x)
    there = {shard.data.unsafe_buffer_pointer() for shard in placed.addressable_shards}
    assert there == {array.ctypes.data for array in made}
    np.testing.assert_array_equal(placed[:1001], x)


@pytest.mark.parametrize("mapper", ["shard_map", "pmap"])
def test_kernel_sees_its_part_of_the_rows(mapper):
    devices = Devices.first(4, mapper)
    x = np.arange(16.0, dtype=np.float32).reshape(8, 2)
    placed, weights = devices.put_rows(x)
    out = devices.spmd(moments, (ROWS, ROWS), SPECS)(placed, weights)
    device = np.repeat(np.arange(4), 2)[:, None]
    np.testing.assert_array_equal(out.rows, 2 * x + device)
    np.testing.assert_array_equal(out.total, x.sum(axis=0))


def test_unmapped_kernel_runs_on_one_device():
    x = np.ones((4, 2), np.float32)
    out = ONE_DEVICE.spmd(moments, (ROWS, ROWS), SPECS)(x, np.ones(4, np.float32))
    np.testing.assert_array_equal(out.total, [4, 4])


def test_unknown_mapper_is_refused():
    with pytest.raises(ValueError, match="mapper='vmap'"):
        Devices.first(4, "vmap")


@pytest.mark.parametrize(
    "d", [7, pytest.param(48, marks=pytest.mark.slow)]
)  # draws for one step, and for some
def test_both_mappers_give_the_same_bits(d):
    x = np.random.default_rng(0).normal(size=(3000, d)).astype(np.float32)
    results = []
    for mapper in ("shard_map", "pmap"):
        devices = Devices.first(4, mapper)
        placed, weights = devices.put_rows(x, 256)
        seed = devices.spmd(
            greedy_kmeans_plus_plus,
            (ROWS, ROWS, SAME),
            SAME,
            n_clusters=40,
            block=256,
        )
        centroids = seed(placed, weights, jax.random.key(3))
        run = devices.spmd(
            lloyd,
            (ROWS, ROWS, SAME),
            LLOYD_SPECS,
            max_iter=20,
            block=256,
        )
        results.append(run(placed, weights, np.asarray(centroids)))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
