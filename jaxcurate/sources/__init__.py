"""Sources of items: pictures, texts and vectors, all read in the same way."""

from jaxcurate.sources import arrays, folder, huggingface, parquet, text, tfds, webdataset
from jaxcurate.sources.arrays import ArraySource
from jaxcurate.sources.base import (
    SCHEMES,
    Annotations,
    Content,
    InBlocks,
    InFiles,
    Item,
    Kind,
    Named,
    Skipping,
    Source,
    UnreadableItem,
    WithColumns,
)
from jaxcurate.sources.open import open_source
from jaxcurate.sources.read import Batch, Reading, Unreadable, read_items
from jaxcurate.sources.synthetic.recipe import (
    Domain,
    Jitter,
    Recipe,
    balanced,
    fashion_longtail,
    web_like,
)
from jaxcurate.sources.synthetic.weblike import prepare
from jaxcurate.sources.usable import UnusableContent
from jaxcurate.sources.walk import WORK_DIRECTORY

SCHEMES |= {
    "tfds": tfds.open_named,
    "folder": folder.open_pictures,
    "npy": arrays.open_rows,
    "webdataset": webdataset.open_tars,
    "huggingface": huggingface.open_dataset,
    "parquet": parquet.open_parquet,
    "text": text.open_texts,
}

__all__ = [
    "SCHEMES",
    "WORK_DIRECTORY",
    "Annotations",
    "ArraySource",
    "Batch",
    "Content",
    "Domain",
    "InBlocks",
    "InFiles",
    "Item",
    "Jitter",
    "Kind",
    "Named",
    "Reading",
    "Recipe",
    "Skipping",
    "Source",
    "Unreadable",
    "UnreadableItem",
    "UnusableContent",
    "WithColumns",
    "balanced",
    "fashion_longtail",
    "open_source",
    "prepare",
    "read_items",
    "web_like",
]
