"""Giving every gradient the same norm."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rnn_dynamics.arguments import require_positive
from rnn_dynamics.training.clipping.norms import global_norm, with_norm
from rnn_dynamics.training.clipping.reporting import reporting
from rnn_dynamics.types import PyTree


def clip_by_normalising(threshold: float | Array) -> optax.GradientTransformation:
    r"""Give every gradient the same norm, its direction kept (Hazan, Levy and Shalev-Shwartz 2015).

    .. math:: g \to \frac{c}{\|g\|} g

    Long gradients are shortened and short ones lengthened, so the factor may exceed 1 and nearly every update counts as
    clipped. What vanishes is heard as loud as what explodes. A gradient of zeros stays.

    Args:
        threshold: c > 0, the norm: loss per unit of parameter. May be traced.

    Returns:
        An optax transformation with a `ClipState`; read it with `clip_report`.

    Raises:
        ValueError: a threshold that is not positive and finite.
    """
    require_positive("threshold", threshold)

    def rule(gradient: PyTree, params: PyTree, own: None) -> tuple[PyTree, None]:
        norm = global_norm(gradient)
        norm = jnp.where(norm > 0, norm, 1)
        return jax.tree.map(lambda leaf: with_norm(leaf, norm, threshold), gradient), own

    return reporting(rule, keeps_direction=True)
