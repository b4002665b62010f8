"""Clipping each unit's gradient by the norm of the unit's weights: adaptive gradient clipping, AGC."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rnn_dynamics.arguments import require, require_positive
from rnn_dynamics.training.clipping.norms import euclidean_norm, shortened
from rnn_dynamics.training.clipping.reporting import reporting
from rnn_dynamics.types import PyTree


def clip_by_unit_ratio(threshold: float | Array, *, eps: float | Array = 1e-3) -> optax.GradientTransformation:
    r"""Shorten the gradient of each unit to a multiple of the norm of its weights (Brock et al. 2021, eq. 3).

    .. math:: G_i \to \min\left(1, \lambda \frac{\max(\|W_i\|, \epsilon)}{\|G_i\|}\right) G_i

    What a gradient step does to a unit is judged by the relative change of its weights: with plain gradient descent
    and learning rate eta, no unit's weights change by more than eta times lambda of their norm.

    Units: of a kernel [in, out], and of any array of two axes or more, what feeds one output, so the norm is over all
    axes but the last; of a packed kernel that is one gate's unit. A vector (a bias, a peephole) or a number is one
    unit as a whole, as in the authors' code. The paper leaves the last layer out: `optax.masked` does that.

    Args:
        threshold: lambda > 0, the largest ratio of the norms of gradient and weights: loss per unit of parameter
            squared. May be traced; inf clips nothing.
        eps: > 0, the least norm that weights are taken to have, so that those that start at zero can leave it.

    Returns:
        An optax transformation with a `ClipState`; its update needs the parameters. Read it with `clip_report`.

    Raises:
        ValueError: a threshold or eps that is not positive; an update that is not told the parameters.
    """
    require("threshold", threshold, "a number > 0", lambda number: number > 0)
    require_positive("eps", eps)

    def limited(gradient: Array, weights: Array) -> Array:
        limit = threshold * jnp.maximum(_unit_norms(weights), eps)
        return shortened(gradient, _unit_norms(gradient), limit)

    def rule(gradient: PyTree, params: PyTree, own: None) -> tuple[PyTree, None]:
        if params is None:
            raise ValueError("params must be given to the update of clip_by_unit_ratio, got None")
        return jax.tree.map(limited, gradient, params), own

    return reporting(rule, keeps_direction=False)


def _unit_norms(weights: Array) -> Array:
    return euclidean_norm(weights, axis=tuple(range(weights.ndim - 1))) if weights.ndim > 1 else euclidean_norm(weights)
