"""DINO with a ViT-S/16 on ImageNet, 100 epochs: the published settings, on a slice of 16 v5e chips.

    python scripts/launch/pretrain.py --config=configs/published/imagenet_dino_vits16.py \
        --workdir=gs://bucket/dino_vits16

The last argument of the file is the source, by default tfds:imagenet2012, which TFDS must have
prepared before: `:folder:/data/imagenet/train` reads a folder of pictures. `--manifest=PATH` trains
on a curated subset, and `--config.n_devices`, `--config.evaluate.pretraining.batch_size` and so on
change what they name.

Cost, counted and not measured: 113 GFLOP for a picture with its ten crops, 1.5e19 in all, which is
3.2 hours on 16 v5e chips if they reach 40 % of their peak rate. In that case the hosts have to
decode 11,000 pictures a second. As the compiler of TPUs has it, the memory is the limit: a step
moves data for 195 ms, which makes 6.8 hours, and keeps 8.6 GB of temporaries on a chip beside
0.75 GB of weights, teacher and optimizer; chips exchange 260 MB. `python scripts/bench/slices.py
--table=training --slices=v5e-16` with this file prints that, without a TPU.

The published figures for 100 epochs with batches of 512, measured by the authors with PyTorch and
not with this project, are 74.0 % (linear) and 69.3 % (k-NN). Colors differ from theirs: there is no
change of hue, and the two global crops have the same probabilities of blur and solarization.

Source: Caron et al., Emerging properties in self-supervised vision transformers, 2021,
arXiv 2104.14294, and the settings that its authors published with the code.
"""

from ml_collections import ConfigDict

from jaxcurate import Level
from jaxcurate.config import (
    ClusterConfig,
    Config,
    EmbedConfig,
    EvaluateConfig,
    SampleConfig,
    to_config,
)
from jaxcurate.models.presets import vit_config
from jaxcurate.training import Augmentation, PretrainConfig
from jaxcurate.training.objectives import DINO, ObjectiveConfig

N_IMAGES, N_EPOCHS, BATCH_SIZE = 1_281_167, 100, 1024


def get_config(source: str = "tfds:imagenet2012") -> ConfigDict:
    n_steps = N_EPOCHS * N_IMAGES // BATCH_SIZE
    return to_config(
        Config(
            title="ImageNet, DINO with a ViT-S/16",
            source=source,
            embed=EmbedConfig(encoder="efficientnet_lite0"),
            cluster=ClusterConfig(levels=(Level(50_000), Level(5_000, 10, 10), Level(500, 10, 5))),
            sample=SampleConfig(size=320_000),
            evaluate=EvaluateConfig(
                arms=(),  # pretraining of this size is a run of its own
                pretraining=PretrainConfig(
                    model=vit_config("S", patch_size=16, precision="bfloat16", drop_path=0.1),
                    objective=ObjectiveConfig(
                        "dino",
                        dino=DINO(
                            n_local=8,
                            local_size=96,
                            global_scale=(0.4, 1.0),
                            local_scale=(0.05, 0.4),
                            n_hidden=2048,
                            bottleneck=256,
                            n_prototypes=65_536,
                            temperature_warmup=0.0,
                            momentum=0.996,
                            frozen=1 / N_EPOCHS,
                        ),
                    ),
                    augmentation=Augmentation(saturation=0.2, gray=0.2, blur=0.5, solarize=0.1),
                    n_steps=n_steps,
                    batch_size=BATCH_SIZE,
                    learning_rate=5e-4 * BATCH_SIZE / 256,
                    learning_rate_end=1e-6,
                    warmup=10 / N_EPOCHS,
                    weight_decay=0.04,
                    weight_decay_end=0.4,
                    clip_norm=3.0,
                    checkpoint_minutes=15.0,
                ),
            ),
        )
    )
