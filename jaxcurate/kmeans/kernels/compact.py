"""Work on flagged rows only, brought together in dense blocks."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Carry = TypeVar("Carry")


def over_flagged(
    flags: jax.Array, block: int, work: Callable[[jax.Array, Carry], Carry], carry: Carry
) -> Carry:
    """Calls ``carry = work(rows, carry)`` for blocks of the flagged rows, as many as there are.

    Args:
        flags: bool ``[n]``.
        block: rows to a block.
        work: gets the numbers of the rows, int32 ``[block]``; in the last block they are filled
            up with ``n``, which a gather has to clip and a scatter to drop.
        carry: what ``work`` begins with.
    """
    n = len(flags)
    block = min(block, n)
    rows = flagged(flags)
    rows = jnp.concatenate([rows, jnp.full(-n % block, n, jnp.int32)])
    n_blocks = -(-jnp.sum(flags, dtype=jnp.int32) // block)

    def one(i: jax.Array, carry: Carry) -> Carry:
        return work(jax.lax.dynamic_slice(rows, (i * block,), (block,)), carry)

    return jax.lax.fori_loop(0, n_blocks, one, carry)


def flagged(flags: jax.Array) -> jax.Array:
    """Returns the numbers of the flagged rows in their order, then ``n`` to the end: int32
    ``[n]``."""
    n = len(flags)
    # Running sums by short pieces: one over all n takes three times as long on a CPU.
    width = 256
    pieces = jnp.pad(flags, (0, -n % width)).reshape(-1, width).astype(jnp.int32)
    inside = jnp.cumsum(pieces, axis=1)
    totals = inside[:, -1]
    place = (jnp.cumsum(totals) - totals)[:, None] + inside - 1
    place = jnp.where(flags, place.reshape(-1)[:n], n)
    return jnp.full(n, n, jnp.int32).at[place].set(jnp.arange(n, dtype=jnp.int32), mode="drop")
