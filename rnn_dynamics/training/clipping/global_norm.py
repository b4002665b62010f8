"""Clipping by the norm of the whole gradient, its direction kept."""

import jax
import optax
from jax import Array

from rnn_dynamics.arguments import require
from rnn_dynamics.training.clipping.norms import global_norm, shortened
from rnn_dynamics.training.clipping.reporting import reporting
from rnn_dynamics.types import PyTree


def clip_by_global_norm(threshold: float | Array) -> optax.GradientTransformation:
    r"""Shorten a gradient longer than the threshold to it (Pascanu, Mikolov and Bengio 2013, algorithm 1).

    .. math:: g \to \min\left(1, \frac{c}{\|g\|}\right) g

    with the norm over all parameters together. Where the norm varies much from update to update, this bounds the step
    of those that would leave the region that the gradient knows of, and leaves the others alone.

    Args:
        threshold: c > 0, a norm: loss per unit of parameter. May be traced; inf clips nothing.

    Returns:
        An optax transformation with a `ClipState`; read it with `clip_report`.

    Raises:
        ValueError: a threshold that is not positive.
    """
    require("threshold", threshold, "a number > 0", lambda number: number > 0)

    def rule(gradient: PyTree, params: PyTree, own: None) -> tuple[PyTree, None]:
        norm = global_norm(gradient)
        return jax.tree.map(lambda leaf: shortened(leaf, norm, threshold), gradient), own

    return reporting(rule, keeps_direction=True)
