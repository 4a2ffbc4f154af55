"""Settings of pretraining."""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxcurate.checks import InputError
from jaxcurate.models.bert import BertConfig
from jaxcurate.models.vit_config import ViTArchitecture, as_architecture
from jaxcurate.training.augment import Augmentation
from jaxcurate.training.objectives import ObjectiveConfig
from jaxcurate.training.objectives.base import Model


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of pretraining that are the same for all runs of a comparison.

    Raises:
        InputError: naming the field that cannot be used.

    Examples:
        >>> PretrainConfig(n_steps=100, batch_size=64).n_steps
        100
    """

    model: ViTArchitecture = field(default_factory=ViTArchitecture)
    """Shape of the encoder of pictures. A :class:`ViTConfig` is completed by defaults."""
    bert: BertConfig = field(default_factory=BertConfig)
    """Shape of the encoder of texts."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """Objective of pretraining."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Strengths of the random views."""
    n_steps: int = 300
    """Number of updates; with 0 the encoders keep their random weights."""
    batch_size: int = 128
    """Number of images in a batch, each in two views."""
    learning_rate: float = 3e-3
    """Peak rate of AdamW."""
    warmup: float = 0.1
    """Fraction of the steps over which the rate rises linearly; a cosine to 0 follows."""
    weight_decay: float = 0.05
    """Weight decay of AdamW, on matrices only."""
    runs_per_device: int = 2
    """Number of runs that a device trains at the same time. On two CPU cores, two runs together
    took about half the time of two in turn; a large accelerator is better used by more."""

    OLD_FIELDS: ClassVar[dict[str, str]] = {
        "temperature": "objective.simclr.temperature",
        "projection": "objective.simclr.projection",
    }

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", as_architecture(self.model))
        if self.n_steps < 0:
            raise InputError(f"n_steps={self.n_steps} must not be negative")
        if self.batch_size < 2:
            raise InputError(f"batch_size={self.batch_size} must be at least 2")
        if self.runs_per_device < 1:
            raise InputError(f"runs_per_device={self.runs_per_device} must be at least 1")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate={self.learning_rate} must be positive")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay={self.weight_decay} must not be negative")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup={self.warmup} must be within [0, 1]")

    @property
    def network(self) -> Model:
        """Shape of the encoder that the objective trains."""
        return self.model if self.objective.chosen.kind == "picture" else self.bert
