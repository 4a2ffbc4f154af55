"""Sources of items: pictures, texts and vectors, all read in the same way."""

from jaxcurate.sources import (
    archives,
    arrays,
    folder,
    huggingface,
    parquet,
    text,
    tfds,
    webdataset,
    zarr,
)
from jaxcurate.sources.arrays import ArraySource
from jaxcurate.sources.base import (
    SCHEMES,
    Annotations,
    Content,
    Hashed,
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
from jaxcurate.sources.measures import (
    PictureMeasures,
    TextMeasures,
    measure_picture,
    measure_text,
)
from jaxcurate.sources.open import open_source
from jaxcurate.sources.read import Batch, Reading, Unreadable, read_items
from jaxcurate.sources.synthetic.fetch import fetch_raw
from jaxcurate.sources.synthetic.recipe import (
    Domain,
    Jitter,
    Recipe,
    balanced,
    fashion_longtail,
    web_like,
    web_like_diverse,
)
from jaxcurate.sources.synthetic.weblike import prepare
from jaxcurate.sources.usable import UnusableContent
from jaxcurate.sources.walk import NO_ITEMS, WORK_DIRECTORY

SCHEMES |= {
    "folder": folder.open_pictures,
    "tfds": tfds.open_named,
    "webdataset": webdataset.open_tars,
    "huggingface": huggingface.open_dataset,
    "parquet": parquet.open_parquet,
    "text": text.open_texts,
    "npy": arrays.open_rows,
    "npz": archives.open_npz,
    "safetensors": archives.open_safetensors,
    "zarr": zarr.open_zarr,
}

__all__ = [
    "NO_ITEMS",
    "SCHEMES",
    "WORK_DIRECTORY",
    "Annotations",
    "ArraySource",
    "Batch",
    "Content",
    "Domain",
    "Hashed",
    "InBlocks",
    "InFiles",
    "Item",
    "Jitter",
    "Kind",
    "Named",
    "PictureMeasures",
    "Reading",
    "Recipe",
    "Skipping",
    "Source",
    "TextMeasures",
    "Unreadable",
    "UnreadableItem",
    "UnusableContent",
    "WithColumns",
    "balanced",
    "fashion_longtail",
    "fetch_raw",
    "measure_picture",
    "measure_text",
    "open_source",
    "prepare",
    "read_items",
    "web_like",
    "web_like_diverse",
]
