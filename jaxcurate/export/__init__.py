"""Export of a subset: its manifest, and its items in formats that other loaders read."""

from jaxcurate.artifacts.subset import KIND as SUBSET
from jaxcurate.artifacts.subset import Subset, load_subset, save_subset
from jaxcurate.export import auto, npy, png
from jaxcurate.export.items import FORMATS, export_items
from jaxcurate.export.items import KIND as EXPORT
from jaxcurate.export.names import check_names, id_of, path_of

FORMATS |= {"auto": auto.write, "png": png.write, "npy": npy.write}

__all__ = [
    "EXPORT",
    "FORMATS",
    "SUBSET",
    "Subset",
    "check_names",
    "export_items",
    "id_of",
    "load_subset",
    "path_of",
    "save_subset",
]
