"""Sources of items: datasets, folders and arrays, all read in the same way."""

from jaxcurate.sources import arrays, folder, tfds
from jaxcurate.sources.arrays import ArraySource
from jaxcurate.sources.base import (
    SCHEMES,
    Annotations,
    Item,
    Named,
    Skipping,
    Source,
    UnreadableItem,
)
from jaxcurate.sources.folder import WORK_DIRECTORY
from jaxcurate.sources.open import open_source
from jaxcurate.sources.read import Batch, Reading, Unreadable, read_images
from jaxcurate.sources.synthetic.recipe import (
    Domain,
    Jitter,
    Recipe,
    balanced,
    fashion_longtail,
    web_like,
)
from jaxcurate.sources.synthetic.weblike import prepare

SCHEMES |= {"tfds": tfds.open_named, "folder": folder.open_pictures, "npy": arrays.open_rows}

__all__ = [
    "SCHEMES",
    "WORK_DIRECTORY",
    "Annotations",
    "ArraySource",
    "Batch",
    "Domain",
    "Item",
    "Jitter",
    "Named",
    "Reading",
    "Recipe",
    "Skipping",
    "Source",
    "Unreadable",
    "UnreadableItem",
    "balanced",
    "fashion_longtail",
    "open_source",
    "prepare",
    "read_images",
    "web_like",
]
