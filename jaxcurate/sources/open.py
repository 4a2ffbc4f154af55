"""From a short specification, such as ``folder:PATH``, to a source."""

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
    """Opens what a specification names.

    Images come as ``image_size`` x ``image_size`` RGB: the central square, averaged over areas,
    transparency on white.

    Args:
        spec: one of

            - ``tfds:NAME``, ``tfds:NAME/CONFIG``, ``tfds:NAME/CONFIG:VERSION``: a dataset of
              TFDS or of the user, prepared in `data_dir`, or on first use if `download` is set;
              ``tfds:weblike`` is made from `recipe`;
            - ``folder:PATH``: the pictures in a folder and below it;
            - ``npy:PATH``: the rows of a 2-D array of floats.

            A path may begin with ``~``.
        split: of a TFDS dataset.
        data_dir: of TFDS datasets; by default ``$JAXCURATE_DATA``, or else ``data``.
        image_size: side of the images in pixels.
        recipe: of ``tfds:weblike``; by default `jaxcurate.sources.synthetic.recipe.web_like`.
        image_key: the image feature of a TFDS dataset, where it is not found by itself.
        label_key: the label feature of a TFDS dataset, where it is not found by itself.
        leave_out: a folder in which no pictures are looked for: the work directory.
        download: lets TFDS download a dataset that is not there, and run the program that
            prepares it.

    Raises:
        InputError: in one line, naming what cannot be opened.
    """
    scheme, _, rest = spec.partition(":")
    if scheme not in SCHEMES or not rest:
        known = ", ".join(f"{scheme}:..." for scheme in SCHEMES)
        raise InputError(f"source {spec!r} is not one of {known}")
    options = Options(
        split, data_dir, image_size, recipe, image_key, label_key, leave_out, download
    )
    return SCHEMES[scheme](rest, options)
