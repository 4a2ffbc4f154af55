"""DINOv2 with a ViT-B/14 on ImageNet, 100 epochs, on a slice of 32 v5e chips.

    python scripts/launch/pretrain.py --config=configs/published/imagenet_dinov2_vitb14.py \
        --workdir=gs://bucket/dinov2_vitb14

The last argument of the file is the source, by default tfds:imagenet2012, which TFDS must have
prepared before: `:folder:/data/imagenet/train` reads a folder of pictures. `--manifest=PATH` trains
on a curated subset, and `--config.n_devices`, `--config.evaluate.pretraining.batch_size` and so on
change what they name.

Cost, counted and not measured: 760 GFLOP for a picture with its ten crops (blocks are computed
again in the backward pass), 9.7e19 in all, which is 11 hours on 32 v5e chips if they reach 40 % of
their peak rate. In that case the hosts have to decode 3,300 pictures a second. Weights, teacher and
optimizer take 2.1 GB, which the chips share. `python scripts/bench/slices.py --table=training` with
this file compiles the step for slices that need not be present, and prints the memory of a chip
with temporaries.

The settings of the objective, the optimizer and the schedules are those of the short schedule that
the authors published (a ViT-L/16 on ImageNet-22k), with the square-root rule for the batch. Size,
patches and pool are choices of this project, so that there is no published figure to compare with.

Source: Oquab et al., DINOv2: learning robust visual features without supervision, 2023,
arXiv 2304.07193, and the settings that its authors published with the code.
"""

import math

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
from jaxcurate.training.objectives import DINOv2, ObjectiveConfig

N_IMAGES, N_EPOCHS, BATCH_SIZE = 1_281_167, 100, 2048


def get_config(source: str = "tfds:imagenet2012") -> ConfigDict:
    n_steps = N_EPOCHS * N_IMAGES // BATCH_SIZE
    return to_config(
        Config(
            title="ImageNet, DINOv2 with a ViT-B/14",
            source=source,
            embed=EmbedConfig(encoder="efficientnet_lite0"),
            cluster=ClusterConfig(levels=(Level(50_000), Level(5_000, 10, 10), Level(500, 10, 5))),
            sample=SampleConfig(size=320_000),
            evaluate=EvaluateConfig(
                arms=(),  # pretraining of this size is a run of its own
                pretraining=PretrainConfig(
                    model=vit_config(
                        "B",
                        patch_size=14,
                        precision="bfloat16",
                        layer_scale=1e-5,
                        drop_path=0.3,
                        mask_token=True,
                        remat=True,
                    ),
                    objective=ObjectiveConfig(
                        "dinov2",
                        dinov2=DINOv2(
                            n_local=8,
                            local_size=98,
                            global_scale=(0.32, 1.0),
                            local_scale=(0.05, 0.32),
                            n_hidden=2048,
                            bottleneck=256,
                            n_prototypes=65_536,
                            teacher_temperature=0.07,
                            temperature_warmup=30 / N_EPOCHS,
                            momentum=0.992,
                            frozen=1 / N_EPOCHS,
                            shared_head=False,
                        ),
                    ),
                    augmentation=Augmentation(saturation=0.2, gray=0.2, blur=0.5, solarize=0.1),
                    n_steps=n_steps,
                    batch_size=BATCH_SIZE,
                    learning_rate=0.004 * math.sqrt(BATCH_SIZE / 1024),
                    learning_rate_end=1e-6,
                    warmup=10 / N_EPOCHS,
                    weight_decay=0.04,
                    weight_decay_end=0.2,
                    clip_norm=3.0,
                    checkpoint_minutes=15.0,
                ),
            ),
        )
    )
