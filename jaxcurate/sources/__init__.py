"""Where items come from: datasets, folders and arrays, read alike."""

from jaxcurate.sources.arrays import ArraySource
from jaxcurate.sources.folders import WORK_DIRECTORY
from jaxcurate.sources.items import Annotations, Item, Named, Skipping, Source, UnreadableItem
from jaxcurate.sources.opening import open_source
from jaxcurate.sources.reading import Batch, Reading, Unreadable, read_images
from jaxcurate.sources.recipe import (
    RECIPES,
    Domain,
    Jitter,
    Recipe,
    balanced,
    fashion_longtail,
    web_like,
)
from jaxcurate.sources.weblike import prepare

__all__ = [
    "RECIPES",
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
