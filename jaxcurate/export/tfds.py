"""Export of items as a dataset of TensorFlow Datasets, in ArrayRecord files."""

import contextlib
import os
import shutil
import tempfile
from typing import Any

import numpy as np
from etils import epath

from jaxcurate.artifacts.files import is_local
from jaxcurate.artifacts.folders import NewFolder
from jaxcurate.checks import InputError
from jaxcurate.export.base import Plan, Shard, encoded, repeated, shard_name, utf8, vector
from jaxcurate.export.tables import arrow_dtype
from jaxcurate.sources.base import Kind
from jaxcurate.sources.prepared import import_tfds
from jaxcurate.sources.synthetic.building import quiet

_BLOCK_BYTES = 2**20
_STEM, _SPLIT = "items", "train"
_FEATURE = {"picture": "image", "text": "text", "vector": "vector"}


class TfdsFormat:
    """Folder that ``tfds.builder_from_directory(folder).as_data_source("train")`` reads.

    The features are ``id``, ``row`` and ``image``, ``text`` or ``vector``. An item that was drawn
    twice is there twice. Pictures are bytes as they are stored: TFDS decodes them with Pillow in
    any of its formats, TensorFlow only BMP, GIF, JPEG and PNG, and a picture with transparency has
    four channels. Vectors keep their type, but bfloat16, which becomes float32.
    """

    name = "tfds"
    kinds: tuple[Kind, ...] = ("picture", "text", "vector")
    needs_content = True
    repeats = True
    in_shards = True

    def write_shard(self, folder: NewFolder, shard: Shard) -> int:
        """Writes one ArrayRecord file, each record of which is a ``tf.train.Example``."""
        name = _name(shard.index, shard.n_shards)
        if is_local(folder.path):
            n = _write(folder.path / name, shard)
            folder.adopt(folder.path / name)
            return n
        # ArrayRecord writes local files only: a shard at a time passes through one.
        with tempfile.TemporaryDirectory() as place:
            n = _write(epath.Path(place) / name, shard)
            _send(epath.Path(place) / name, folder)
        return n

    def finish(self, folder: NewFolder, plan: Plan) -> None:
        """Writes ``features.json`` and ``dataset_info.json``."""
        with contextlib.ExitStack() as stack:
            place = folder.path
            if not is_local(place):
                place = epath.Path(stack.enter_context(tempfile.TemporaryDirectory()))
                for index in range(len(plan.n_records)):  # only the names of these files are read
                    (place / _name(index, len(plan.n_records))).touch()
            before = {path.name for path in place.iterdir()}
            self._write_metadata(place, folder, plan)
            for path in sorted(place.iterdir()):
                if path.name not in before:
                    folder.adopt(path) if place == folder.path else _send(path, folder)

    def _write_metadata(self, place: epath.Path, folder: NewFolder, plan: Plan) -> None:
        tfds = import_tfds()
        n, dtype = len(plan.n_records), plan.dtype and arrow_dtype(np.dtype(plan.dtype)).name
        template = tfds.core.ShardedFileTemplate(
            template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            data_dir=place,
            dataset_name=_STEM,
            filetype_suffix="array_record",
            split=_SPLIT,
        )
        split = tfds.core.SplitInfo(
            name=_SPLIT,
            shard_lengths=list(plan.n_records),
            num_bytes=sum(folder.files[_name(index, n)]["bytes"] for index in range(n)),
            filename_template=template,
        )
        with quiet():
            tfds.folder_dataset.write_metadata(
                data_dir=place,
                features=_features(plan.kind, plan.width, dtype),
                split_infos=[split],
                filename_template=template,
                check_data=False,
                description=f"Items of the subset {plan.name}.",
            )


def _write(path: epath.Path, shard: Shard) -> int:
    """Writes a local ArrayRecord file, and returns the number of its records."""
    from array_record.python.array_record_module import ArrayRecordWriter

    # With groups of one record, a record is read without its neighbors. Pictures are compressed
    # already.
    options = "group_size:1" + (",uncompressed" if shard.kind == "picture" else "")
    n, serializer = 0, None
    try:
        writer = ArrayRecordWriter(os.fspath(path), options)
        try:
            for item in repeated(shard.items):
                content: Any
                if shard.kind == "vector":
                    content = vector(item)
                    content = content.astype(arrow_dtype(content.dtype), copy=False)
                    form = len(content), content.dtype.name
                else:
                    content, form = encoded(item), (None, None)
                serializer = serializer or _serializer(shard.kind, *form)
                id_ = utf8(item.id, f"id {item.id!r}")
                values = {"id": id_, "row": item.row, _FEATURE[shard.kind]: content}
                example = serializer.get_tf_example(values)
                # Otherwise each process puts the features in an order of its own.
                writer.write(example.SerializeToString(deterministic=True))
                n += 1
        finally:
            writer.close()
    except (RuntimeError, OSError) as error:
        raise InputError(f"cannot write {path}: {error}") from error
    return n


def _send(path: epath.Path, folder: NewFolder) -> None:
    """Copies a local file to a folder in a bucket."""
    with open(path, "rb") as file, folder.create(path.name) as copy:
        shutil.copyfileobj(file, copy, _BLOCK_BYTES)


def _name(index: int, n_shards: int) -> str:
    return shard_name(index, n_shards, "", f"{_STEM}-{_SPLIT}.array_record")


def _features(kind: Kind, width: int | None, dtype: str | None) -> Any:
    """Returns the features of a record, of which only vectors depend on width and type."""
    features = import_tfds().features
    if kind == "picture":
        content = features.Image()
    elif kind == "text":
        content = features.Text()
    else:
        content = features.Tensor(shape=(width,), dtype=np.dtype(dtype))
    return features.FeaturesDict(
        {"id": features.Text(), "row": features.Scalar(np.int64), _FEATURE[kind]: content}
    )


def _serializer(kind: Kind, width: int | None, dtype: str | None) -> Any:
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    return ExampleSerializer(_features(kind, width, dtype).get_serialized_info())
