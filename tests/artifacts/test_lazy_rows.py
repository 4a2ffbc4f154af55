"""Rows in several files are those of one array, and are read one file at a time."""

import ml_dtypes
import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcurate.artifacts import files
from jaxcurate.artifacts.lazy_rows import JoinedRows, LazyRows, RowsInFile, as_rows
from jaxcurate.checks import InputError
from jaxcurate.kmeans.row_view import RowView

N = 23


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes rows cut at positions, and returns them as they are read and as an array."""
    folder = epath.Path(tmp_path_factory.mktemp("rows"))
    whole = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)

    def write(cuts, array=whole):
        pieces = np.split(array, cuts)
        in_files = []
        for begin, piece in zip([0, *cuts], pieces, strict=True):
            path = folder / f"{array.dtype}-{array.ndim}-{begin}-{len(piece)}.npy"
            if not path.exists():
                stored = piece.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else piece
                np.save(path, stored)
            in_files.append(RowsInFile(path, len(piece)))
        return JoinedRows(in_files, array.shape[1:], array.dtype), array

    return write


cut_positions = st.lists(st.integers(1, N - 1), max_size=5, unique=True).map(sorted)
slices = st.builds(slice, *(st.none() | st.integers(-N - 3, N + 3) for _ in range(2)))
steps = st.builds(lambda s, step: slice(s.start, s.stop, step), slices, st.sampled_from([2, -1, 3]))
numbers = st.lists(st.integers(-N, N - 1), max_size=9).map(lambda rows: np.array(rows, int))
bools = st.lists(st.booleans(), min_size=N, max_size=N).map(np.array)
single = st.integers(-N, N - 1)


@settings(max_examples=200, deadline=None)
@given(cut_positions, slices | steps | numbers | bools | single)
def test_rows_are_those_of_the_array(written, cuts, rows):
    joined, whole = written(cuts)
    assert (joined.shape, joined.dtype, joined.ndim) == (whole.shape, whole.dtype, whole.ndim)
    assert (len(joined), joined.nbytes) == (len(whole), whole.nbytes)
    np.testing.assert_array_equal(joined[rows], whole[rows])
    view = RowView(joined)
    if not isinstance(rows, int):
        np.testing.assert_array_equal(view[rows], whole[rows])


@settings(max_examples=60, deadline=None)
@given(cut_positions, slices, slices, numbers)
def test_selected_rows_are_those_of_the_array(written, cuts, outer, inner, rows):
    joined, whole = written(cuts)
    chosen, expected = joined.select(outer), whole[outer]
    assert len(chosen) == len(expected)
    np.testing.assert_array_equal(chosen[inner], expected[inner])
    np.testing.assert_array_equal(chosen.select(inner)[:], expected[inner])
    within = rows % max(1, len(expected)) if len(expected) else rows[:0]
    np.testing.assert_array_equal(chosen[within], expected[within])
    np.testing.assert_array_equal(RowView(joined).select(outer).select(inner)[:], expected[inner])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.int8])
def test_narrow_types_stay(written, dtype):
    joined, whole = written([5, 11], np.arange(3 * N).reshape(N, 3).astype(dtype))
    assert joined.dtype == joined[4:9].dtype == joined[np.array([1, 20])].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(joined[:], whole)


def test_strings_of_several_widths_are_joined(tmp_path):
    names = [np.array(["a", "bc"]), np.array(["a long name"])]
    paths = [epath.Path(tmp_path) / f"{i}.npy" for i in range(2)]
    for path, name in zip(paths, names, strict=True):
        np.save(path, name)
    joined = JoinedRows([RowsInFile(paths[0], 2), RowsInFile(paths[1], 1)], (), np.dtype("<U11"))
    assert joined[:].tolist() == ["a", "bc", "a long name"]
    assert joined[:2].dtype == joined[np.array([2, 0])].dtype == np.dtype("<U11")
    assert joined[np.int64(1)] == "bc"


def test_files_are_opened_when_their_rows_are_read(written, monkeypatch):
    joined, _ = written([5, 11])
    opened = []
    load = files.load_array
    monkeypatch.setattr(
        "jaxcurate.artifacts.lazy_rows.load_array",
        lambda path, mmap: opened.append(path.name) or load(path, mmap=mmap),
    )
    joined.select(slice(2, 20))
    assert opened == []
    inside = joined[6:10]
    assert isinstance(inside, np.memmap) and len(opened) == 1
    joined[np.array([7, 12])]
    joined[8:13]
    assert len(opened) == 2


def test_rows_do_not_become_an_array_by_accident(written, monkeypatch):
    joined, whole = written([5, 11])
    np.testing.assert_array_equal(np.asarray(joined), whole)
    monkeypatch.setattr("jaxcurate.artifacts.lazy_rows._MOST_BYTES", whole.nbytes - 1)
    for rows in (joined, RowView(joined)):
        with pytest.raises(InputError, match="would be read at once"):
            np.asarray(rows)
        with pytest.raises(InputError, match="would be read at once"):
            rows.select(slice(None)) + np.float32(1)
        assert as_rows(rows) is rows and isinstance(rows, LazyRows)
    with pytest.raises(ValueError, match="without a copy"):
        np.array(joined.select(slice(3)), copy=False)


@pytest.mark.parametrize("rows", [N, -N - 1, np.array([0, N]), np.array([0.0]), np.array([True])])
def test_rows_that_are_not_there_are_refused(written, rows):
    with pytest.raises(IndexError):
        written([5])[0][rows]


def test_columns_are_no_rows(written):
    for rows in ((slice(None), 0), None, ...):
        with pytest.raises(TypeError, match="indexed by rows alone"):
            written([5])[0][rows]
    with pytest.raises(InputError, match="only consecutive rows"):
        written([5])[0].select(slice(None, None, 2))


def test_a_file_with_other_rows_is_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 2), np.float32))
    path = epath.Path(tmp_path) / "a.npy"
    with pytest.raises(
        files.DamagedError, match=r"a\.npy has rows \[3, 2\], and the card .* \[4, 2"
    ):
        JoinedRows([RowsInFile(path, 4)], (2,), np.dtype(np.float32))[0]
    with pytest.raises(files.DamagedError, match=r"a\.npy holds float32, and not float16"):
        JoinedRows([RowsInFile(path, 3)], (2,), np.dtype(np.float16))[0]
