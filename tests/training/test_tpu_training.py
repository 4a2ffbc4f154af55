"""Training step of the published configurations through the real TPU compiler; no TPU is needed."""

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "bench"))
import plan_training

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no libtpu: run scripts/test_tpu"
)
PUBLISHED = Path(__file__).parents[2] / "configs" / "published"
DINO, DINOV2 = PUBLISHED / "imagenet_dino_vits16.py", PUBLISHED / "imagenet_dinov2_vitb14.py"
SLICES = {DINO: ("v5e:4x4", "v6e:2x4"), DINOV2: ("v5e:4x8", "v6e:4x4")}
"""Slices that the headers name."""


@pytest.mark.parametrize("path", SLICES)
def test_published_settings_are_read(path):
    settings = plan_training.settings_of(path)
    epochs = settings.n_steps * settings.batch_size / 1_281_167
    assert 99.9 < epochs <= 100
    crops = plan_training.PlannedCrops(settings).shapes(settings.batch_size)
    assert [shape[1] for shape in crops] == [2, 8]


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("path, slice_", [(p, s) for p, both in SLICES.items() for s in both])
def test_published_settings_fit_their_slices(path, slice_):
    settings, kind = plan_training.settings_of(path), slice_.split(":")[0]
    peak, memory, bandwidth = plan_training.CHIPS[kind]
    plan = plan_training.compiled(settings, plan_training.mesh_of(slice_))
    assert plan.arguments + plan.temporaries < 0.95 * memory
    # Data parallelism: gradients and statistics are summed, and no batch moves to other chips.
    assert plan.collectives["all-reduce"] or plan.collectives["reduce-scatter"]
    assert not plan.collectives["all-to-all"]
    assert plan.flops / peak > 0.2 * plan.moved / bandwidth
