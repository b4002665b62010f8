"""What all ways of clipping share: how often, by how much and how far sideways they changed the gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Bool, Float, Int

from rnn_dynamics.training.clipping.norms import angle_between, global_norm, log_ratio
from rnn_dynamics.types import PyTree

ClipRule: TypeAlias = Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
"""`rule(gradient, params, own) -> (clipped, own)`: a way of clipping, with whatever it remembers in `own`.

It may be handed a gradient that is not finite; what it then returns is thrown away. `params` is None where the
optimiser was not told them.
"""


class ClipEvent(NamedTuple):
    """What became of one gradient.

    Attributes:
        clipped: whether any entry was changed; never for a gradient that is not finite.
        factor: norm after / norm before; 1 where nothing was changed.
        angle: between the gradient before and after, radians; 0 where nothing, or only the norm, was changed.
    """

    clipped: Bool[Array, "*E"]
    factor: Float[Array, "*E"]
    angle: Float[Array, "*E"]


class ClipState(NamedTuple):
    """What a clipping transformation has seen: running sums that travel in the optimiser's state.

    Attributes:
        updates: how many gradients came.
        clipped: how many of them were changed.
        log_shrinkage: sum over the changed ones of ln(norm after / norm before), nats.
        turning: sum over the changed ones of the angle between before and after, radians.
        latest: what became of the latest gradient.
        own: what the way of clipping remembers.
    """

    updates: Int[Array, "*E"]
    clipped: Int[Array, "*E"]
    log_shrinkage: Float[Array, "*E"]
    turning: Float[Array, "*E"]
    latest: ClipEvent
    own: PyTree


def reporting(
    rule: ClipRule, *, keeps_direction: bool, initial_own: Callable[[PyTree], PyTree] = lambda params: None
) -> optax.GradientTransformation:
    """Make an optax transformation of a way of clipping, with the books kept in a `ClipState`.

    A gradient whose norm is not finite passes as it is: it counts as an update, not as clipped, and the rule forgets
    it.

    Args:
        rule: what is done to the gradient.
        keeps_direction: whether the rule only ever changes the norm; the angle is then 0 and costs nothing.
        initial_own: params -> what the rule remembers before the first gradient.

    Returns:
        The transformation.
    """

    def init(params: PyTree) -> ClipState:
        number, zero = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32)
        latest = ClipEvent(jnp.zeros((), bool), jnp.ones((), jnp.float32), zero)
        return ClipState(number, number, zero, zero, latest, initial_own(params))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        before = global_norm(updates)
        finite = jnp.isfinite(before)
        clipped, own = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), rule(updates, params, state.own), (updates, state.own)
        )
        return clipped, _entered(state, updates, before, clipped, keeps_direction)._replace(own=own)

    return optax.GradientTransformation(init, update)


def _entered(state: ClipState, raw: PyTree, before: Array, clipped: PyTree, keeps_direction: bool) -> ClipState:
    """Enter one gradient into the books."""
    differs = jax.tree.map(lambda old, new: jnp.any(old != new), raw, clipped)
    # NaN differs from itself, and a gradient that is not finite was not changed.
    changed = jnp.isfinite(before) & jax.tree.reduce(jnp.logical_or, differs, jnp.zeros((), bool))
    before = jnp.where(changed, before, 1)
    after = jnp.where(changed, global_norm(clipped), 1).astype(before.dtype)
    angle = jnp.zeros(()) if keeps_direction else jnp.where(changed, angle_between(raw, clipped), 0)
    latest = ClipEvent(changed, (after / before).astype(jnp.float32), angle.astype(jnp.float32))
    return state._replace(
        updates=state.updates + 1,
        clipped=state.clipped + changed.astype(jnp.int32),
        log_shrinkage=state.log_shrinkage + log_ratio(after, before).astype(jnp.float32),
        turning=state.turning + latest.angle,
        latest=latest,
    )
