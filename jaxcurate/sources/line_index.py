"""Index of the lines of a file, of which only positions are kept in memory."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxcurate.checks import InputError

LONGEST = 2**30
"""Largest number of bytes of a line that is read."""


class Lines(NamedTuple):
    """Lines of a file that are not empty."""

    start: np.ndarray
    """int64 ``[n]``, the position of the first byte of each line."""
    size: np.ndarray
    """uint32 ``[n]``, the number of bytes without the end of the line; `LONGEST` + 1 if more."""
    n_empty: int
    """Number of empty lines, which are no items."""


def find_lines(path: str, read: Callable[[], bytes]) -> Lines:
    r"""Returns the lines that are not empty, block by block.

    Args:
        path: path of the file, for errors.
        read: function that returns the next block of bytes, or none at the end.

    Raises:
        InputError: the file is UTF-16.

    Examples:
        >>> blocks = iter([b"a cat\r", b"\n \n", b"a dog", b""])
        >>> find_lines("x.txt", lambda: next(blocks))
        Lines(start=array([0, 9]), size=array([5, 5], dtype=uint32), n_empty=1)
    """
    starts, sizes, n_empty = [], [], 0
    position, begin, blank = 0, 0, True  # of the line that is not complete yet, and whether so far
    carried_return = False  # whether the incomplete line ends in a carriage return so far
    while block := read():
        if position == 0:
            if block.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise InputError(f"{path} is UTF-16; texts are UTF-8")
            begin = 3 if block.startswith(b"\xef\xbb\xbf") else 0  # a mark of UTF-8, no text
        data = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(data == 10)
        returns = np.zeros(len(ends), bool)
        if len(ends):
            returns = (data[ends - 1] == 13) & (ends > 0)
            returns[0] = carried_return if ends[0] == 0 else returns[0]
        first = begin - position if begin > position else 0
        filled = ~np.isin(data, np.frombuffer(b" \t\r\n\v\f", np.uint8))
        # The number of filled bytes before each end tells which lines are blank.
        counts = np.concatenate([[0], np.cumsum(filled[first:], dtype=np.int32)])
        counts = counts[np.clip(ends - first, 0, None)]
        line_starts = np.concatenate([[begin], position + ends[:-1] + 1])[: len(ends)]
        has_text = np.diff(counts, prepend=0) > 0
        if len(ends):
            has_text[0] |= not blank
        line_sizes = position + ends - line_starts - returns
        starts.append(line_starts[has_text].astype(np.int64))
        sizes.append(np.minimum(line_sizes[has_text], LONGEST + 1).astype(np.uint32))
        n_empty += int(np.count_nonzero(~has_text))
        rest = filled[max(first, int(ends[-1]) + 1 if len(ends) else 0) :]
        blank = not rest.any() and (blank or len(ends) > 0)
        begin = position + int(ends[-1]) + 1 if len(ends) else begin
        carried_return = block[-1] == 13
        position += len(block)
    if begin < position:
        if blank:
            n_empty += 1
        else:
            starts.append(np.array([begin], np.int64))
            size = min(position - begin - carried_return, LONGEST + 1)
            sizes.append(np.array([size], np.uint32))
    none = np.empty(0, np.int64)
    return Lines(
        np.concatenate([none, *starts]).astype(np.int64),
        np.concatenate([none, *sizes]).astype(np.uint32),
        n_empty,
    )
