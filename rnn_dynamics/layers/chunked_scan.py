"""A scan cut into chunks of time steps, and steps that not all examples make."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.types import Carry, PyTree


def scan_in_chunks(
    scan: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, xs: PyTree, *, chunk: int, reverse: bool
) -> tuple[Carry, Any]:
    """Make a scan over all steps of scans over chunks of them; the chunk that is left over at the end may be shorter.

    Args:
        scan: (carry, xs of a chunk) -> (carry, outputs of the chunk).
        carry: any pytree.
        xs: leaves [T, ...].
        chunk: steps to a chunk, >= 1.
        reverse: from the last chunk to the first.

    Returns:
        The last carry, and the outputs [T, ...].
    """
    steps = jax.tree.leaves(xs)[0].shape[0]
    if chunk >= steps:
        return scan(carry, xs)
    whole = steps // chunk * chunk
    chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), xs)
    rest = jax.tree.map(lambda x: x[whole:], xs)
    pieces = [lambda carry: jax.lax.scan(scan, carry, chunks, reverse=reverse)]
    if whole < steps:
        pieces.append(lambda carry: scan(carry, rest))
    outputs: list[Any] = [None] * len(pieces)
    for number in reversed(range(len(pieces))) if reverse else range(len(pieces)):
        carry, outputs[number] = pieces[number](carry)
    outputs[0] = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), outputs[0])
    return carry, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *outputs)


def masked_step(valid: Array | None, carry: Carry, made: tuple[Carry, Array]) -> tuple[Carry, Array]:
    """Return the step that was made, (carry, output), for the examples whose step is valid.

    Args:
        valid: [B], or None for all.
        carry: before the step, leaves [B, H]; the other examples keep it.
        made: carry and output after the step; the other examples put out zeros.

    Returns:
        Carry and output.
    """
    if valid is None:
        return made
    before = (carry, jnp.zeros_like(made[1]))
    return jax.tree.map(lambda new, old: jnp.where(valid[:, None], new, old), made, before)
