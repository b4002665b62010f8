"""The recipe that most networks are trained by."""

import optax
from jax import Array

from rnn_dynamics.arguments import require_positive
from rnn_dynamics.training.clipping import clip_by_global_norm
from rnn_dynamics.training.recipe import Recipe


def clipped_adam(learning_rate: float | Array, clip_threshold: float | Array) -> Recipe:
    """Clip by the global norm, then Adam (Kingma and Ba 2015).

    Args:
        learning_rate: > 0. It may be traced.
        clip_threshold: norm above which gradients are shortened, > 0. It may be traced.

    Returns:
        The recipe.

    Raises:
        ValueError: a number that is not positive.
    """
    require_positive("learning_rate", learning_rate)
    return Recipe(optax.chain(clip_by_global_norm(clip_threshold), optax.adam(learning_rate)))
