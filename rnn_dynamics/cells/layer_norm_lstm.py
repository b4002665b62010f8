"""The LSTM with layer normalisation of its summed inputs and of its cell state."""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.lstm import LSTMCell, LSTMOptions
from rnn_dynamics.types import Initializer

ones = jax.nn.initializers.ones


class LayerNormLSTMCell(LSTMCell):
    r"""LSTM with layer normalisation (Ba, Kiros and Hinton 2016, supplementary equations of the LSTM).

    .. math::
        (\tilde i_t, \tilde f_t, \tilde g_t, \tilde o_t) &= \alpha_1 \odot \mathrm{LN}(W_h h_{t-1})
            + \alpha_2 \odot \mathrm{LN}(W_x x_t) + b \\
        c_t &= \sigma(\tilde f_t) \odot c_{t-1} + \sigma(\tilde i_t) \odot \tanh(\tilde g_t) \\
        r_t &= \tanh(\alpha_3 \odot \mathrm{LN}(c_t) + \beta_3) \\
        h_t &= \sigma(\tilde o_t) \odot r_t

    with :math:`\mathrm{LN}(z) = (z - \mathrm{mean}\, z) / \sqrt{\mathrm{var}\, z + \epsilon}`. Each of the two sums is
    normalised on its own and over all four gates together, 4H numbers; c over its H units, and only on its way to h:
    the c that is carried on is not normalised. The carry is (c, h), so the state has N = 2H entries.

    The paper's biases beside alpha_1 and alpha_2 add up with b to one, and are left out. Its LN has no epsilon, the
    authors' code has 1e-5. Where W_h h is large beside sqrt(epsilon) a gain of W_h has no effect; its part is played by
    alpha_1. At h = 0, where a fresh carry starts, LN has the slope 1 / sqrt(epsilon).

    Args:
        in_features: F.
        hidden_features: H.
        scale_init: initialiser of alpha_1 and alpha_2, [4*H] each, and alpha_3, [H].
        epsilon: added to the variances, > 0; one number.
        **options: forget_bias as of `LSTMCell`; initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1, epsilon not > 0.
    """

    gate_order = (*LSTMCell.gate_order, "readout")
    derived = ("readout",)
    candidates = ("candidate", "readout")

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        scale_init: Initializer = ones,
        epsilon: float | Array = 1e-5,
        **options: Unpack[LSTMOptions],
    ):
        super().__init__(in_features, hidden_features, **options)
        params, width = options["rngs"].params, len(self.mapped_gates) * hidden_features
        self.recurrent_scale = nnx.Param(scale_init(params(), (width,), self.param_dtype))
        self.scale = nnx.Param(scale_init(params(), (width,), self.param_dtype))
        self.readout_scale = nnx.Param(scale_init(params(), (hidden_features,), self.param_dtype))
        self.readout_bias = nnx.Param(jnp.zeros((hidden_features,), self.param_dtype))
        self.epsilon = self.setting("epsilon", epsilon, "one number > 0", lambda value: value.ndim == 0 and value > 0)

    def normalize(self, values: Array, scale: nnx.Param) -> Array:
        """Return scale * LN(values), [..., D], with mean and variance over the last axis."""
        centred = values - jnp.mean(values, axis=-1, keepdims=True)
        variance = jnp.mean(centred**2, axis=-1, keepdims=True)
        return self.per_unit(scale, values) * centred / jnp.sqrt(variance + self.epsilon[...].astype(self.dtype))

    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive [..., 4*H] = alpha_2 * LN(inputs @ kernel) + bias.

        Raises:
            ValueError: inputs of the wrong width.
        """
        drive = self.normalize(self.check_inputs(inputs) @ self.kernel[...].astype(self.dtype), self.scale)
        return drive + self.per_unit(self.bias, drive)

    def recur(self, hidden: Array, *gates: str) -> Array:
        """Map the hidden state [..., H] to its share of every gate's preactivation, [..., 4*H]."""
        return self.normalize(super().recur(hidden, *gates), self.recurrent_scale)

    def gates_from_drive(
        self, carry: tuple[Array, Array], drive: Array, given: Mapping[str, Array] = NONE_GIVEN
    ) -> dict[str, Array]:
        """Return the gates i, f, g, o and the readout r, each [..., H]; r reads i, f, g, by way of c_t."""
        gates = super().gates_from_drive(carry, drive)
        c = self.accumulate(carry[0], gates | dict(given))
        readout = self.normalize(c, self.readout_scale) + self.per_unit(self.readout_bias, c)
        return gates | {"readout": jnp.tanh(readout)}

    def combine(self, carry: tuple[Array, Array], gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return (c_t, h_t) from (c_{t-1}, h_{t-1}) and the gates."""
        return self.accumulate(carry[0], gates), gates["output"] * gates["readout"]
