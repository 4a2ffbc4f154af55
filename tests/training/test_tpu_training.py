"""Training step of the published configurations through the real TPU compiler; no TPU is needed."""

import sys
from pathlib import Path

import pytest

from jaxcurate.planning.ahead_of_time import devices_of, has_tpu_compiler
from jaxcurate.planning.machines import tpu_slice
from jaxcurate.planning.training_step import PlannedCrops, compile_training_step

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "bench"))
from slices import settings_of

needs_compiler = pytest.mark.skipif(
    not has_tpu_compiler(), reason="no libtpu: run scripts/test_tpu"
)
PUBLISHED = Path(__file__).parents[2] / "configs" / "published"
DINO, DINOV2 = PUBLISHED / "imagenet_dino_vits16.py", PUBLISHED / "imagenet_dinov2_vitb14.py"
SLICES = {DINO: ("v5e:4x4", "v6e:2x4"), DINOV2: ("v5e:4x8", "v6e:4x4")}
"""Slices that the headers name."""


@pytest.mark.parametrize("path", SLICES)
def test_published_settings_are_read(path):
    settings = settings_of(path)
    epochs = settings.n_steps * settings.batch_size / 1_281_167
    assert 99.9 < epochs <= 100
    crops = PlannedCrops(settings).shapes(settings.batch_size)
    assert [shape[1] for shape in crops] == [2, 8]


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("path, slice_", [(p, s) for p, both in SLICES.items() for s in both])
def test_published_settings_fit_their_slices(path, slice_):
    chip, mesh = tpu_slice(slice_).chip, devices_of(slice_).mesh
    plan = compile_training_step(settings_of(path), mesh)
    assert plan.arguments + plan.temporaries < 0.95 * chip.memory
    # Data parallelism: gradients and statistics are summed, and no batch moves to other chips.
    assert plan.collectives["all-reduce"] or plan.collectives["reduce-scatter"]
    assert not plan.collectives["all-to-all"]
    assert plan.flops / chip.bfloat16 > 0.2 * plan.moved / chip.bandwidth
