"""Gradient clipping that reports what it did."""

import dataclasses
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from rnn_dynamics.types import PyTree


class ClipState(NamedTuple):
    """What a clipping transformation has seen: running counts that travel in the optimiser's state.

    Attributes:
        updates: how many gradients came.
        clipped: how many of them were shortened; a non-finite one never is.
        log_shrinkage: sum over the shortened ones of ln(norm after / norm before), nats.
    """

    updates: Array
    clipped: Array
    log_shrinkage: Array


@dataclasses.dataclass(frozen=True)
class ClipReport:
    """How often and by how much gradients were clipped.

    Attributes:
        updates: number of gradients seen.
        share: of them that were shortened, 0 ... 1; NaN before the first.
        mean_factor: geometric mean of norm after / norm before over the shortened ones; 1 if there was none.
    """

    updates: int
    share: float
    mean_factor: float


def global_norm(tree: PyTree) -> Array:
    """Return the Euclidean norm over all entries of all leaves together, in float32 at least.

    The largest entry is taken out first, so that squares neither overflow nor vanish: what explodes to 1e25 is still
    seen, and clipped, in float32. Infinite where an entry is, NaN where one is.
    """
    sizes = [jnp.abs(leaf) for leaf in jax.tree.leaves(tree)]
    sizes = [size.astype(jnp.promote_types(size.dtype, jnp.float32)) for size in sizes]
    largest = reduce(jnp.maximum, (jnp.max(size, initial=0.0) for size in sizes), jnp.zeros((), jnp.float32))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0)
    return scale * jnp.sqrt(sum(jnp.sum((size / scale) ** 2) for size in sizes))


def clip_by_global_norm(threshold: float) -> optax.GradientTransformation:
    """Shorten a gradient longer than the threshold to it, direction kept (Pascanu, Mikolov and Bengio 2013, alg. 1).

    The result has norm min(||g||, threshold) over all parameters together. A non-finite gradient passes as it is.

    Args:
        threshold: c > 0.

    Returns:
        An optax transformation with a `ClipState`; read it with `clip_report`.

    Raises:
        ValueError: a threshold that is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"clipping threshold must be > 0, got {threshold}")

    def init(params: PyTree) -> ClipState:
        return ClipState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        norm = global_norm(updates)
        clipped = (norm > threshold) & jnp.isfinite(norm)
        factor = jnp.where(clipped, threshold / norm, 1.0)
        state = ClipState(
            state.updates + 1,
            state.clipped + clipped.astype(jnp.int32),
            state.log_shrinkage + jnp.log(factor).astype(jnp.float32),
        )
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(init, update)


def clip_report(optimizer_state: PyTree) -> ClipReport:
    """Read what the one clipping transformation in an optimiser's state has done.

    Args:
        optimizer_state: of a chain that holds `clip_by_global_norm`.

    Returns:
        The report.

    Raises:
        ValueError: if there is no clipping transformation in it, or more than one.
    """
    leaves = jax.tree.leaves(optimizer_state, is_leaf=lambda node: isinstance(node, ClipState))
    states = [leaf for leaf in leaves if isinstance(leaf, ClipState)]
    if len(states) != 1:
        raise ValueError(f"optimizer_state must hold one clipping transformation, found {len(states)}")
    updates, clipped = int(states[0].updates), int(states[0].clipped)
    mean_factor = float(np.exp(float(states[0].log_shrinkage) / clipped)) if clipped else 1.0
    return ClipReport(updates, clipped / updates if updates else float("nan"), mean_factor)
