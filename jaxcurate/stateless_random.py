"""Random numbers and permutations as functions of a seed and a key, without order or state."""

from collections.abc import Iterator

import numpy as np

from jaxcurate.checks import InputError, check_whole

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1
_OTHER = 1 << 32
"""First stream of :func:`other_seed`; the levels of a tree use the streams below it."""
_BLOCK = 1 << 15
"""Count of numbers made at a time, so that the passes over them stay in a core's cache."""
_ROUNDS = 8
"""Number of rounds of the Feistel network in :func:`permuted`."""


def priorities(keys: np.ndarray | int, seed: int, stream: int = 0) -> np.ndarray:
    """Returns a uniform random 64-bit number for each key, from the key, seed and stream alone.

    The generator is splitmix64 with the key as its counter; the seed and the stream choose where
    the counter starts.

    Args:
        keys: Whole numbers ``[n]`` of at most 64 bits, or ``n`` for the keys 0 to ``n - 1``.
        seed: Whole number within [0, 2**64).
        stream: Number that distinguishes independent draws with the same seed.

    Returns:
        uint64 ``[n]``.

    Raises:
        InputError: The seed is not a whole number, negative or too large.

    References:
        Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014.

    Examples:
        A number depends on its key, and not on the keys beside it:

        >>> import numpy as np
        >>> from jaxcurate.stateless_random import priorities
        >>> numbers = priorities(1000, seed=0)
        >>> bool(priorities(np.array([7]), seed=0)[0] == numbers[7])
        True
    """
    out = np.empty(keys if isinstance(keys, int) else len(keys), np.uint64)
    for block, numbers in _blocks(keys, seed, stream):
        out[block] = numbers
    return out


def short_priorities(keys: np.ndarray | int, seed: int, stream: int = 0) -> np.ndarray:
    """Returns the upper halves of :func:`priorities`, uint32 ``[n]``, with 1 in place of 0.

    Args:
        keys: Whole numbers ``[n]`` of at most 64 bits, or ``n`` for the keys 0 to ``n - 1``.
        seed: Whole number within [0, 2**64).
        stream: Number that distinguishes independent draws with the same seed.

    Examples:
        >>> from jaxcurate.stateless_random import priorities, short_priorities
        >>> bool((short_priorities(100, seed=0) == priorities(100, seed=0) >> 32).all())
        True
    """
    out = np.empty(keys if isinstance(keys, int) else len(keys), np.uint32)
    for block, numbers in _blocks(keys, seed, stream):
        out[block] = np.maximum(numbers >> np.uint64(32), 1)
    return out


def other_seed(seed: int, number: int) -> int:
    """Returns a seed whose draws are independent of those with ``seed``.

    Two draws with the same seed prefer the same rows, so that a draw from the rows which another
    one left would be biased.

    Args:
        seed: Whole number within [0, 2**64).
        number: Number that distinguishes several seeds made from the same seed.

    Examples:
        >>> from jaxcurate.stateless_random import other_seed
        >>> len({other_seed(0, 1), other_seed(0, 2), other_seed(1, 1)})
        3
    """
    return int(priorities(1, seed, _OTHER + number)[0])


def keys_of(ids: np.ndarray) -> np.ndarray:
    """Returns a 64-bit key for each id, which depends neither on the other ids nor on their order.

    Args:
        ids: Distinct Unicode strings or whole numbers ``[n]``: an array, or rows in files, of
            which some thousand are read at a time.

    Returns:
        uint64 ``[n]``.

    Raises:
        InputError: The ids are of another type, or an id occurs twice; the message names it.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.stateless_random import keys_of
        >>> keys = keys_of(np.array(["cat.png", "dog.png", "fish.png"]))
        >>> bool(keys_of(np.array(["fish.png", "cat.png"]))[0] == keys[2])
        True
    """
    ids = ids if hasattr(ids, "dtype") else np.asarray(ids)
    if ids.ndim != 1 or ids.dtype.kind not in "Uiu":
        raise InputError(f"ids must be strings or whole numbers [n], not {ids.dtype} {ids.shape}")
    keys = hashed(ids) if ids.dtype.kind == "U" else ids[:].astype(np.uint64)
    ordered = np.sort(keys)
    twice = ordered[1:] == ordered[:-1]
    if twice.any():
        suspects = ids[np.flatnonzero(np.isin(keys, ordered[1:][twice]))]
        unique, counts = np.unique(suspects, return_counts=True)
        if len(unique) < len(suspects):
            raise InputError(
                f"ids must be distinct, but {str(unique[counts > 1][0])!r} is there twice"
            )
    return keys


