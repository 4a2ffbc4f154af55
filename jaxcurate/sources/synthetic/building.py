"""Building of TFDS datasets from local files, which appear whole or not at all."""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxcurate.artifacts import files, folders


def build(folder: Path, builder: type, config: Any, card: Mapping[str, Any]) -> None:
    """Builds a dataset in a temporary folder, and gives it its name when it is complete.

    Two builders at once do not disturb each other.

    Args:
        folder: folder of the version, ``DATA_DIR/NAME/CONFIG/VERSION``.
        builder: class of the TFDS builder.
        config: configuration of the builder.
        card: facts to write into ``card.json``.
    """
    data_dir = folder.parents[2]
    with tempfile.TemporaryDirectory(prefix=f".{folder.parents[1].name}-", dir=data_dir) as aside:
        with quiet():
            made = builder(data_dir=aside, config=config, file_format="array_record")
            made.download_and_prepare()
        if not is_whole(folder):
            with folders.new_folder(folder, dict(card), "dataset") as fresh:
                for file in Path(made.data_dir).iterdir():
                    fresh.adopt(file)


def is_whole(folder: Path) -> bool:
    """Returns whether a folder holds a complete dataset that was built here."""
    try:
        return folders.read_card(folder) is not None
    except files.DamagedError:
        return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the output, logs and progress bars of TFDS during the block."""
    import tensorflow_datasets as tfds
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)
