"""The checkpoint reader returns tensors, and refuses everything else without running it."""

import builtins
import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from jaxcurate.models import torch_checkpoint
from jaxcurate.models.torch_checkpoint import read_torch_checkpoint

# Only PyTorch writes this format, so the checkpoint here is assembled from pickle opcodes.
PROTOCOL, NONE, FALSE, STOP = b"\x80\x02", b"N", b"\x89", b"."
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
VERSION = pickle.dumps(1001, 2)
PLATFORM = pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def group(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + group(*arguments) + b"R"


def tensor(key, count, offset, shape, strides, kind="FloatStorage") -> bytes:
    storage = group(
        text("storage"), name("torch", kind), text(key), text("cpu"), integer(count), NONE
    )
    sizes = group(*map(integer, shape)), group(*map(integer, strides))
    hooks = call(name("collections", "OrderedDict"))
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, storage + b"Q", integer(offset), *sizes, FALSE, hooks)


def state_dict(**tensors: bytes) -> bytes:
    items = b"".join(text(key) + value for key, value in tensors.items())
    return PROTOCOL + call(name("collections", "OrderedDict")) + b"(" + items + b"u" + STOP


def storages(**arrays: np.ndarray) -> bytes:
    blocks = [struct.pack("<q", array.size) + array.tobytes() for array in arrays.values()]
    return pickle.dumps(list(arrays), 2) + b"".join(blocks)


FLOATS = np.arange(6, dtype="<f4") / 7
COUNT = np.array([3], dtype="<i8")
OBJECT = state_dict(
    matrix=tensor("a", 6, 0, (2, 3), (1, 2)),
    part=tensor("a", 6, 2, (3,), (1,)),
    count=tensor("b", 1, 0, (), (), "LongStorage"),
)
STORAGES = storages(a=FLOATS, b=COUNT)
GOOD = MAGIC + VERSION + PLATFORM + OBJECT + STORAGES


def with_object(content: bytes) -> bytes:
    return MAGIC + VERSION + PLATFORM + content + STORAGES


def read(folder: Path, content: bytes) -> dict[str, np.ndarray]:
    """Reads `content` with its own digest as the expected one."""
    path = folder / "weights.pth"
    path.write_bytes(content)
    return read_torch_checkpoint(path, hashlib.sha256(content).hexdigest())


def test_tensors_come_back_in_their_shapes_and_strides(tmp_path):
    tensors = read(tmp_path, GOOD)
    assert list(tensors) == ["matrix", "part", "count"]
    np.testing.assert_array_equal(tensors["matrix"], FLOATS.reshape(3, 2).T)
    np.testing.assert_array_equal(tensors["part"], FLOATS[2:5])
    np.testing.assert_array_equal(tensors["count"], 3)
    assert tensors["matrix"].dtype == np.float32 and tensors["count"].dtype == np.int64
    tensors["matrix"][:] = 0  # the tensors share no memory
    np.testing.assert_array_equal(tensors["part"], FLOATS[2:5])


def test_attributes_set_on_the_dictionary_are_harmless(tmp_path):
    metadata = b"}" + text("_metadata") + b"}s"  # PyTorch stores layer versions this way
    tensors = read(tmp_path, with_object(OBJECT[:-1] + metadata + b"b" + STOP))
    np.testing.assert_array_equal(tensors["part"], FLOATS[2:5])


class Payload:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["first", "object", "value", "last"])
@pytest.mark.parametrize("payload", ["system", "eval", "open", "getattr", "numpy"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, payload, place, protocol):
    trace = tmp_path / "trace"
    evil = {
        "system": Payload(os.system, f"touch '{trace}'"),
        "eval": Payload(builtins.eval, f"open({str(trace)!r}, 'w')"),
        "open": Payload(builtins.open, str(trace), "w"),
        "getattr": Payload(builtins.getattr, "", "join"),
        "numpy": np.array(["an object array"], dtype=object),
    }[payload]
    content = {
        "first": pickle.dumps(evil, protocol) + VERSION + PLATFORM + OBJECT + STORAGES,
        "object": with_object(pickle.dumps(evil, protocol)),
        "value": with_object(pickle.dumps({"weight": evil}, protocol)),
        "last": MAGIC + VERSION + PLATFORM + OBJECT + pickle.dumps([evil], protocol),
    }[place]
    with pytest.raises(ValueError, match=r"weights\.pth: .*refused to resolve"):
        read(tmp_path, content)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("collections", "deque"),
        ("torch", "load"),
        ("torch", "FloatStorage.from_file"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("jaxcurate.models.torch_checkpoint", "OrderedDict"),
    ],
)
def test_names_beside_the_allowed_ones_are_refused(tmp_path, module, attribute):
    by_stack = b"\x80\x04" + text(module) + text(attribute) + b"\x93" + STOP
    for content in (PROTOCOL + name(module, attribute) + STOP, by_stack):
        with pytest.raises(ValueError, match=rf"refused to resolve {module}\.{attribute}"):
            read(tmp_path, with_object(content))


