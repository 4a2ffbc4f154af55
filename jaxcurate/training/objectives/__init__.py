"""Objectives of self-supervised pretraining, a file each."""

from dataclasses import dataclass, field, fields

from jaxcurate.checks import check_choice
from jaxcurate.training.objectives.base import Batch, Crop, Objective, Outcome, Variables
from jaxcurate.training.objectives.dino import DINO
from jaxcurate.training.objectives.dinov2 import DINOv2
from jaxcurate.training.objectives.lejepa import LeJEPA
from jaxcurate.training.objectives.mae import MAE
from jaxcurate.training.objectives.mlm import MLM
from jaxcurate.training.objectives.simclr import SimCLR, nt_xent

__all__ = [
    "DINO",
    "MAE",
    "MLM",
    "Batch",
    "Crop",
    "DINOv2",
    "LeJEPA",
    "Objective",
    "ObjectiveConfig",
    "Outcome",
    "SimCLR",
    "Variables",
    "nt_xent",
]


@dataclass(frozen=True)
class ObjectiveConfig:
    """Name of the objective of pretraining, and the settings of every objective.

    An objective is added by a field with its name.

    Raises:
        InputError: the name is unknown.

    Examples:
        >>> ObjectiveConfig("simclr", simclr=SimCLR(temperature=0.1)).chosen.temperature
        0.1
    """

    name: str = "simclr"
    """Name of the objective."""
    simclr: SimCLR = field(default_factory=SimCLR)
    """Settings of SimCLR."""
    dino: DINO = field(default_factory=DINO)
    """Settings of DINO."""
    dinov2: DINOv2 = field(default_factory=DINOv2)
    """Settings of DINOv2: DINO with masked patches and an even spread."""
    mae: MAE = field(default_factory=MAE)
    """Settings of the masked autoencoder."""
    lejepa: LeJEPA = field(default_factory=LeJEPA)
    """Settings of LeJEPA."""
    mlm: MLM = field(default_factory=MLM)
    """Settings of masked language modeling, for texts."""

    def __post_init__(self) -> None:
        check_choice("name", self.name, [known.name for known in fields(self)[1:]])

    @property
    def chosen(self) -> Objective:
        """Objective of the name, with its settings."""
        return getattr(self, self.name)
