import numpy as np
import pytest

from jaxcurate.stateless_random import _mix, keys_of, priorities, short_priorities


def splitmix64(state):
    """Yields the numbers of the published generator, in Python's whole numbers."""
    mask = 2**64 - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def test_it_is_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    state = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    _mix(state := state + np.uint64(1234567))
    assert state.tolist() == published
    generator = splitmix64(1234567)
    assert [next(generator) for _ in range(3)] == published


def test_a_number_depends_on_its_key_alone():
    n = 100_000  # several blocks
    whole = priorities(n, 7)
    keys = np.array([99_999, 3, 40_000, 0], np.uint64)
    np.testing.assert_array_equal(priorities(keys, 7), whole[keys])
    assert not np.isin(priorities(n, 8), whole).any()
    assert not np.isin(priorities(n, 7, stream=1), whole).any()


def test_short_priorities_are_the_upper_halves_and_never_0(monkeypatch):
    whole = priorities(100_000, 7)
    np.testing.assert_array_equal(short_priorities(100_000, 7), whole >> np.uint64(32))
    monkeypatch.setattr("jaxcurate.stateless_random._mix", lambda z: z.fill(2**32 - 1))
    np.testing.assert_array_equal(short_priorities(3, 7), [1, 1, 1])


def test_numbers_are_uniform_and_seeds_independent():
    a, b = (priorities(200_000, seed) >> np.uint64(56) for seed in (0, 1))
    for seen in (a, b):
        counts = np.bincount(seen.astype(np.int64), minlength=256)
        chi = ((counts - 781.25) ** 2 / 781.25).sum()
        assert 170 < chi < 350  # 255 degrees of freedom: 255 +- 23
    assert abs(np.corrcoef(a.astype(float), b.astype(float))[0, 1]) < 0.01


def test_a_key_depends_on_the_string_alone():
    ids = np.array(["b", "a", "ab", "ba", "a/longer.png", "\u00e4", ""])
    keys = keys_of(ids)
    assert len(np.unique(keys)) == len(ids)
    np.testing.assert_array_equal(keys_of(ids.astype("U40")), keys)
    np.testing.assert_array_equal(keys_of(ids[::-1])[::-1], keys)
    np.testing.assert_array_equal(keys_of(ids.astype(ids.dtype.newbyteorder(">"))), keys)


def test_similar_ids_get_different_keys():
    ids = np.char.add("images/", np.arange(300_000).astype(np.str_))
    assert len(np.unique(keys_of(ids))) == len(ids)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array(["x", "y", "x"]), "'x' is there twice"),
        (np.array([4, 5, 4]), "'4' is there twice"),
        (np.array([0.5]), "ids must be strings or whole numbers"),
        (np.array([["x"]]), "ids must be strings or whole numbers"),
    ],
)
def test_bad_ids_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        keys_of(ids)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint64])
def test_seeds_may_be_whole_numbers_of_numpy(kind):
    np.testing.assert_array_equal(priorities(5, kind(7), 2), priorities(5, 7, 2))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValueError, match=f"seed={seed}"):
        priorities(3, seed)
