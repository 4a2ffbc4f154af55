"""BERT in folders of the published layout, config.json and model.safetensors: read and written."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx

from jaxcurate.artifacts import folders
from jaxcurate.checks import InputError, check_whole, short_repr
from jaxcurate.models.bert import Bert, BertConfig, Precision, abstract_bert

CONFIG = "config.json"
"""Name of the file with the shape of the model."""
WEIGHTS = "model.safetensors"
"""Name of the file with the tensors of the model."""
UNUSED = (
    "pooler.",
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "cls.",
    "classifier.",
    "qa_outputs.",
)
"""Beginnings of the names of tensors that a file may hold besides those of the encoder: the layers
of pretraining and other tasks, and numbers that count from 0."""
KIND = "weights"
"""Kind of the folders that :func:`save_bert` writes."""
_PREFIX = "bert."
_FLOATS = ("F64", "F32", "F16", "BF16")
_SIZES = {
    "vocab_size": "vocab_size",
    "n_positions": "max_position_embeddings",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden": "intermediate_size",
}
"""Names of sizes in published files, which all state them, by our names."""
_NAMES_SHOWN = 3

Shape = tuple[int, ...]


def load_bert(folder: str | os.PathLike, precision: Precision = "float32") -> Bert:
    """Loads BERT from a local folder in the published layout.

    Every parameter is filled from the file, and every tensor of the file is used or begins with
    one of :data:`UNUSED`. Files of task models, in which names begin with ``bert.``, are read too.

    Args:
        folder: folder with ``config.json`` and ``model.safetensors``.
        precision: precision of activations and matrix products.

    Returns:
        The model; its weights are float32.

    Raises:
        InputError: a file is missing or damaged, or describes another model. The message starts
            with the path.

    Examples:
        >>> load_bert("/nowhere")
        Traceback (most recent call last):
        jaxcurate.checks.InputError: /nowhere/config.json: there is no such file
    """
    config = read_bert_config(Path(folder) / CONFIG, precision)
    return _filled(config, _read_tensors(Path(folder) / WEIGHTS, expected_shapes(config)))


def save_bert(model: Bert, folder: epath.PathLike) -> None:
    """Writes BERT to a folder in the published layout, which :func:`load_bert` reads.

    The precision of activations is not written.

    Args:
        model: the model.
        folder: path of the folder, which appears whole or not at all. A folder that this function
            wrote is replaced, any other is left as it is.

    Raises:
        InputError: the folder cannot be written.

    Examples:
        >>> import tempfile
        >>> config = BertConfig(vocab_size=9, width=8, depth=1, n_heads=2, hidden=16)
        >>> with tempfile.TemporaryDirectory() as work:
        ...     save_bert(Bert(config, rngs=nnx.Rngs(0)), f"{work}/weights")
        ...     load_bert(f"{work}/weights").config == config
        True
    """
    from safetensors.numpy import save

    config = model.config
    settings: dict[str, Any] = {"architectures": ["BertModel"], "model_type": "bert"}
    settings |= {theirs: getattr(config, ours) for ours, theirs in _SIZES.items()}
    settings |= {"type_vocab_size": config.n_types, "pad_token_id": config.pad_id}
    settings |= {"hidden_act": config.activation, "layer_norm_eps": config.epsilon}
    # Programs of other frameworks ask for the entry "format".
    content = save(_tensors(model), {"format": "pt"})
    with folders.new_folder(folder, {}, KIND) as target:
        target.write_text(CONFIG, json.dumps(settings, indent=2) + "\n")
        with target.create(WEIGHTS) as file:
            file.write(content)


def read_bert_config(path: Path, precision: Precision = "float32") -> BertConfig:
    """Reads the shape of a model from its published ``config.json``.

    Raises:
        InputError: the file is missing or damaged, or describes another kind of model.
    """
    values = read_json(path)
    kind = values.get("model_type")
    if kind != "bert":
        raise InputError(f"{path}: model_type={short_repr(kind)}; known: 'bert'")
    if (position := values.get("position_embedding_type", "absolute")) != "absolute":
        raise InputError(
            f"{path}: position_embedding_type={short_repr(position)}; known: 'absolute'"
        )
    if values.get("is_decoder"):
        raise InputError(f"{path}: is_decoder=true; only encoders are read")
    missing = [name for name in _SIZES.values() if name not in values]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing")
    epsilon = values.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise InputError(f"{path}: layer_norm_eps={short_repr(epsilon)} must be within (0, 1)")
    try:
        whole = {ours: values[name] for ours, name in _SIZES.items()}
        # The defaults are those of the original, for files from before there were these fields.
        whole["n_types"] = values.get("type_vocab_size", 2)
        whole["pad_id"] = values.get("pad_token_id", 0)
        for name, value in whole.items():
            check_whole(name, value)
        activation = values.get("hidden_act", "gelu")
        return BertConfig(**whole, activation=activation, epsilon=epsilon, precision=precision)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_json(path: Path, kind: type = dict) -> Any:
    """Reads a JSON file that holds an object, or a value of another type.

    Raises:
        InputError: the file cannot be read, is no JSON, or holds a value of another type.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: there is no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON file ({error})") from error
    if not isinstance(value, kind):
        raise InputError(f"{path}: must hold a {kind.__name__}, not a {type(value).__name__}")
    return value


