"""Source of a split of a TensorFlow dataset, read by array_record without TensorFlow."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcurate.artifacts import files
from jaxcurate.artifacts.local import is_local
from jaxcurate.checks import InputError
from jaxcurate.sources.base import Annotations, Item, Kind, Options, UnreadableItem
from jaxcurate.sources.names import content_id, printable
from jaxcurate.sources.prepared import import_tfds, open_folder, open_prepared
from jaxcurate.sources.synthetic import glyphs
from jaxcurate.sources.synthetic.building import quiet
from jaxcurate.sources.synthetic.recipe import Recipe, web_like
from jaxcurate.sources.synthetic.weblike import NAME as WEBLIKE
from jaxcurate.sources.synthetic.weblike import prepare, prepared

_ROWS_AT_ONCE = 512


class DatasetSource:
    """Source of one split of a prepared TFDS dataset.

    The content is the feature "image", or else the first image feature, the feature "text" or the
    first text feature. Pictures are read as they are stored, encoded. The id is the text feature
    "id", or else a hash of the content. For evaluation only, the label is the feature "label", or
    the first class label, and the domain is the feature "domain".

    Args:
        builder: TFDS builder whose data are prepared.
        split: "train", "test", or a slice such as "train[:1000]".
        content_key: name of the feature with the content, if it differs from this rule.
        id_key: name of the feature with the ids, if it differs from this rule.
        label_key: name of the feature with the labels, if it differs from this rule.
        domain_key: name of the feature with the domains, if it differs from this rule.

    Raises:
        InputError: the dataset has no such split or image, or its files have no random access.
    """

    def __init__(
        self,
        builder: Any,
        split: str,
        *,
        content_key: str | None = None,
        id_key: str | None = None,
        label_key: str | None = None,
        domain_key: str | None = None,
    ) -> None:
        tfds = import_tfds()
        info, features = builder.info, builder.info.features
        self.name = f"tfds:{info.full_name}:{split}"
        images = _of_type(features, tfds.features.Image)
        texts = _of_type(features, tfds.features.Text)
        self._id_key = _choose(id_key, "id", [], features, self.name)
        self._domain_key = _choose(domain_key, "domain", [], features, self.name)
        notes = {self._id_key, self._domain_key, label_key}
        contents = [*images, *(text for text in texts if text not in notes)]
        usual = "image" if "image" in images or not texts else "text"
        self._content_key = _choose(content_key, usual, contents, features, self.name)
        if self._content_key not in [*images, *texts]:
            wanted = f"picture or text {content_key!r}" if content_key else "picture or text"
            raise InputError(f"{self.name} has no {wanted} among its features {sorted(features)}")
        self.kind: Kind = "picture" if self._content_key in images else "text"
        classes = _of_type(features, tfds.features.ClassLabel)
        self._label_key = _choose(label_key, "label", classes, features, self.name)
        self._features = features
        try:
            self._records = builder.as_data_source(
                split=split, decoders={key: tfds.decode.SkipDecoding() for key in images}
            )
            len(self._records)
        except ImportError as error:
            raise InputError(f"{self.name} cannot be read: {error}") from error
        except NotImplementedError as error:
            raise InputError(
                f"{self.name} is stored as {info.file_format}, which has no random access:"
                " prepare it with file_format='array_record'"
            ) from error
        except (ValueError, KeyError) as error:
            raise InputError(
                f"tfds:{info.full_name} has no split {split!r}; known are {', '.join(info.splits)}"
            ) from error
        self.fingerprint = self._fingerprint(builder.data_path)

    def _fingerprint(self, folder: Any) -> str:
        """Returns the fingerprint of the split, the metadata, and the names and sizes of files."""
        parts = [self.name, self._content_key]
        for file in sorted(folder.iterdir()):
            # Metadata count records and bytes, while the size of a file is that of whole blocks.
            content = file.read_text() if file.suffix == ".json" else str(file.stat().length)
            parts += [file.name, content]
        return files.fingerprint(parts)

    @property
    def ids_are_hashes(self) -> bool:
        """True if the id of an item is a hash of its content, equal for equal items."""
        return self._id_key is None

    def __len__(self) -> int:
        return len(self._records)

    def read(self, row: int) -> Item:
        record = self._records[row]
        content = record[self._content_key]
        id_ = _text(record[self._id_key]) if self._id_key else content_id(content)
        return Item(id_, content if self.kind == "picture" else _decoded(content, id_))

    def annotations(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        labels, domains = [], []
        rows = [int(row) for row in rows]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            for record in self._records.__getitems__(rows[start : start + _ROWS_AT_ONCE]):
                labels.append(self._annotation(record, self._label_key))
                domains.append(self._annotation(record, self._domain_key))
        return Annotations(np.array(labels, np.str_), np.array(domains, np.str_))

    def _annotation(self, record: Mapping[str, Any], key: str | None) -> str:
        if key is None:
            return ""
        value, feature = record[key], self._features[key]
        return feature.int2str(int(value)) if hasattr(feature, "int2str") else _text(value)


def open_named(name: str, options: Options) -> DatasetSource:
    """Opens ``tfds:NAME``, or ``tfds:PATH`` of the folder of one version, from the files.

    Unless `download` is set, nothing is downloaded and no program of the dataset is run or
    imported. ``weblike`` and ``glyphs`` are made from local files by this package, if they
    do not exist.

    Args:
        name: ``NAME``, ``NAME/CONFIG`` or ``NAME/CONFIG:VERSION``, or the path of a folder with
            ``features.json``, such as ``/data/mnist/3.0.1``, wherever it is. ``weblike`` is made
            from a recipe, and ``weblike/DIGEST`` names one that was made before. ``glyphs/SIZE``
            is made from fonts.
        options: options of the source, all but `leave_out` of which are used.

    Raises:
        InputError: there is no such dataset, or it has no random access.
    """
    data_dir = options.data_dir or os.environ.get("JAXCURATE_DATA") or "data"
    data_dir, recipe = os.path.expanduser(data_dir), options.recipe
    if recipe is not None and name != WEBLIKE:
        raise InputError(f"a recipe makes tfds:{WEBLIKE}; tfds:{name} takes none")
    if is_folder_of_version(name):
        folder = os.path.expanduser(name) if is_local(name) else name
        with quiet():
            builder = open_folder(name, folder)
    elif name.partition("/")[0] in (WEBLIKE, glyphs.NAME):
        if not is_local(data_dir):
            raise InputError(f"tfds:{name} needs a local data_dir, not {data_dir}")
        builder = open_folder(name, _made_here(name, data_dir, recipe))
    else:
        builder = _builder(name, data_dir, options.download)
    return DatasetSource(
        builder,
        options.split,
        content_key=options.content_key,
        id_key=options.id_key,
        label_key=options.label_key,
        domain_key=options.domain_key,
    )


def _made_here(name: str, data_dir: str, recipe: Recipe | None) -> Path:
    """Returns the folder of a dataset that this package makes from local files."""
    dataset, _, config = name.partition("/")
    if dataset == glyphs.NAME:
        return glyphs.prepare(data_dir, config or glyphs.SIZES[0])
    return prepared(name, data_dir) if config else prepare(recipe or web_like(), data_dir)


def is_folder_of_version(name: str) -> bool:
    """Returns whether the name of a dataset is a path: of the folder of one version of it.

    Examples:
        >>> is_folder_of_version("mnist/3.0.1"), is_folder_of_version("/data/mnist/3.0.1")
        (False, True)
    """
    if not is_local(name) or name.startswith(("/", "~", "./", "../")):
        return True
    return os.path.isfile(os.path.join(name, "features.json"))


def _builder(name: str, data_dir: str | os.PathLike, download: bool) -> Any:
    tfds = import_tfds()
    with quiet():
        builder = open_prepared(name, data_dir)
        if builder is not None:
            return builder
        if not download:
            raise InputError(
                f"tfds:{name} is not in {data_dir}: config.download=True lets TFDS download and "
                "prepare it, for which TFDS runs the dataset's program"
            )
        try:
            builder = tfds.builder(name, data_dir=os.fspath(data_dir))
        except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"tfds:{name} is not in {data_dir} nor in TFDS ({reason})") from error
        if not builder.is_prepared():
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=config, file_format="array_record")
        return builder


def _of_type(features: Mapping[str, Any], kind: type) -> list[str]:
    return [key for key, feature in features.items() if isinstance(feature, kind)]


def _choose(
    given: str | None, usual: str, suitable: list[str], features: Mapping[str, Any], name: str
) -> str | None:
    if given is not None and given not in features:
        raise InputError(f"{name} has no feature {given!r} among {sorted(features)}")
    if given is not None or usual in features:
        return given or usual
    return suitable[0] if suitable else None


def _decoded(text: bytes | str, id_: str) -> str:
    """Returns a text, or the error of bytes that are not UTF-8."""
    try:
        return text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise UnreadableItem(id_, "not UTF-8") from error


def _text(value: Any) -> str:
    return printable(value) if isinstance(value, bytes) else str(value)
