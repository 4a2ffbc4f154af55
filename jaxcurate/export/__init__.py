"""Where a subset goes: its manifest, and the items themselves."""

from jaxcurate.export.items import FORMATS, export_items
from jaxcurate.export.manifest import Subset, load_subset, save_subset

__all__ = ["FORMATS", "Subset", "export_items", "load_subset", "save_subset"]
