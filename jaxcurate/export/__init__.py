"""Export of a subset: its manifest, and its items in formats that other loaders read."""

from jaxcurate.artifacts.subset import KIND as SUBSET
from jaxcurate.artifacts.subset import Subset, read_subset, save_subset
from jaxcurate.export import files, huggingface, lists, npy, parquet, tfds, webdataset
from jaxcurate.export.base import (
    FORMATS,
    ExportItem,
    Format,
    Plan,
    Shard,
    check_kind,
    export_items,
    shard_sizes,
)
from jaxcurate.export.base import KIND as EXPORT
from jaxcurate.export.names import check_names, id_of, id_of_key, key_of, path_of, suffix_of

FORMATS |= {
    "list": lists.ListFormat(),
    "link": files.LinkFormat(),
    "copy": files.CopyFormat(),
    "tfds": tfds.TfdsFormat(),
    "webdataset": webdataset.WebDatasetFormat(),
    "huggingface": huggingface.HuggingFaceFormat(),
    "parquet": parquet.ParquetFormat(),
    "npy": npy.NpyFormat(),
}

__all__ = [
    "EXPORT",
    "FORMATS",
    "SUBSET",
    "ExportItem",
    "Format",
    "Plan",
    "Shard",
    "Subset",
    "check_kind",
    "check_names",
    "export_items",
    "id_of",
    "id_of_key",
    "key_of",
    "path_of",
    "read_subset",
    "save_subset",
    "shard_sizes",
    "suffix_of",
]
