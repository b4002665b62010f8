"""The independently recurrent network: every unit hears itself alone."""

from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.cells.elman import ElmanCell
from rnn_dynamics.cells.packed import PackedOptions


class IndRNNCell(ElmanCell):
    r"""IndRNN (Li, Li, Cook, Zhu and Gao 2018): an Elman network whose W_h is diagonal.

    .. math:: h_t = \phi(W x_t + u \odot h_{t-1} + b)

    The state Jacobian is :math:`\mathrm{diag}(\phi'(\cdot) \odot u)`: with linear units the exponents are
    :math:`\ln|u|`. The carry is h, so N = H.

    The parameter recurrent_kernel is u, [1, H]: to an initialiser of recurrent kernels these are H networks of one
    unit, so a gain g means u ~ N(0, g^2) of `gaussian`, and u = g of `identity`.

    Args:
        in_features: F.
        hidden_features: H.
        activation: phi by name, see `cells.activations`.
        **options: initialisers, dtypes and keys, see `PackedCell`; u is drawn from U(0, 1) if not said otherwise, the
            paper's law for relu in the limit of long sequences.

    Raises:
        ValueError: a size below 1, an unknown activation.
    """

    def __init__(
        self, in_features: int, hidden_features: int, *, activation: str = "relu", **options: Unpack[PackedOptions]
    ):
        options.setdefault("recurrent_kernel_init", jax.nn.initializers.uniform(1.0))
        super().__init__(in_features, hidden_features, activation=activation, **options)

    @property
    def recurrent_shape(self) -> tuple[int, int]:
        """Of the parameter `recurrent_kernel`, u."""
        return 1, self.hidden_features

    def recur(self, hidden: Array, *gates: str) -> Array:
        """Map the hidden state [..., H] to u h [..., H]."""
        hidden, u = self.cast(hidden, self.recurrent_kernel[...])
        return hidden * jnp.broadcast_to(u[0], hidden.shape)
