"""Opening of a source by a short specification, such as ``folder:PATH``."""

import os
from typing import Literal

from jaxcurate.checks import InputError, check_choice
from jaxcurate.sources.base import SCHEMES, Options, Source
from jaxcurate.sources.detect import detect, listed
from jaxcurate.sources.synthetic.recipe import Recipe


def open_source(
    spec: str,
    *,
    split: str = "train",
    data_dir: str | os.PathLike | None = None,
    recipe: Recipe | None = None,
    content_key: str | None = None,
    id_key: str | None = None,
    label_key: str | None = None,
    domain_key: str | None = None,
    leave_out: str | os.PathLike | None = None,
    download: bool = False,
    verify: Literal["stat", "content"] = "stat",
) -> Source:
    """Opens the source that a specification names.

    Args:
        spec: a scheme and a place, such as ``folder:PATH``, or a path alone, which is opened as
            what it is. The schemes are listed in the README. A path may begin with ``~``, or with
            the protocol of a bucket, such as ``gs://``.
        split: split of a dataset.
        data_dir: folder of TFDS datasets. By default ``$JAXCURATE_DATA``, or ``data`` if it is not
            set.
        recipe: recipe of ``tfds:weblike``. By default
            `jaxcurate.sources.synthetic.recipe.web_like`.
        content_key: feature or column with the picture, text or vector. By default it is found
            automatically.
        id_key: feature or column with the ids.
        label_key: feature or column with the labels.
        domain_key: feature or column with the domains.
        leave_out: folder that is not searched for pictures, such as the work directory.
        download: allow a missing dataset to be downloaded, and TFDS to run the program that
            prepares it.
        verify: basis of the fingerprint of files: ``stat`` takes sizes and times of change,
            ``content`` reads them.

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
        (3, Item(id='1', content=array([0., 1., 0.], dtype=float32)))
    """
    check_choice("verify", verify, ("stat", "content"))
    scheme, _, rest = spec.partition(":")
    if scheme not in SCHEMES:
        scheme, _, rest = detect(spec, SCHEMES).partition(":")
    if scheme not in SCHEMES or not rest:
        raise InputError(f"source {spec!r} is not one of {listed(SCHEMES)}")
    options = Options(
        split=split,
        data_dir=data_dir,
        recipe=recipe,
        content_key=content_key,
        id_key=id_key,
        label_key=label_key,
        domain_key=domain_key,
        leave_out=leave_out,
        download=download,
        verify=verify,
    )
    return SCHEMES[scheme](rest, options)
