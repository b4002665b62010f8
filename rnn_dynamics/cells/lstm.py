"""The long short-term memory cell, from the first without a forget gate to those that couple gates or let them peek."""

from collections.abc import Mapping
from typing import ClassVar, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.gate_biases import GateBias
from rnn_dynamics.cells.packed import PackedCell, PackedOptions, zeros
from rnn_dynamics.types import Initializer


class ForgetlessLSTMCell(PackedCell):
    r"""LSTM without forget gate (Hochreiter and Schmidhuber 1997): c is a constant error carousel.

    .. math::
        i_t &= \sigma(W_{xi} x_t + W_{hi} h_{t-1} + b_i) \\
        g_t &= \tanh(W_{xg} x_t + W_{hg} h_{t-1} + b_g) \\
        o_t &= \sigma(W_{xo} x_t + W_{ho} h_{t-1} + b_o) \\
        c_t &= c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    The carry is (c, h), so the state has N = 2H entries. The paper's squashing functions, 2 tanh(x/2) and tanh(x/2) in
    the place of the two tanh, make the same cell with c and the maps of g twice as large. Of the connections that the
    paper allows in the hidden layer those that start at gates are left out, as in all later forms.

    Args:
        in_features: F.
        hidden_features: H.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1.
    """

    gate_order = ("input", "candidate", "output")
    carry_structure: ClassVar[tuple[int, int]] = (0, 0)

    def gates_from_drive(
        self, carry: tuple[Array, Array], drive: Array, given: Mapping[str, Array] = NONE_GIVEN
    ) -> dict[str, Array]:
        """Return the gates i, g, o under their full names, each [..., H]."""
        _, h = carry
        i, g, o = self.split(drive + self.recur(h))
        return {"input": jax.nn.sigmoid(i), "candidate": jnp.tanh(g), "output": jax.nn.sigmoid(o)}

    def combine(self, carry: tuple[Array, Array], gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return (c_t, h_t) from (c_{t-1}, h_{t-1}) and the gates."""
        c = carry[0] + gates["input"] * gates["candidate"]
        return c, gates["output"] * jnp.tanh(c)


class LSTMOptions(PackedOptions, total=False):
    """What every variant of `LSTMCell` takes besides its sizes; see there."""

    forget_bias: GateBias


class LSTMCell(PackedCell):
    r"""LSTM with forget gate (Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000).

    .. math::
        i_t &= \sigma(W_{xi} x_t + W_{hi} h_{t-1} + b_i) \\
        f_t &= \sigma(W_{xf} x_t + W_{hf} h_{t-1} + b_f) \\
        g_t &= \tanh(W_{xg} x_t + W_{hg} h_{t-1} + b_g) \\
        o_t &= \sigma(W_{xo} x_t + W_{ho} h_{t-1} + b_o) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    The carry is (c, h), so the state has N = 2H entries.

    Args:
        in_features: F.
        hidden_features: H.
        forget_bias: added to b_f at initialisation (Jozefowicz, Zaremba and Sutskever 2015); a number, one per unit,
            or a law such as chrono's, see `cells.gate_biases`.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1.
    """

    gate_order = ("input", "forget", "candidate", "output")
    carry_structure: ClassVar[tuple[int, int]] = (0, 0)

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

    def gates_from_drive(
        self, carry: tuple[Array, Array], drive: Array, given: Mapping[str, Array] = NONE_GIVEN
    ) -> dict[str, Array]:
        """Return the gates i, f, g, o under their full names, each [..., H]."""
        _, h = carry
        i, f, g, o = self.split(drive + self.recur(h))
        return {
            "input": jax.nn.sigmoid(i),
            "forget": jax.nn.sigmoid(f),
            "candidate": jnp.tanh(g),
            "output": jax.nn.sigmoid(o),
        }

    def accumulate(self, c: Array, gates: Mapping[str, Array]) -> Array:
        """Return c_t from c_{t-1} [..., H] and the gates."""
        return gates["forget"] * c + gates["input"] * gates["candidate"]

    def combine(self, carry: tuple[Array, Array], gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return (c_t, h_t) from (c_{t-1}, h_{t-1}) and the gates."""
        c = self.accumulate(carry[0], gates)
        return c, gates["output"] * jnp.tanh(c)


class CoupledLSTMCell(LSTMCell):
    r"""LSTM that writes what it forgets: i = 1 - f (CIFG of Greff et al. 2017, here without peepholes).

    .. math::
        f_t &= \sigma(W_{xf} x_t + W_{hf} h_{t-1} + b_f) \\
        g_t &= \tanh(W_{xg} x_t + W_{hg} h_{t-1} + b_g) \\
        o_t &= \sigma(W_{xo} x_t + W_{ho} h_{t-1} + b_o) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    The carry is (c, h), so the state has N = 2H entries. The paper keeps i and has f = 1 - i: the same, the map of
    the gate having the other sign.

    Args:
        in_features: F.
        hidden_features: H.
        forget_bias: as of `LSTMCell`.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1.
    """

    gate_order = ("forget", "candidate", "output")

    def gates_from_drive(
        self, carry: tuple[Array, Array], drive: Array, given: Mapping[str, Array] = NONE_GIVEN
    ) -> dict[str, Array]:
        """Return the gates f, g, o under their full names, each [..., H]."""
        _, h = carry
        f, g, o = self.split(drive + self.recur(h))
        return {"forget": jax.nn.sigmoid(f), "candidate": jnp.tanh(g), "output": jax.nn.sigmoid(o)}

    def accumulate(self, c: Array, gates: Mapping[str, Array]) -> Array:
        """Return c_t from c_{t-1} [..., H] and the gates."""
        return gates["forget"] * c + (1 - gates["forget"]) * gates["candidate"]


class PeepholeLSTMCell(LSTMCell):
    r"""LSTM whose gates see c, each unit's its own (Gers and Schmidhuber 2000, in the form of Greff et al. 2017).

    .. math::
        i_t &= \sigma(W_{xi} x_t + W_{hi} h_{t-1} + p_i \odot c_{t-1} + b_i) \\
        f_t &= \sigma(W_{xf} x_t + W_{hf} h_{t-1} + p_f \odot c_{t-1} + b_f) \\
        g_t &= \tanh(W_{xg} x_t + W_{hg} h_{t-1} + b_g) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        o_t &= \sigma(W_{xo} x_t + W_{ho} h_{t-1} + p_o \odot c_t + b_o) \\
        h_t &= o_t \odot \tanh(c_t)

    The carry is (c, h), so the state has N = 2H entries. The output gate sees the new c.

    Args:
        in_features: F.
        hidden_features: H.
        peephole_init: initialiser of p_i, p_f, p_o side by side, [3*H].
        **options: forget_bias as of `LSTMCell`; initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        peephole_init: Initializer = zeros,
        **options: Unpack[LSTMOptions],
    ):
        super().__init__(in_features, hidden_features, **options)
        self.peephole = nnx.Param(peephole_init(options["rngs"].params(), (3 * hidden_features,), self.param_dtype))

    def gates_from_drive(
        self, carry: tuple[Array, Array], drive: Array, given: Mapping[str, Array] = NONE_GIVEN
    ) -> dict[str, Array]:
        """Return the gates i, f, g, o under their full names, each [..., H]; o reads the others, by way of c_t."""
        c, h = carry
        i, f, g, o = self.split(drive + self.recur(h))
        p_i, p_f, p_o = jnp.split(self.per_unit(self.peephole, c), 3, axis=-1)
        gates = {
            "input": jax.nn.sigmoid(i + p_i * c),
            "forget": jax.nn.sigmoid(f + p_f * c),
            "candidate": jnp.tanh(g),
        }
        return gates | {"output": jax.nn.sigmoid(o + p_o * self.accumulate(c, gates | dict(given)))}
