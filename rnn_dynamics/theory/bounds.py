"""What the weights alone say about gradients through time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from rnn_dynamics.cells.activations import Activation, find_activation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GradientBound:
    r"""How fast products of the Jacobians :math:`\mathrm{diag}(\phi'(u_t)) W` can grow at most.

    Attributes:
        spectral_norm: :math:`\|W\|_2`, the largest singular value.
        max_slope: :math:`\gamma = \sup |\phi'|`.
    """

    spectral_norm: Float[Array, "*E"]
    max_slope: Float[Array, "*E"]

    @property
    def exponent(self) -> Array:
        r"""Largest that :math:`\lambda_1` can be, :math:`\ln(\gamma \|W\|_2)`, nats per step."""
        return jnp.log(self.spectral_norm * self.max_slope)

    @property
    def must_vanish(self) -> Array:
        r"""Whether :math:`\|W\|_2 < 1/\gamma`, which suffices for gradients to vanish, whatever inputs and state."""
        return self.exponent < 0

    @property
    def may_explode(self) -> Array:
        r"""Whether :math:`\|W\|_2 > 1/\gamma`, without which gradients cannot explode; it does not make them."""
        return self.exponent > 0

    def log_norm(self, lag: int | Array) -> Array:
        r"""Largest that the log gradient norm at a lag can be, nats.

        .. math:: \ln \| \partial h_t / \partial h_{t-\tau} \|_2 \le \tau \ln(\gamma \|W\|_2)

        The Frobenius norm over the root of N, that of `gradient_norm_by_lag`, is no larger.

        Args:
            lag: :math:`\tau` >= 0, steps, of a shape that meets the bound's.

        Returns:
            The bound at each lag.
        """
        return lag * self.exponent


def gradient_bound(recurrent_kernel: Float[Array, "H H"], activation: str | Activation) -> GradientBound:
    r"""Bound the gradients of an Elman network by its weights (Pascanu, Mikolov and Bengio 2013, section 2.1).

    For an `ElmanCell` it is `gradient_bound(cell.recurrent_kernel[...], cell.activation)`. The spectral radius bounds
    nothing unless the units are linear: it may be below :math:`1/\gamma` while gradients explode, as other units are
    saturated at other steps. That the norm is above :math:`1/\gamma` does not make them explode.

    Args:
        recurrent_kernel: W [H, H], or its transpose.
        activation: phi, or its name.

    Returns:
        The bound.

    Raises:
        ValueError: weights that are no square matrix, an unknown activation.
    """
    if np.ndim(recurrent_kernel) != 2 or len(set(np.shape(recurrent_kernel))) != 1:
        raise ValueError(f"recurrent_kernel must be a square matrix [H, H], got shape {np.shape(recurrent_kernel)}")
    if isinstance(activation, str):
        activation = find_activation(activation)
    weights = jnp.asarray(recurrent_kernel)
    return GradientBound(jnp.linalg.norm(weights, 2), jnp.asarray(activation.max_slope, weights.dtype))
