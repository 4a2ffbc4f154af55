"""Loops over flagged rows only, which are gathered in dense blocks."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Carry = TypeVar("Carry")


def over_flagged(
    flags: jax.Array, block: int, work: Callable[[jax.Array, Carry], Carry], carry: Carry
) -> Carry:
    """Returns ``carry`` after ``carry = work(rows, carry)`` for each block of flagged rows.

    Args:
        flags: Flags of the rows, bool ``[n]``.
        block: Number of rows in a block.
        work: Function of row numbers, int32 ``[block]``, and of ``carry``, that returns the next
            ``carry``. The last block is padded with the number ``n``, which a gather has to clip
            and a scatter has to drop.
        carry: Value before the first block.
    """
    n = len(flags)
    block = min(block, n)
    rows = flagged(flags)
    rows = jnp.concatenate([rows, jnp.full(-n % block, n, jnp.int32)])
    n_blocks = -(-jnp.sum(flags, dtype=jnp.int32) // block)

    def one_block(i: jax.Array, carry: Carry) -> Carry:
        return work(jax.lax.dynamic_slice(rows, (i * block,), (block,)), carry)

    return jax.lax.fori_loop(0, n_blocks, one_block, carry)


def flagged(flags: jax.Array) -> jax.Array:
    """Returns the numbers of the flagged rows in order, padded with ``n``, int32 ``[n]``."""
    n = len(flags)
    # Cumulative sums within short blocks: one over all n rows takes three times as long on a CPU.
    width = 256
    blocks = jnp.pad(flags, (0, -n % width)).reshape(-1, width).astype(jnp.int32)
    inside = jnp.cumsum(blocks, axis=1)
    totals = inside[:, -1]
    place = (jnp.cumsum(totals) - totals)[:, None] + inside - 1
    place = jnp.where(flags, place.reshape(-1)[:n], n)
    return jnp.full(n, n, jnp.int32).at[place].set(jnp.arange(n, dtype=jnp.int32), mode="drop")
