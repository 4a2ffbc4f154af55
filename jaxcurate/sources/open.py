"""Opening of a source by a short specification, such as ``folder:PATH``."""

import os

from jaxcurate.checks import InputError
from jaxcurate.sources.base import SCHEMES, Options, Source
from jaxcurate.sources.synthetic.recipe import Recipe


def open_source(
    spec: str,
    *,
    split: str = "train",
    data_dir: str | os.PathLike | None = None,
    image_size: int = 32,
    recipe: Recipe | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
    leave_out: str | os.PathLike | None = None,
    download: bool = False,
) -> Source:
    """Opens the source that a specification names.

    Images are ``image_size`` x ``image_size`` RGB: the central square, resized by averages over
    areas, with transparency on white.

    Args:
        spec: one of

            - ``tfds:NAME``, ``tfds:NAME/CONFIG``, ``tfds:NAME/CONFIG:VERSION``: a dataset of
              TFDS or of the user, prepared in `data_dir`, or on first use if `download` is set;
              ``tfds:weblike`` is made from `recipe`;
            - ``folder:PATH``: the pictures in a folder and its subfolders;
            - ``npy:PATH``: the rows of a 2-D array of real numbers.

            A path may begin with ``~``.
        split: split of a TFDS dataset.
        data_dir: folder of TFDS datasets. By default ``$JAXCURATE_DATA``, or ``data`` if it is not
            set.
        image_size: side of the images in pixels.
        recipe: recipe of ``tfds:weblike``. By default
            `jaxcurate.sources.synthetic.recipe.web_like`.
        image_key: image feature of a TFDS dataset. By default it is found automatically.
        label_key: label feature of a TFDS dataset. By default it is found automatically.
        leave_out: folder that is not searched for pictures, such as the work directory.
        download: allow TFDS to download a dataset that is missing, and to run the program that
            prepares it.

    Returns:
        The source, whose items are read by row number.

    Raises:
        InputError: the source cannot be opened; the message names it and the reason.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from jaxcurate.sources import open_source
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/x.npy", np.eye(3))
        ...     source = open_source(f"npy:{folder}/x.npy")
        ...     len(source), source.read(1)
        (3, Item(id='1', image=array([0., 1., 0.], dtype=float32)))
    """
    scheme, _, rest = spec.partition(":")
    if scheme not in SCHEMES or not rest:
        known = ", ".join(f"{scheme}:..." for scheme in SCHEMES)
        raise InputError(f"source {spec!r} is not one of {known}")
    options = Options(
        split, data_dir, image_size, recipe, image_key, label_key, leave_out, download
    )
    return SCHEMES[scheme](rest, options)