def _blocks(keys: np.ndarray | int, seed: int, stream: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields slices of the keys and their random numbers, uint64."""
    start = np.uint64(_start(seed, stream))
    n = keys if isinstance(keys, int) else len(keys)
    for begin in range(0, n, _BLOCK):
        block = slice(begin, min(begin + _BLOCK, n))
        numbers = np.arange(begin, block.stop) if isinstance(keys, int) else keys[block]
        numbers = numbers.astype(np.uint64) * np.uint64(_GOLDEN)
        numbers += start
        _mix(numbers)
        yield block, numbers


def hashed(ids: np.ndarray) -> np.ndarray:
    """Returns a multilinear hash of the code points of each string, uint64 ``[n]``.

    The zeros that fill up shorter strings add nothing to it. Equal strings have equal hashes.

    Args:
        ids: Unicode ``[n]``: an array, or rows in files.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.stateless_random import hashed
        >>> numbers = hashed(np.array(["cat", "dog", "cat"]))
        >>> bool(numbers[0] == numbers[2] != numbers[1])
        True
    """
    width = ids.dtype.itemsize // 4
    factors = priorities(width, 0, stream=1) | np.uint64(1)
    out = np.zeros(len(ids), np.uint64)
    for begin in range(0, len(ids), _BLOCK):
        block, read = out[begin : begin + _BLOCK], ids[begin : begin + _BLOCK]
        read = np.ascontiguousarray(read, read.dtype.newbyteorder("="))
        letters = read.view(np.uint32).reshape(len(read), width)
        for place in range(width):
            block += letters[:, place] * factors[place]
        _mix(block)
    return out


def _mix(z: np.ndarray) -> None:
    """Applies the output function of splitmix64 to uint64 numbers, in place."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)


def _start(seed: int, stream: int) -> int:
    """Returns the start of the counter, within [0, 2**64)."""
    check_whole("seed", seed, 0)
    if seed > _MASK:
        raise InputError(f"seed={seed} must be below 2**64")
    state = 0
    for number in map(int, (seed, stream)):  # numpy's whole numbers would overflow
        z = np.array([(state ^ number) * _GOLDEN + _GOLDEN & _MASK], np.uint64)
        _mix(z)
        state = int(z[0])
    return state


def permuted(places: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Returns the numbers at given places of random permutations, without making them in full.

    A Feistel network permutes the numbers below the least power of four that is large enough. It
    is applied again while the result is not below the size (cycle walking). A random rotation then
    makes every number equally likely at every place.

    Args:
        places: Places within the permutations, int64 ``[m]``, from 0.
        sizes: Number of entries of each permutation, int64 ``[m]``, at least 1.
        keys: Keys of the permutations, uint64 ``[m]``. Equal keys and sizes give the same one.

    Returns:
        int64 ``[m]``, each within [0, size).

    References:
        Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002.

    Examples:
        >>> import numpy as np
        >>> from jaxcurate.stateless_random import permuted
        >>> numbers = permuted(np.arange(10), np.full(10, 10), np.zeros(10, np.uint64))
        >>> sorted(numbers.tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
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
    """Returns one application of the Feistel network on ``2 * half`` bits, uint64 ``[m]``."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for round_ in range(_ROUNDS):
        left, right = right, left ^ (priorities(keys ^ _spread(right), 0, stream=round_) & mask)
    return left << half | right


def _spread(x: np.ndarray) -> np.ndarray:
    """Returns the numbers times a constant, so that a change in low bits reaches high bits."""
    return x * np.uint64(0xD6E8FEB86659FD93)
