"""The hidden state's norm shall stay what it is from step to step."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from rnn_dynamics.models import SequenceModel
from rnn_dynamics.types import Batch


@dataclass(frozen=True)
class NormStabilizer:
    r"""Penalise changes of the hidden state's norm (Krueger and Memisevic, ICLR 2016).

    .. math:: \frac{1}{T - 1} \sum_{t=2}^{T} \left( \|h_t\|_2 - \|h_{t-1}\|_2 \right)^2

    and the mean over examples, each with the T of its length; h is the output of the recurrence, of an LSTM h and not
    c. The paper's sum starts at t = 1, from h_0. Where h_0 is zeros that term would ask for small states, not for
    stable ones, so it is left out.

    Cost: another pass through the model, forward and back.
    """

    def __call__(self, model: Any, batch: Batch) -> Array:
        """Return the mean squared change of the norm.

        Args:
            model: a `SequenceModel`.
            batch: its inputs and lengths are read.

        Returns:
            [], >= 0. An example of one step adds 0.

        Raises:
            ValueError: a model of another kind.
        """
        if not isinstance(model, SequenceModel):
            raise ValueError(f"model must be a SequenceModel, which tells its states, got a {type(model).__name__}")
        norms = _norms(model.read(batch.inputs, batch.lengths)[1])
        changes = jnp.diff(norms, axis=1) ** 2
        later = jnp.asarray(batch.lengths)[:, None] > jnp.arange(1, norms.shape[1])[None, :]
        return jnp.mean(jnp.sum(jnp.where(later, changes, 0), axis=1) / jnp.maximum(jnp.sum(later, axis=1), 1))


def _norms(hidden: Float[Array, "B T H"]) -> Float[Array, "B T"]:
    """Return the norm at every step; that of zeros has the derivative 0."""
    squares = jnp.sum(hidden**2, axis=-1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
