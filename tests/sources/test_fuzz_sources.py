"""A hundred hostile pictures and arrays, and those that failed once."""

import warnings

import numpy as np
import pytest
from faults import fuzz_sources
from faults.fuzz_sources import Edit, check_array, check_picture, edited
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

EDITS = st.lists(
    st.builds(
        Edit,
        st.sampled_from(["set", "set", "set", "insert", "drop", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)
few = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def npy(header: str, data: bytes = b"") -> bytes:
    """A file with a header of our own."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def described(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


@pytest.fixture(autouse=True)
def quiet():
    """Warnings are no errors, as in a run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@given(st.sampled_from(fuzz_sources.whole_pictures()), EDITS)
@few
def test_broken_pictures_are_read_or_refused(whole, edits):
    check_picture(edited(whole, edits))


@given(st.binary(max_size=100))
@example(b"")
@example(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
@example(b"P6 99999999 99999999 255\n")
@example(b"\xd7\xcd\xc6\x9a" + b"\0" * 80)  # a Windows metafile
@few
def test_noise_is_no_picture(data):
    check_picture(data)


@given(st.sampled_from(fuzz_sources.whole_arrays()), EDITS)
@few
def test_broken_arrays_are_read_or_refused(tmp_path, whole, edits):
    check_array(edited(whole, edits), tmp_path)


@given(st.text(max_size=60))
@example(described("(4611686018427387904, 4)"))
@example(described("(-1, 4)"))
@example(described("(True, 4)"))
@example(described("(2, 0)"))
@example(described("(1, 1)", "'|O'"))
@example(described("(1, 1)", "'(3,)<f4'"))
@example(described("(1, 1)", "[('a', '<f4')]"))
@example(described("(1, 1)", "'<f4', 'x': __import__('os').getpid()"))
@example("{" * 5000)
@example("-" * 9000 + "1")
@example("\\d")
@example("'\\d'")
@example("1if 1else 2")
@few
def test_headers_of_any_text_are_refused(tmp_path, header):
    check_array(npy(header.encode("latin1", "replace").decode("latin1"), b"\0" * 64), tmp_path)


def test_whole_files_are_read(tmp_path):
    assert all(map(check_picture, fuzz_sources.whole_pictures()))
    read = [check_array(whole, tmp_path) for whole in fuzz_sources.whole_arrays()]
    assert sum(read) >= 15 and not all(read)
    assert check_array(npy(described("(2, 2)"), np.ones(4, "<f4").tobytes()), tmp_path)


def test_the_run_of_the_script_counts_what_it_tries():
    counts = fuzz_sources.run(200, seed=1)
    assert sum(sum(of.values()) for of in counts.values()) == 200
    assert all(of["read"] and of["refused"] for of in counts.values())
    assert fuzz_sources.run(200, seed=1) == counts
