"""Clipping each entry of the gradient by itself, which turns it."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rnn_dynamics.arguments import require
from rnn_dynamics.training.clipping.norms import shortened
from rnn_dynamics.training.clipping.reporting import reporting
from rnn_dynamics.types import PyTree


def clip_by_value(threshold: float | Array) -> optax.GradientTransformation:
    r"""Bring every entry of the gradient into [-threshold, threshold] (Mikolov, thesis, 2012).

    .. math:: g_i \to \operatorname{sign}(g_i) \min(|g_i|, c)

    The older way (see Pascanu, Mikolov and Bengio 2013, section 3.2). It turns the gradient towards a
    diagonal of the parameters' space, the more the more entries it cuts; `ClipReport.mean_angle` says how far. A
    complex entry keeps its phase.

    Args:
        threshold: c > 0, the largest size of an entry: loss per unit of parameter. May be traced; inf clips nothing.

    Returns:
        An optax transformation with a `ClipState`; read it with `clip_report`.

    Raises:
        ValueError: a threshold that is not positive.
    """
    require("threshold", threshold, "a number > 0", lambda number: number > 0)

    def rule(gradient: PyTree, params: PyTree, own: None) -> tuple[PyTree, None]:
        return jax.tree.map(lambda leaf: shortened(leaf, jnp.abs(leaf), threshold), gradient), own

    return reporting(rule, keeps_direction=False)
