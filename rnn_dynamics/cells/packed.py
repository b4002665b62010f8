"""The parameters that most cells have: one affine map for each gate, packed side by side."""

from typing import ClassVar, Required, TypedDict

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx import rnglib
from jax import Array
from jax.typing import DTypeLike

from rnn_dynamics.cells import initializers
from rnn_dynamics.cells.base import Cell
from rnn_dynamics.cells.gate_biases import GateBias, GateBiasLaw
from rnn_dynamics.types import Initializer

lecun_normal = jax.nn.initializers.lecun_normal()
orthogonal = initializers.orthogonal()
zeros = jax.nn.initializers.zeros


class PackedOptions(TypedDict, total=False):
    """What every `PackedCell` takes besides its sizes; see there."""

    kernel_init: Initializer
    recurrent_kernel_init: Initializer
    bias_init: Initializer
    dtype: DTypeLike | None
    param_dtype: DTypeLike
    rngs: Required[rnglib.Rngs]


class PackedCell(Cell):
    """A cell with one affine map of inputs and state for each gate, held side by side: one matmul for all.

    The G gates lie in the order of `gate_order`: kernel [F, G*H], recurrent_kernel [H, G*H], bias [G*H]. Gates that are
    made of others and have no map of their own are named in `derived`, and come last in `gate_order`; where gates share
    maps, `block_counts` says how many blocks of H columns each of the three has. A cell whose map of the state is of
    another form says so in `recurrent_shape` and `recur`.

    Args:
        in_features: F.
        hidden_features: H.
        kernel_init: initialiser of the input kernels W_x side by side, [F, G*H].
        recurrent_kernel_init: initialiser of the recurrent kernels W_h side by side, [H, G*H], or `recurrent_shape`.
        bias_init: initialiser of the biases b, [G*H].
        dtype: of the computation (default: param_dtype).
        param_dtype: of the parameters.
        rngs: keys for the initialisers.

    Raises:
        ValueError: a size below 1.
    """

    derived: ClassVar[tuple[str, ...]] = ()
    """Those of the gates that have no affine map of their own."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer = lecun_normal,
        recurrent_kernel_init: Initializer = orthogonal,
        bias_init: Initializer = zeros,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: rnglib.Rngs,
    ):
        super().__init__(in_features, hidden_features, dtype=dtype, param_dtype=param_dtype)
        inputs, _, constant = (count * hidden_features for count in self.block_counts())
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_features, inputs), self.param_dtype))
        self.recurrent_kernel: nnx.Variable = nnx.Param(
            recurrent_kernel_init(rngs.params(), self.recurrent_shape, self.param_dtype)
        )
        self.bias = nnx.Param(bias_init(rngs.params(), (constant,), self.param_dtype))

    def block_counts(self) -> tuple[int, int, int]:
        """Return how many blocks of H columns kernel, recurrent_kernel and bias have: G each."""
        gates = len(self.mapped_gates)
        return gates, gates, gates

    @property
    def mapped_gates(self) -> tuple[str, ...]:
        """Names of the G gates that have an affine map, in the order of their blocks."""
        return tuple(name for name in self.gate_order if name not in self.derived)

    @property
    def recurrent_shape(self) -> tuple[int, int]:
        """Of the parameter `recurrent_kernel`."""
        return self.hidden_features, self.block_counts()[1] * self.hidden_features

    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive [..., G*H] = inputs @ kernel + bias.

        Raises:
            ValueError: inputs of the wrong width.
        """
        drive = self.check_inputs(inputs) @ self.kernel[...].astype(self.dtype)
        return drive + self.per_unit(self.bias, drive)

    def recur(self, hidden: Array, *gates: str) -> Array:
        """Map the hidden state [..., H] to its share of the preactivations of gates, neighbours in `gate_order`.

        Args:
            hidden: [..., H].
            *gates: which n of the G (default: all).

        Returns:
            [..., n*H].
        """
        hidden, recurrent_kernel = self.cast(hidden, self.recurrent_kernel[...])
        return hidden @ (recurrent_kernel[:, self.columns(*gates)] if gates else recurrent_kernel)

    def columns(self, *gates: str) -> slice:
        """Say where gates that are neighbours in `gate_order` lie in what is packed."""
        first = self.gate_order.index(gates[0])
        return slice(first * self.hidden_features, (first + len(gates)) * self.hidden_features)

    def split(self, packed: Array) -> tuple[Array, ...]:
        """Split what is packed, [..., n*H], into n blocks [..., H]: of all gates, one for each that has a map."""
        return tuple(jnp.split(packed, packed.shape[-1] // self.hidden_features, axis=-1))

    def add_to_bias(self, gate: str, amount: GateBias, rngs: rnglib.Rngs) -> None:
        """Add to the bias of a gate, and to those of others where a law says so.

        Args:
            gate: one of `mapped_gates`.
            amount: a number, one per unit [H], or a law, see `cells.gate_biases`.
            rngs: keys for the law; a number takes none.
        """
        shares = {gate: amount}
        if isinstance(amount, GateBiasLaw):
            drawn = amount.draw(rngs.params(), (self.hidden_features,), self.param_dtype)
            shares = {gate: drawn} | {other: -drawn for other in amount.opposed if other in self.mapped_gates}
        for name, share in shares.items():
            self.bias[...] = self.bias[...].at[self.columns(name)].add(jnp.asarray(share, self.param_dtype))
