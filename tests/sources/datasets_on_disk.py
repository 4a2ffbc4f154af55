"""The same pictures written as a folder, tar files, Parquet files and a saved dataset."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("cat", "dog", "owl")


def pictures(n: int = 40) -> dict[str, bytes]:
    """Encoded pictures by their ids, which end without a suffix."""
    random = np.random.default_rng(0)
    made = {}
    for i in range(n):
        buffer = io.BytesIO()
        pixels = random.integers(0, 256, (5 + i % 7, 6, 3), np.uint8)
        Image.fromarray(pixels).save(buffer, "jpeg" if i % 2 else "png")
        made[f"{CLASSES[i % 3]}/{i:03}"] = buffer.getvalue()
    return dict(sorted(made.items()))


def suffix_of(data: bytes) -> str:
    return "png" if data.startswith(b"\x89PNG") else "jpg"


def class_of(id: str) -> int:
    return CLASSES.index(id.split("/")[0])


def write_folder(folder: Path, items: dict[str, bytes]) -> None:
    for id, data in items.items():
        path = folder / f"{id}.{suffix_of(data)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def tar_of(members: list[tuple[str, bytes]], **options) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def tars(items: dict[str, bytes], n_files: int = 3) -> list[bytes]:
    """Tar files with a picture, a class and a caption for each item."""
    files = []
    ids = list(items)
    for i in range(n_files):
        members = []
        for id in ids[i * len(ids) // n_files : (i + 1) * len(ids) // n_files]:
            note = json.dumps({"site": f"site-{class_of(id)}", "uid": id})
            members += [
                (f"{id}.{suffix_of(items[id])}", items[id]),
                (f"{id}.cls", str(class_of(id)).encode()),
                (f"{id}.txt", f"caption of {id}".encode()),
                (f"{id}.json", note.encode()),
            ]
        files.append(tar_of(members))
    return files


def features() -> dict:
    return {
        "id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "label": {"names": list(CLASSES), "_type": "ClassLabel"},
        "site": {"dtype": "string", "_type": "Value"},
    }


def table(items: dict[str, bytes]) -> pa.Table:
    """The columns that Hugging Face writes for a dataset of pictures."""
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {
        "id": pa.array(list(items)),
        "image": pa.array([{"bytes": data, "path": None} for data in items.values()], struct),
        "label": pa.array([class_of(id) for id in items], pa.int64()),
        "site": pa.array([f"site-{class_of(id)}" for id in items]),
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features()}}).encode()}
    return pa.table(columns).replace_schema_metadata(metadata)


def write_saved(folder: Path, of: pa.Table, n_files: int = 2, batch: int = 7) -> None:
    """Writes what `save_to_disk` writes."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{n_files:05}.arrow" for i in range(n_files)]
    for i, name in enumerate(names):
        begin, end = i * len(of) // n_files, (i + 1) * len(of) // n_files
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, of.schema) as out:
            out.write_table(of.slice(begin, end - begin), max_chunksize=batch)
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features()}))


def write_parquet(path: Path, of: pa.Table, row_group_size: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(of, path, row_group_size=row_group_size)
