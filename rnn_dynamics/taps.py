"""Taps: the gradient of a loss by the state at every time step, from one backward pass.

A tap is the identity on a state with a second argument, zeros, that does nothing on the way forward. On the way back
its "gradient" is the norm of the cotangent that passes: for a scan whose step t taps its carry, that of the zeros [T,
B] is ||dL/dh_t|| for every example. Nothing is stored but those T*B numbers, and it holds under nested checkpointing.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

State: TypeAlias = Any
"""A pytree of arrays [B, ...]."""


@jax.custom_vjp
def tap(state: State, probe: Array) -> State:
    """Return the state as it is; the cotangent of `probe` [B] becomes the norm over all of the state's other axes.

    Args:
        state: pytree of arrays [B, ...].
        probe: zeros [B], the slice of the taps for this step.

    Returns:
        The state.
    """
    return state


def _forward(state: State, probe: Array) -> tuple[State, Array]:
    return state, probe


def _backward(probe: Array, cotangent: State) -> tuple[State, Array]:
    return cotangent, cotangent_norm(cotangent).astype(probe.dtype)


tap.defvjp(_forward, _backward)


def cotangent_norm(cotangent: State) -> Array:
    """Return the Euclidean norm of each example's cotangent, [B], over all leaves [B, ...].

    The largest entry is taken out first, so that squares do not underflow: a norm of 1e-30 is still one in float32.
    """
    flat = jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(cotangent)], axis=1)
    largest = jnp.max(jnp.abs(flat), axis=1)
    scale = jnp.where(largest > 0, largest, 1.0)
    return scale * jnp.sqrt(jnp.sum((flat / scale[:, None]) ** 2, axis=1))
