"""Settings of pretraining."""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxcurate.checks import InputError, check_given
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
    tokenizer: str | None = None
    """Path of a ``tokenizer.json`` for texts, or of a folder with one. None trains a tokenizer of
    ``bert.vocab_size`` tokens on the texts of the pool."""
    n_tokens: int = 128
    """Number of tokens that a text is cut or filled up to."""
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
    learning_rate_end: float = 0.0
    """Rate after the last step, at the end of the cosine."""
    warmup: float = 0.1
    """Fraction of the steps over which the rate rises linearly; a cosine follows."""
    weight_decay: float = 0.05
    """Weight decay of AdamW, on matrices only."""
    weight_decay_end: float | None = None
    """Weight decay after the last step, which a cosine leads to; None keeps it constant."""
    b2: float = 0.999
    """Decay rate of AdamW's running mean of squared gradients."""
    clip_norm: float | None = None
    """Largest norm of the gradient of all weights together, which a larger gradient is scaled down
    to; None for no limit."""
    n_accumulate: int = 1
    """Number of equal parts that a batch is worked through in, one after the other, before the
    weights change, which takes less memory. The gradient is the mean over the parts. An objective
    that compares the items of a batch with each other, such as SimCLR, compares those of a part
    only, so that it has fewer negatives; `model.remat` saves memory without that effect, for more
    time. For one large run (:func:`jaxcurate.training.train`)."""
    shard_bytes: int = 2**30
    """Size in bytes of weights, optimizer and teacher together from which on matrices are split
    over the devices (FSDP) rather than copied to each. For one large run."""
    log_every: int = 50
    """Number of steps between two lines of metrics. The loss is checked then. For one large run."""
    eval_every: int | None = None
    """Number of steps between two evaluations of the encoder; None for one at the end. For one
    large run."""
    checkpoint_steps: int | None = None
    """Number of steps between two checkpoints; None goes by time. For one large run."""
    checkpoint_minutes: float = 10.0
    """Minutes between two checkpoints, unless `checkpoint_steps` is given. For one large run."""
    keep: int = 2
    """Number of checkpoints that are kept, the latest ones. For one large run."""
    tensorboard: bool = False
    """True to write the metrics for TensorBoard too, by the package tensorboardX. For one large
    run."""
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
        check_given("tokenizer", self.tokenizer, "trains a tokenizer on the pool")
        counts = "runs_per_device", "n_tokens", "n_accumulate", "log_every", "keep"
        for name in (*counts, "eval_every", "checkpoint_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} must be at least 1")
        for name in ("learning_rate", "clip_norm", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name}={value} must be positive")
        for name in ("weight_decay", "weight_decay_end", "learning_rate_end", "shard_bytes"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InputError(f"{name}={value} must not be negative")
        if self.learning_rate_end > self.learning_rate:
            raise InputError(
                f"learning_rate_end={self.learning_rate_end} is above "
                f"learning_rate={self.learning_rate}"
            )
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup={self.warmup} must be within [0, 1]")
        if not 0 < self.b2 < 1:
            raise InputError(f"b2={self.b2} must be within (0, 1)")
        if self.batch_size % self.n_accumulate or self.batch_size < 2 * self.n_accumulate:
            raise InputError(
                f"n_accumulate={self.n_accumulate} does not divide batch_size={self.batch_size} "
                "into parts of at least 2"
            )

    @property
    def network(self) -> Model:
        """Shape of the encoder that the objective trains."""
        return self.model if self.objective.chosen.kind == "picture" else self.bert