def expected_shapes(config: BertConfig) -> dict[str, Shape]:
    """Returns the published names of all tensors of the encoder, with their shapes.

    Weights of linear layers are ``[out, in]``.

    Examples:
        >>> shapes = expected_shapes(BertConfig())
        >>> len(shapes), shapes["encoder.layer.0.intermediate.dense.weight"]
        (101, (1536, 384))
    """
    width, hidden = config.width, config.hidden
    shapes: dict[str, Shape] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, width),
        "embeddings.position_embeddings.weight": (config.n_positions, width),
        "embeddings.token_type_embeddings.weight": (config.n_types, width),
    }

    def add(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]

    add("embeddings.LayerNorm", width)
    for i in range(config.depth):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            add(f"{layer}.attention.self.{part}", width, width)
        add(f"{layer}.attention.output.dense", width, width)
        add(f"{layer}.attention.output.LayerNorm", width)
        add(f"{layer}.intermediate.dense", hidden, width)
        add(f"{layer}.output.dense", width, hidden)
        add(f"{layer}.output.LayerNorm", width)
    return shapes


def published_name(name: str) -> str:
    """Returns the name of a tensor in files of the encoder alone and of today.

    Task models put ``bert.`` before it, and the oldest files call the weight and the bias of a
    LayerNorm ``gamma`` and ``beta``.

    Examples:
        >>> published_name("bert.embeddings.LayerNorm.gamma")
        'embeddings.LayerNorm.weight'
    """
    name = name.removeprefix(_PREFIX)
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name


