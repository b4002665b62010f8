"""The scalar LSTM of xLSTM: exponential gates, a normaliser, and a stabiliser that keeps both in range."""

from collections.abc import Mapping
from typing import ClassVar, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.gate_biases import GateBias
from rnn_dynamics.cells.packed import PackedCell, PackedOptions

Carry4 = tuple[Array, Array, Array, Array]


class SLSTMCell(PackedCell):
    r"""sLSTM of one head, with the forget gate a sigmoid (Beck et al. 2024, xLSTM, equations 8-17).

    .. math::
        (\tilde i_t, \tilde f_t, \tilde z_t, \tilde o_t) &= W_x x_t + W_h h_{t-1} + b \\
        m_t &= \max(\ln \sigma(\tilde f_t) + m_{t-1}, \tilde i_t) \\
        i_t &= \exp(\tilde i_t - m_t) \\
        f_t &= \exp(\ln \sigma(\tilde f_t) + m_{t-1} - m_t) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot \tanh(\tilde z_t) \\
        n_t &= f_t \odot n_{t-1} + i_t \\
        h_t &= \sigma(\tilde o_t) \odot c_t / n_t

    The carry is (c, n, m, h), so the state has N = 4H entries. The gates i and f are the stabilised ones, of which the
    larger is 1.

    What is computed is the network whose state is :math:`\hat c = c e^m, \hat n = n e^m` and h, without stabiliser. So
    m is a choice of scale, :math:`(c, n, m) \to (c e^{-s}, n e^{-s}, m + s)`, and the Jacobian shows it: a unit's
    direction (-c, -n, 1) moves no h, ever. A step whose f is 1 hands it on, as (-c_t, -n_t, 1); one whose i is 1
    annihilates it. Hence one exponent for each unit is the scale's: -inf once its i was 1, and 0 if its f always is.
    The other 3H are those of :math:`(\hat c, \hat n, h)`, if m stays bounded, as it does where inputs are.

    Where forgetting is slow, trust fewer of them: an exponent loses its digits where an f stays 1 for more than
    36 / |exponent| steps running (16 / |exponent| in float32), for what has decayed so far drowns in the scale, which
    does not decay.

    A fresh carry is all zeros; h_1 = o z whatever m_0 is, as long as i_1 does not underflow: the first
    :math:`\tilde i - \ln \sigma(\tilde f)` must not lie below -87 in float32, -708 in float64.

    Args:
        in_features: F.
        hidden_features: H.
        forget_bias: added to b_f at initialisation; a number, one per unit, or a law, see
            `cells.gate_biases`.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1.
    """

    gate_order = ("input", "forget", "candidate", "output", "stabilizer")
    derived = ("stabilizer",)
    candidates = ("candidate", "stabilizer")
    carry_structure: ClassVar[tuple[int, int, int, int]] = (0, 0, 0, 0)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        forget_bias: GateBias = 1.0,
        **options: Unpack[PackedOptions],
    ):
        super().__init__(in_features, hidden_features, **options)
        self.add_to_bias("forget", forget_bias, options["rngs"])

    def log_forget(self, preactivation: Array) -> Array:
        """Return the logarithm of the forget gate before it is stabilised."""
        return jax.nn.log_sigmoid(preactivation)

    def gates_from_drive(
        self, carry: Carry4, drive: Array, given: Mapping[str, Array] = NONE_GIVEN
    ) -> dict[str, Array]:
        """Return the gates i, f, z, o and m_t, each [..., H]; i and f read m_t."""
        _, _, m, h = carry
        i, f, z, o = self.split(drive + self.recur(h))
        kept = self.log_forget(f) + m
        # No stop_gradient here: m cancels out of h only where i and f move with it, and it is state as much as c is.
        # `maximum` would give a tie half of either slope, which is the slope of neither side.
        stabilizer = given.get("stabilizer", jnp.where(kept > i, kept, i))
        return {
            "input": jnp.exp(i - stabilizer),
            "forget": jnp.exp(kept - stabilizer),
            "candidate": jnp.tanh(z),
            "output": jax.nn.sigmoid(o),
            "stabilizer": stabilizer,
        }

    def combine(self, carry: Carry4, gates: Mapping[str, Array]) -> Carry4:
        """Return (c_t, n_t, m_t, h_t) from (c_{t-1}, n_{t-1}, m_{t-1}, h_{t-1}) and the gates."""
        c = gates["forget"] * carry[0] + gates["input"] * gates["candidate"]
        n = gates["forget"] * carry[1] + gates["input"]
        return c, n, gates["stabilizer"], gates["output"] * c / n


class ExponentialSLSTMCell(SLSTMCell):
    r"""sLSTM whose forget gate is an exponential too (Beck et al. 2024, equation 13): :math:`\exp(\tilde f_t)`.

    All else is that of `SLSTMCell`, with :math:`\tilde f_t` in the place of :math:`\ln \sigma(\tilde f_t)`. The past
    may gain weight against what is new. Then m grows on and on; the exponents are those of c and n, which stay in
    range, and those of :math:`\hat c` and :math:`\hat n` are larger by what m grows per step.

    Args:
        in_features: F.
        hidden_features: H.
        forget_bias: added to b_f at initialisation; a number, one per unit, or a law, see
            `cells.gate_biases`. At 0 all that was written weighs alike.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        forget_bias: GateBias = 0.0,
        **options: Unpack[PackedOptions],
    ):
        super().__init__(in_features, hidden_features, forget_bias=forget_bias, **options)

    def log_forget(self, preactivation: Array) -> Array:
        """Return the logarithm of the forget gate before it is stabilised."""
        return preactivation
