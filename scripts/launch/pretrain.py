"""Pretrains one encoder on real pictures, over all devices, and goes on after a kill.

    python scripts/launch/pretrain.py --config=configs/published/imagenet_dino_vits16.py \\
        --workdir=gs://bucket/dino                                       # on all pictures
    python scripts/launch/pretrain.py --config=... --workdir=... \\
        --pool=runs/imagenet --manifest=runs/imagenet/manifest.parquet   # on a subset
    jaxcurate run --config=... --workdir=runs/imagenet                   # makes both

On a slice of several hosts the same command runs on each of them, with `--distributed`. The work
directory holds `metrics.jsonl`, `checkpoints/` and `encoder/`; the same command goes on from the
latest checkpoint. The settings are those of the configuration at `evaluate.pretraining`.
"""

import sys

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from jaxcurate.checks import InputError

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of metrics, checkpoints and encoders.")
POOL = flags.DEFINE_string("pool", None, "Work directory with the pool that the manifest is of.")
MANIFEST = flags.DEFINE_string("manifest", None, "Subset of the pool. By default all items.")
WORKERS = flags.DEFINE_integer("workers", 0, "Processes that decode and crop; 0 for threads.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the processes of other hosts.")


def main(argv: list[str]) -> None:
    del argv
    try:
        pretrain()
    except InputError as error:
        sys.exit(f"pretrain: {error}")


def pretrain() -> None:
    """Trains the encoder that the flags describe."""
    if CONFIG.value is None or not WORKDIR.value:
        raise InputError("--config=FILE and --workdir=FOLDER are needed")
    if (POOL.value is None) != (MANIFEST.value is None):
        raise InputError("--pool and --manifest go together")
    if DISTRIBUTED.value:
        from jaxcurate.runtime import processes

        processes.initialize()
    import jax

    from jaxcurate.config import Config
    from jaxcurate.dataclass_fields import to_dataclass
    from jaxcurate.runtime.devices import Devices
    from jaxcurate.runtime.progress import Progress
    from jaxcurate.sources import open_source
    from jaxcurate.training import Run, train
    from jaxcurate.training.grain_input import CropInput

    config = to_dataclass(Config, CONFIG.value.to_dict(), "config")
    settings = config.evaluate.pretraining
    source = open_source(
        config.source,
        split=config.split,
        data_dir=config.data_dir,
        content_key=config.content_key,
        id_key=config.id_key,
        download=config.download,
    )
    devices = Devices.all() if config.n_devices is None else Devices.first(config.n_devices)
    data = CropInput(
        source,
        Run(rows_of(len(source)), seed=config.seed),
        settings.objective.chosen.crops(settings.model),
        settings.augmentation,
        settings.n_steps,
        settings.batch_size,
        num_workers=WORKERS.value,
        n_parts=jax.process_count(),
        part=jax.process_index(),
    )
    progress = Progress()
    train(
        settings,
        data,
        seed=config.seed,
        devices=devices,
        folder=WORKDIR.value,
        progress=lambda done, total: progress("pretraining", done, total),
    )


def rows_of(n: int) -> np.ndarray:
    """Returns the rows of the source to train on, int64, sorted."""
    if POOL.value is None or MANIFEST.value is None:
        return np.arange(n)
    from etils import epath

    from jaxcurate.artifacts.pool import Pool
    from jaxcurate.evaluation.manifests import read_manifest

    pool = Pool.load(epath.Path(POOL.value) / "pool")
    return np.sort(pool.items[read_manifest(MANIFEST.value, pool)])


if __name__ == "__main__":
    app.run(main)
