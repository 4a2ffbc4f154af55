"""Random numbers and permutations as a function of a seed and a key: no order, no state."""

from collections.abc import Iterator

import numpy as np

from jaxcurate.checks import InputError, check_whole

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1
_OTHER = 1 << 32
"""Where the streams of :func:`other_seed` begin; levels of a tree have those before."""
_BLOCK = 1 << 15
"""Numbers at a time, so that the passes over them stay within a core's cache."""
_ROUNDS = 8
"""Rounds of the Feistel network of :func:`permuted`."""


def priorities(keys: np.ndarray | int, seed: int, stream: int = 0) -> np.ndarray:
    """Returns uniform random 64-bit numbers, each of its own key, the seed and the stream alone.

    Splitmix64 started at a place that the seed and the stream choose, its counter being the key.

    Args:
        keys: whole numbers ``[n]`` of at most 64 bits, or ``n`` for the keys 0 to ``n - 1``.
        seed: a whole number of at most 64 bits, not negative.
        stream: tells draws of one seed apart.

    Returns:
        uint64 ``[n]``.

    Raises:
        ValueError: the seed is no whole number, negative or too large.

    References:
        Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014.
    """
    out = np.empty(keys if isinstance(keys, int) else len(keys), np.uint64)
    for block, part in _blocks(keys, seed, stream):
        out[block] = part
    return out


def short_priorities(keys: np.ndarray | int, seed: int, stream: int = 0) -> np.ndarray:
    """Returns the upper halves of :func:`priorities`, uint32 ``[n]``, but 1 in place of 0."""
    out = np.empty(keys if isinstance(keys, int) else len(keys), np.uint32)
    for block, part in _blocks(keys, seed, stream):
        out[block] = np.maximum(part >> np.uint64(32), 1)
    return out


def other_seed(seed: int, number: int) -> int:
    """Returns a seed whose draws have nothing to do with those of ``seed``.

    Two draws by one seed take the same rows first: one of what the other left is not a fair one.

    Args:
        seed: as :func:`priorities` takes it.
        number: tells other seeds of the same seed apart.
    """
    return int(priorities(1, seed, _OTHER + number)[0])


def keys_of(ids: np.ndarray) -> np.ndarray:
    """Returns a 64-bit key for every id, which no other id's presence or place changes.

    Args:
        ids: distinct, ``[n]``: Unicode strings, or whole numbers.

    Returns:
        uint64 ``[n]``.

    Raises:
        ValueError: the ids are of another kind, or one is there twice; it is named.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.dtype.kind not in "Uiu":
        raise InputError(f"ids must be strings or whole numbers [n], not {ids.dtype} {ids.shape}")
    keys = _hashed(ids) if ids.dtype.kind == "U" else ids.astype(np.uint64)
    ordered = np.sort(keys)
    if (ordered[1:] == ordered[:-1]).any():
        unique, counts = np.unique(ids, return_counts=True)
        if len(unique) < len(ids):
            raise InputError(
                f"ids must be distinct, but {str(unique[counts > 1][0])!r} is there twice"
            )
    return keys


def _blocks(keys: np.ndarray | int, seed: int, stream: int) -> Iterator[tuple[slice, np.ndarray]]:
    start = np.uint64(_start(seed, stream))
    n = keys if isinstance(keys, int) else len(keys)
    for begin in range(0, n, _BLOCK):
        block = slice(begin, min(begin + _BLOCK, n))
        part = np.arange(begin, block.stop) if isinstance(keys, int) else keys[block]
        part = part.astype(np.uint64) * np.uint64(_GOLDEN)
        part += start
        _mix(part)
        yield block, part


def _hashed(ids: np.ndarray) -> np.ndarray:
    """Returns multilinear hash of the code points; the zeros that fill up a shorter string add
    nothing."""
    ids = np.ascontiguousarray(ids, ids.dtype.newbyteorder("="))
    width = ids.dtype.itemsize // 4
    letters = ids.view(np.uint32).reshape(len(ids), width)
    factors = priorities(width, 0, stream=1) | np.uint64(1)
    out = np.zeros(len(ids), np.uint64)
    for begin in range(0, len(ids), _BLOCK):
        part = out[begin : begin + _BLOCK]
        for place in range(width):
            part += letters[begin : begin + _BLOCK, place] * factors[place]
        _mix(part)
    return out


def _mix(z: np.ndarray) -> None:
    """Applies the output function of splitmix64, in place, uint64."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)


def _start(seed: int, stream: int) -> int:
    """Returns where the counter begins, in whole numbers of Python."""
    check_whole("seed", seed, 0)
    if seed > _MASK:
        raise InputError(f"seed={seed} must be below 2**64")
    state = 0
    for part in map(int, (seed, stream)):  # numpy's whole numbers would overflow
        z = np.array([(state ^ part) * _GOLDEN + _GOLDEN & _MASK], np.uint64)
        _mix(z)
        state = int(z[0])
    return state


def permuted(places: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Returns what stands at some places of random permutations, one permutation for each key.

    A Feistel network over the least power of four that holds the numbers, walked until it comes
    back among them; a random turn makes every number as likely at every place.

    Args:
        places: int64 ``[m]``, each within its permutation.
        sizes: int64 ``[m]``, at least 1: a permutation of the numbers below.
        keys: uint64 ``[m]``: equal key and size, equal permutation.

    Returns:
        int64 ``[m]``, each at least 0 and below its size.

    References:
        Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002.
    """
    half = np.ceil(np.log2(np.maximum(sizes, 2)) / 2).astype(np.uint64)
    out = places.astype(np.uint64)
    walking = np.arange(len(out))
    while len(walking):
        stepped = _feistel(out[walking], half[walking], keys[walking])
        out[walking] = stepped
        walking = walking[stepped >= sizes[walking].astype(np.uint64)]
    turn = priorities(keys, 0, stream=_ROUNDS) % sizes.astype(np.uint64)
    return ((out + turn) % sizes.astype(np.uint64)).astype(np.int64)


def _feistel(x: np.ndarray, half: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Returns a permutation of the numbers of ``2 * half`` bits, uint64 ``[m]``."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for round_ in range(_ROUNDS):
        left, right = right, left ^ (priorities(keys ^ _spread(right), 0, stream=round_) & mask)
    return left << half | right


def _spread(x: np.ndarray) -> np.ndarray:
    """Returns numbers that differ in few low bits, made to differ in many."""
    return x * np.uint64(0xD6E8FEB86659FD93)