def test_one_file_cannot_change_how_the_next_is_read(tmp_path):
    state = group(NONE, b"}" + text("__kwdefaults__") + b"}s")
    changed = PROTOCOL + name("torch._utils", "_rebuild_tensor_v2") + state + b"b" + STOP
    with pytest.raises(ValueError, match=r"weights\.pth"):
        read(tmp_path, with_object(changed))
    changed = PROTOCOL + name("collections", "OrderedDict") + state + b"b" + STOP
    with pytest.raises(ValueError, match=r"weights\.pth"):
        read(tmp_path, with_object(changed))
    assert list(read(tmp_path, GOOD)) == ["matrix", "part", "count"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_object(pickle.dumps({"weight": 1.0}, 2)), "more than named tensors"),
        (with_object(pickle.dumps([], 2)), "more than named tensors"),
        (with_object(state_dict(x=tensor("a", 6, 0, (2, 3), (3, 1)))), "list of storages"),
        (GOOD + b"\0", "bytes are left"),
        (pickle.dumps(1, 2) + GOOD[len(MAGIC) :], "magic number"),
        (MAGIC + pickle.dumps(1002, 2) + PLATFORM + OBJECT + STORAGES, "version"),
        (
            MAGIC + VERSION + pickle.dumps({"little_endian": False}, 2) + OBJECT + STORAGES,
            "big-endian",
        ),
        (MAGIC + VERSION + PLATFORM + OBJECT + storages(a=FLOATS[:5], b=COUNT), "another size"),
        (b"PK\x03\x04" + GOOD, "zip archive"),
    ],
)
def test_what_is_no_such_checkpoint_is_refused(tmp_path, content, reason):
    with pytest.raises(ValueError, match=rf"weights\.pth: .*{reason}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2, 3), (4, 1)),
        (-1, (2,), (1,)),
        (5, (2,), (-1,)),
        (0, (-2, -3), (1, 1)),
        (0, (1000, 1000), (0, 0)),
        (0, (2, 3), (1,)),
        (6, (), ()),
    ],
)
def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path, offset, shape, strides):
    content = state_dict(x=tensor("a", 6, offset, shape, strides), y=tensor("b", 1, 0, (1,), (1,)))
    with pytest.raises(ValueError, match=r"weights\.pth: .*a tensor "):
        read(tmp_path, MAGIC + VERSION + PLATFORM + content + storages(a=FLOATS, b=FLOATS[:1]))


def test_every_truncation_is_refused_even_with_its_own_digest(tmp_path):
    for length in range(len(GOOD)):
        with pytest.raises(ValueError, match=r"weights\.pth"):
            read(tmp_path, GOOD[:length])


def test_another_digest_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_checkpoint, "_read", lambda _: pytest.fail("was interpreted"))
    path = tmp_path / "weights.pth"
    expected = hashlib.sha256(GOOD).hexdigest()
    for content in (GOOD[:-1], GOOD[:-1] + b"\1", GOOD + b"\0", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"weights\.pth: sha256 is .*, expected {expected}"):
            read_torch_checkpoint(path, expected)


def test_a_huge_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_checkpoint, "MAX_BYTES", len(GOOD) - 1)
    with pytest.raises(ValueError, match=r"weights\.pth: larger than"):
        read(tmp_path, GOOD)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        read_torch_checkpoint(tmp_path / "weights.pth", "")
