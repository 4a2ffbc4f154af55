"""Folders of runs that are being trained, whose checkpoints outlive a kill."""

import re
import shutil
from collections.abc import Iterable
from typing import Any

from etils import epath

from jaxcurate.artifacts import files, folders
from jaxcurate.artifacts.local import is_folder, is_local, names_in, remove_tree
from jaxcurate.artifacts.new_folder import sizes_in
from jaxcurate.evaluation.runs import run_name
from jaxcurate.training.checkpoint import NAME as CHECKPOINTS

_OURS = re.compile("[0-9a-f]{16}")
"""Pattern of the names of the folders below that of all trainings, one for each comparison."""
_BLOCK_BYTES = 2**20


class TrainingFolders:
    """Folders of the runs of a comparison that are being trained, one for each run.

    Args:
        root: folder of the trainings of all comparisons.
        made_from: everything that the runs depend on. Other comparisons do not see the folders.
    """

    def __init__(self, root: epath.Path, made_from: Any) -> None:
        self.root = root
        self.path = root / files.fingerprint(made_from)
        """Folder with a subfolder for each run."""

    def copy(self, keys: Iterable[tuple[str, int]], folder: folders.NewFolder) -> None:
        """Copies metrics and encoders of runs, but not their checkpoints, to another folder.

        Args:
            keys: arm and seed of each run. Runs without a folder are left out.
            folder: folder that is being written, which gets a subfolder for each run.
        """
        for key in keys:
            place = self.path / run_name(key)
            for name in sorted(sizes_in(place)) if is_folder(place) else ():
                if not name.startswith(f"{CHECKPOINTS}/"):
                    copy_file(place / name, folder, f"{run_name(key)}/{name}")

    def remove(self, keys: Iterable[tuple[str, int]]) -> None:
        """Removes the folders of runs."""
        for key in keys:
            remove_tree(self.path / run_name(key))

    def tidy(self, *, keep_own: bool) -> None:
        """Removes the folders of other comparisons and, unless they are kept, those of this one."""
        for place in [self.root / name for name in names_in(self.root)]:
            is_own = place.name == self.path.name
            if _OURS.fullmatch(place.name) and is_folder(place) and not (is_own and keep_own):
                remove_tree(place)
        if is_local(self.root) and self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()


def copy_file(file: epath.Path, folder: folders.NewFolder, name: str) -> None:
    """Copies a file to a folder that is being written.

    Args:
        file: path of the file.
        folder: the folder.
        name: name of the copy, such as ``"curated-0/metrics.jsonl"``.
    """
    with file.open("rb") as opened, folder.create(name) as copy:
        shutil.copyfileobj(opened, copy, _BLOCK_BYTES)
