"""Clipping each parameter's gradient by its own norm."""

import jax
import optax
from jax import Array

from rnn_dynamics.arguments import require
from rnn_dynamics.training.clipping.norms import euclidean_norm, shortened
from rnn_dynamics.training.clipping.reporting import reporting
from rnn_dynamics.types import PyTree


def clip_by_parameter_norm(threshold: float | Array) -> optax.GradientTransformation:
    r"""Shorten the gradient of each parameter that is longer than the threshold to it.

    .. math:: g^{(l)} \to \min\left(1, \frac{c}{\|g^{(l)}\|}\right) g^{(l)}

    for each array l of the tree: a kernel, a bias. Recurrent weights, whose gradients explode, do not shrink those of
    a head that is well behaved; the gradient turns towards the parameters that were not clipped.

    Args:
        threshold: c > 0, a norm: loss per unit of parameter. May be traced; inf clips nothing.

    Returns:
        An optax transformation with a `ClipState`; read it with `clip_report`.

    Raises:
        ValueError: a threshold that is not positive.
    """
    require("threshold", threshold, "a number > 0", lambda number: number > 0)

    def rule(gradient: PyTree, params: PyTree, own: None) -> tuple[PyTree, None]:
        return jax.tree.map(lambda leaf: shortened(leaf, euclidean_norm(leaf), threshold), gradient), own

    return reporting(rule, keeps_direction=False)
