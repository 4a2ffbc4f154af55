"""Vision Transformers with published weights, and folders of weights that others can load."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx

from jaxcurate.artifacts import folders
from jaxcurate.checks import InputError, short_repr
from jaxcurate.dataclass_fields import to_dataclass
from jaxcurate.models.layouts import LAYOUTS, TOWERS, Layout, Settings
from jaxcurate.models.parameters import Published, published
from jaxcurate.models.picture_input import FILE, PictureInput, read_picture_input, to_published
from jaxcurate.models.vit import ViT
from jaxcurate.models.vit_config import Precision, ViTArchitecture
from jaxcurate.models.weight_files import Checkpoint, local_folder, open_checkpoint, read_json

OWN = "jaxcurate_vit"
"""Type of a model that no published layout can express."""
KIND = "weights"
"""Kind of the folders that :func:`save_vit` writes."""
_CONFIG = "config.json"
_TENSORS = "model.safetensors"


class PretrainedInfo(NamedTuple):
    """Facts about loaded weights."""

    folder: Path
    """Folder that they were read from."""
    model_type: str
    """Type of the model in ``config.json``."""
    picture: PictureInput
    """Preprocessing of pictures that the weights were made for."""
    ignored: tuple[str, ...]
    """Names of tensors that features do not depend on, such as those of a text tower."""


def load_vit(
    folder: str | os.PathLike, *, precision: Precision = "float32"
) -> tuple[ViT, PretrainedInfo]:
    """Loads a pretrained Vision Transformer from a folder in a published layout.

    The folder has a ``config.json`` and safetensors files, as ``save_pretrained`` of transformers
    writes them for DINOv2 (also with registers), DINOv3, SigLIP and SigLIP 2 of a fixed size,
    CLIP and ViT, or as :func:`save_vit` does. Images of any size are taken. The features of a
    call are the normalized class token, for CLIP projected if the file has a projection, and for
    SigLIP the vector of its attention pooling.

    Args:
        folder: the folder, or ``hf:NAME`` or ``hf:NAME@REVISION`` on the Hugging Face hub, for
            which ``huggingface_hub`` has to be installed.
        precision: precision of activations; weights are float32 either way.

    Returns:
        The model and facts about its weights.

    Raises:
        InputError: the model is of an unknown type, a file is damaged, or a tensor is missing,
            left over or of another shape; the message is one line that names it.

    Examples:
        >>> import tempfile
        >>> from jaxcurate.models import ViTConfig
        >>> model = ViT(ViTConfig(8, patch_size=4, width=8, depth=1), rngs=nnx.Rngs(0))
        >>> with tempfile.TemporaryDirectory() as work:
        ...     save_vit(model, f"{work}/weights")
        ...     loaded, info = load_vit(f"{work}/weights")
        >>> info.model_type, loaded.config.positions
        ('siglip_vision_model', 'learned')
    """
    path = local_folder(folder)
    settings = read_json(path / _CONFIG)
    checkpoint = open_checkpoint(path)
    model_type = settings.get("model_type")
    if model_type == OWN:
        config = to_dataclass(ViTArchitecture, settings.get("vit", {}), f"{path / _CONFIG}: vit")
        layout, prefix = None, ""
        picture = PictureInput(config.image_size, config.image_size)
    else:
        model_type, layout = _layout(path, model_type)
        prefix = _prefix(path, layout, checkpoint)
        config = _architecture(path, model_type, settings, layout, prefix, checkpoint)
        picture = layout.picture(config)
    config = dataclasses.replace(config, precision=precision)
    model = _abstract(config)
    used = _fill(model, path, layout, prefix, checkpoint)
    ignored = tuple(sorted(set(checkpoint.shapes) - used))
    for name in ignored:
        if 0 in checkpoint.shapes[name]:  # such as no registers, which hold no numbers
            continue
        if layout is None or not name.startswith(layout.ignored):
            raise InputError(f"{path}: tensor {name} is left over; the model has no place for it")
    return model, PretrainedInfo(path, str(model_type), read_picture_input(path, picture), ignored)


def save_vit(model: ViT, folder: epath.PathLike, *, picture: PictureInput | None = None) -> None:
    """Writes a Vision Transformer to a folder that :func:`load_vit` reads.

    If a published layout can express the model, it is written in this layout, so that transformers
    loads it as well; the model of training is a SigLIP without a head, whose features are the mean
    of its tokens. Any other model is written with the names of its parameters. Precision and the
    rate of skipped blocks are not written.

    Args:
        model: the model.
        folder: path of the folder, which appears whole or not at all. A folder that this function
            wrote is replaced, any other is left as it is.
        picture: preprocessing of pictures; by default the central square, scaled to [-1, 1].

    Raises:
        InputError: the folder cannot be written.

    Examples:
        >>> import tempfile
        >>> from jaxcurate.models import ViTConfig
        >>> model = ViT(ViTConfig(8, patch_size=4, width=8, depth=1), rngs=nnx.Rngs(0))
        >>> with tempfile.TemporaryDirectory() as work:
        ...     save_vit(model, f"{work}/weights")
        ...     sorted(file.name for file in Path(work, "weights").iterdir())
        ['card.json', 'config.json', 'model.safetensors', 'preprocessor_config.json']
    """
    from safetensors.numpy import save

    config = model.config
    side = config.image_size
    picture = PictureInput(side, side) if picture is None else picture
    parameters = _parameters(model)
    if config.positions == "sine_cosine":
        parameters["places"] = _sine_cosine_table(config)
        learned = dataclasses.replace(config, positions="learned")
    else:
        learned = config
    found = _saved_layout(learned, parameters)
    if found is None:
        tensors = _parameters(model)
        settings = {"model_type": OWN, "vit": dataclasses.asdict(_plain(config))}
    else:
        model_type, settings, parts = found
        settings = {"model_type": model_type, **settings}
        tensors = {}
        for part in parts:
            tensors |= part.split(parameters[part.path])
    # Programs of other frameworks ask for the entry "format".
    content = save({n: np.ascontiguousarray(t) for n, t in tensors.items()}, {"format": "pt"})
    with folders.new_folder(folder, {}, KIND) as target:
        target.write_text(_CONFIG, json.dumps(settings, indent=2) + "\n")
        target.write_text(FILE, json.dumps(to_published(picture), indent=2) + "\n")
        with target.create(_TENSORS) as file:
            file.write(content)


def _layout(path: Path, model_type: Any) -> tuple[str, Layout]:
    """Returns a type, and its layout if it is known."""
    if isinstance(model_type, str) and model_type in LAYOUTS:
        return model_type, LAYOUTS[model_type]
    hint = ""
    if model_type in ("siglip2", "siglip2_vision_model"):
        hint = " (SigLIP 2 is supported in its versions of a fixed size only)"
    known = ", ".join(map(repr, (*LAYOUTS, OWN)))
    raise InputError(f"{path / _CONFIG}: model_type={short_repr(model_type)}{hint}; known: {known}")


def _prefix(path: Path, layout: Layout, checkpoint: Checkpoint) -> str:
    """Returns the prefix of the tensors, by the one of the patches, which all models have."""
    name = f"{layout.names['embed']}.weight"
    for prefix in layout.prefixes:
        if prefix + name in checkpoint.shapes:
            return prefix
    raise InputError(f"{path}: tensor {layout.prefixes[0]}{name} is missing")


def _architecture(
    path: Path,
    model_type: str,
    settings: Mapping[str, Any],
    layout: Layout,
    prefix: str,
    checkpoint: Checkpoint,
) -> ViTArchitecture:
    """Returns the shape of the model that a config.json describes."""
    if model_type in TOWERS:
        nested = settings.get("vision_config")
        if nested is not None and not isinstance(nested, Mapping):
            raise InputError(f"{path / _CONFIG}: vision_config={short_repr(nested)} is no object")
        settings = nested or {}
    names = {name.removeprefix(prefix) for name in checkpoint.shapes}
    try:
        return layout.architecture(Settings(settings), names, checkpoint.shapes)
    except InputError as error:
        raise InputError(f"{path / _CONFIG}: {error}") from error


def _abstract(config: ViTArchitecture) -> ViT:
    """Returns the model with shapes in place of weights, as random ones would take seconds."""
    return nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0)))


def _paths(model: ViT) -> dict[str, nnx.Variable]:
    """Returns the variables of a model by their names, such as ``blocks.3.qkv.kernel``."""
    found = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        found[".".join(map(str, path))] = variable
    return found


def _parameters(model: ViT) -> dict[str, np.ndarray]:
    return {name: np.asarray(variable[...]) for name, variable in _paths(model).items()}


def _fill(
    model: ViT, path: Path, layout: Layout | None, prefix: str, checkpoint: Checkpoint
) -> set[str]:
    """Fills all parameters of an abstract model, and returns the names of the tensors used."""
    used: set[str] = set()
    state = nnx.state(model)
    filled = []
    for keys, variable in nnx.to_flat_state(state):
        name = ".".join(map(str, keys))
        shape = tuple(variable.shape)
        if layout is None:
            part = Published(name, shape, {name: shape}, model.config.patch_size)
        else:
            part = published(layout, model.config, name, shape, prefix)
            assert part is not None, name  # each layout names all that its settings ask for
        for tensor, expected in part.tensors.items():
            found = checkpoint.shapes.get(tensor)
            if found is None:
                raise InputError(f"{path}: tensor {tensor} is missing")
            if found != expected:
                raise InputError(
                    f"{path}: tensor {tensor} has shape {found}, but {_CONFIG} wants {expected}"
                )
        tensors = {tensor: checkpoint.read(tensor) for tensor in part.tensors}
        used |= set(tensors)
        value = tensors[name] if layout is None else part.join(tensors)
        filled.append((keys, variable.replace(jnp.asarray(value))))
    nnx.update(model, nnx.from_flat_state(filled))
    return used


def _plain(config: ViTArchitecture) -> ViTArchitecture:
    """Returns a configuration without what a file does not tell."""
    return dataclasses.replace(config, precision="float32", drop_path=0.0, remat=False)


def _sine_cosine_table(config: ViTArchitecture) -> np.ndarray:
    """Returns fixed positions as a table of learned ones, with zeros for a class token."""
    from jaxcurate.models.positions import sine_cosine

    table = sine_cosine(config.grid, config.grid, config.width)
    return np.concatenate([np.zeros((int(config.class_token), config.width), np.float32), table])


def _saved_layout(
    config: ViTArchitecture, parameters: Mapping[str, np.ndarray]
) -> tuple[str, dict[str, Any], list[Published]] | None:
    """Returns the first published layout that reads back as the same model, or None.

    Returns:
        The type, its settings, and the tensors of every parameter.
    """
    expected = dataclasses.replace(
        _plain(config), any_size=True, heads_first=True, mlp_ratio=4, mlp_width=config.n_hidden
    )
    for model_type, layout in LAYOUTS.items():
        if model_type in TOWERS:
            continue
        prefix = layout.prefixes[0]
        parts = [
            published(layout, config, name, value.shape, prefix)
            for name, value in parameters.items()
        ]
        if None in parts:
            continue
        settings = layout.settings(config)
        shapes = {name: shape for part in parts if part for name, shape in part.tensors.items()}
        names = {name.removeprefix(prefix) for name in shapes}
        try:
            read = layout.architecture(Settings(settings), names, shapes)
        except InputError:
            continue
        same = dataclasses.replace(read, interpolation=expected.interpolation)
        if same == expected and (config.positions != "learned" or _resizes_alike(read, config)):
            return model_type, settings, [part for part in parts if part]
    return None


def _resizes_alike(read: ViTArchitecture, config: ViTArchitecture) -> bool:
    """Returns whether positions are resized in the same way, or were for one size only."""
    return read.interpolation == config.interpolation or not config.any_size