def _read_tensors(path: Path, expected: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    """Reads the expected tensors as float32.

    Raises:
        InputError: the file is missing or damaged, or its tensors are not the expected ones.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        others = sorted(p.name for p in path.parent.glob("*.bin"))
        instead = f"; {others[0]} is not read, because it may run code" if others else ""
        raise InputError(f"{path}: there is no such file{instead}")
    try:
        with safe_open(path, framework="numpy") as file:
            names: dict[str, str] = {}
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                if names.setdefault(published_name(name), name) != name:
                    raise InputError(f"{path}: two tensors are {published_name(name)!r}")
            shapes = {ours: tuple(file.get_slice(name).get_shape()) for ours, name in names.items()}
            check_shapes(path, shapes, expected)
            types = {ours: file.get_slice(names[ours]).get_dtype() for ours in expected}
            for name, dtype in types.items():
                if dtype not in _FLOATS:
                    raise InputError(f"{path}: {name} is {dtype}; known: {', '.join(_FLOATS)}")
            return {name: np.asarray(file.get_tensor(names[name]), np.float32) for name in expected}
    except SafetensorError as error:
        raise InputError(f"{path}: is truncated or no safetensors file ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def check_shapes(path: Path, shapes: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """Refuses tensors unless each one expected is there, in its shape, and no unknown ones are.

    Args:
        path: file that holds the tensors, for the message.
        shapes: shapes of the tensors in the file, by :func:`published_name`.
        expected: names and shapes of the tensors that the model needs.

    Raises:
        InputError: the tensors do not fit; the message names the first of them.

    Examples:
        >>> check_shapes(Path("x"), {"a": (2,), "cls.b": (1,)}, {"a": (2,)})
        >>> check_shapes(Path("x"), {"a": (2,)}, {"a": (3,)})
        Traceback (most recent call last):
        jaxcurate.checks.InputError: x: a has shape (2,), but config.json asks for (3,)
    """
    missing = [name for name in expected if name not in shapes]
    if missing:
        raise InputError(f"{path}: {len(missing)} tensor(s) missing: {_first(missing)}")
    left = [name for name in shapes if name not in expected and not name.startswith(UNUSED)]
    if left:
        raise InputError(f"{path}: {len(left)} tensor(s) unknown: {_first(sorted(left))}")
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise InputError(
                f"{path}: {name} has shape {shapes[name]}, but {CONFIG} asks for {shape}"
            )


def _first(names: list[str]) -> str:
    """Returns the first of the names, for a message."""
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _filled(config: BertConfig, tensors: Mapping[str, np.ndarray]) -> Bert:
    """Returns the model with the tensors, by their published names."""
    model = abstract_bert(config)

    def set_norm(layer: nnx.LayerNorm, name: str) -> None:
        layer.scale = _param(tensors[f"{name}.weight"])
        layer.bias = _param(tensors[f"{name}.bias"])

    def set_linear(layer: nnx.Linear, *names: str) -> None:
        # Layers of the same input are one, side by side.
        layer.kernel = _param(np.concatenate([tensors[f"{name}.weight"] for name in names]).T)
        layer.bias = _param(np.concatenate([tensors[f"{name}.bias"] for name in names]))

    model.words.embedding = _param(tensors["embeddings.word_embeddings.weight"])
    model.positions.embedding = _param(tensors["embeddings.position_embeddings.weight"])
    model.types.embedding = _param(tensors["embeddings.token_type_embeddings.weight"])
    _visit(model, set_norm, set_linear)
    return model


def _tensors(model: Bert) -> dict[str, np.ndarray]:
    """Returns the tensors of a model by their published names: the inverse of filling it."""
    tensors = {
        "embeddings.word_embeddings.weight": _host(model.words.embedding),
        "embeddings.position_embeddings.weight": _host(model.positions.embedding),
        "embeddings.token_type_embeddings.weight": _host(model.types.embedding),
    }

    def add_norm(layer: nnx.LayerNorm, name: str) -> None:
        tensors[f"{name}.weight"] = _host(layer.scale)
        tensors[f"{name}.bias"] = _host(layer.bias)

    def add_linear(layer: nnx.Linear, *names: str) -> None:
        kernels = np.split(_host(layer.kernel).T, len(names))
        biases = np.split(_host(layer.bias), len(names))
        for name, kernel, bias in zip(names, kernels, biases, strict=True):
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = kernel, bias

    _visit(model, add_norm, add_linear)
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _visit(
    model: Bert,
    norm: Callable[[nnx.LayerNorm, str], None],
    linear: Callable[..., None],
) -> None:
    """Calls a function for each LayerNorm and each linear layer, with the published names."""
    norm(model.norm, "embeddings.LayerNorm")
    for i, layer in enumerate(model.layers):
        name = f"encoder.layer.{i}"
        attention = f"{name}.attention"
        linear(layer.qkv, *(f"{attention}.self.{part}" for part in ("query", "key", "value")))
        linear(layer.out, f"{attention}.output.dense")
        norm(layer.norm_1, f"{attention}.output.LayerNorm")
        linear(layer.up, f"{name}.intermediate.dense")
        linear(layer.down, f"{name}.output.dense")
        norm(layer.norm_2, f"{name}.output.LayerNorm")


def _param(tensor: np.ndarray) -> nnx.Param:
    return nnx.Param(jnp.asarray(tensor))


def _host(variable: Any) -> np.ndarray:
    return np.asarray(variable[...])
