"""Groups of items by length: every item once, and no more padding than asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcurate.checks import InputError
from jaxcurate.encoders.buckets import bucket_lengths, bucketed


@given(st.integers(1, 600), st.data())
def test_each_item_is_once_in_the_shortest_group_that_holds_it(at_most, data):
    lengths = np.array(data.draw(st.lists(st.integers(0, at_most), max_size=50)), np.int64)
    limits = bucket_lengths(at_most)
    assert limits[-1] == at_most and list(limits) == sorted(set(limits))
    assert all(limit == 32 * 2**i for i, limit in enumerate(limits[:-1]))
    groups = list(bucketed(lengths, at_most))
    seen = np.concatenate([positions for positions, _ in groups] or [np.arange(0)])
    assert sorted(seen.tolist()) == list(range(len(lengths)))
    assert [length for _, length in groups] == sorted({length for _, length in groups})
    for positions, length in groups:
        assert len(positions) and (np.diff(positions) > 0).all()
        for item in lengths[positions]:
            assert length == next(limit for limit in limits if limit >= item)


@pytest.mark.parametrize(
    ("lengths", "at_most", "message"),
    [
        ([3, 65], 64, r"lengths\[1\]=65 must be within \[0, 64\]"),
        ([-1], 64, r"lengths\[0\]=-1 must be within"),
        ([1.5], 64, "lengths must be whole numbers"),
        ([[1]], 64, "lengths must be whole numbers"),
        ([1], 0, "at_most=0 must be at least 1"),
    ],
)
def test_lengths_that_fit_no_group_are_refused(lengths, at_most, message):
    with pytest.raises(InputError, match=message):
        list(bucketed(np.array(lengths), at_most))
