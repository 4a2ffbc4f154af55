"""Random permutations that are looked up at any place without being held."""

import numpy as np

from jaxcurate.stateless_random import priorities

_ROUNDS = 8


def permuted(places: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """What stands at some places of random permutations, one permutation for each key.

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
    """A permutation of the numbers of ``2 * half`` bits, uint64 ``[m]``."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for round_ in range(_ROUNDS):
        left, right = right, left ^ (priorities(keys ^ _spread(right), 0, stream=round_) & mask)
    return left << half | right


def _spread(x: np.ndarray) -> np.ndarray:
    """Numbers that differ in few low bits, made to differ in many."""
    return x * np.uint64(0xD6E8FEB86659FD93)
