"""Where a subset goes: its manifest, and the items themselves."""

from jaxcurate.artifacts.subset import KIND as SUBSET
from jaxcurate.artifacts.subset import Subset, load_subset, save_subset
from jaxcurate.export.items import FORMATS, export_items
from jaxcurate.export.items import KIND as EXPORT

__all__ = [
    "EXPORT",
    "FORMATS",
    "SUBSET",
    "Subset",
    "export_items",
    "load_subset",
    "save_subset",
]
