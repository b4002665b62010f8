"""What cells have in common whose new state is linear in the old one, with coefficients that do not see it."""

import abc
from collections.abc import Mapping

import jax.numpy as jnp
from flax import nnx
from flax.nnx import rnglib
from jax import Array
from jax.typing import DTypeLike

from rnn_dynamics.cells.activations import find_activation
from rnn_dynamics.cells.base import NONE_GIVEN, Cell
from rnn_dynamics.cells.packed import lecun_normal, zeros
from rnn_dynamics.types import Initializer


class LinearCell(Cell):
    r"""A cell, one array its carry, whose gates read the inputs alone: `types.LinearInState`.

    .. math:: h_t = a_t \odot h_{t-1} + b_t

    So the Jacobian is the direct path diag(a_t) alone, whatever the state is, and all steps can be composed at once.
    A subclass writes one equation for each gate in `gates_of_drive`, and what they make of a and b in `weigh`.
    """

    @abc.abstractmethod
    def gates_of_drive(self, drive: Array) -> dict[str, Array]:
        """Return the value [..., H] of every gate from the drive [..., D]."""

    @abc.abstractmethod
    def weigh(self, gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return the decay a_t and the increment b_t, [..., H], that the gates make; no weight has a part in it."""

    def coefficients(self, drive: Array) -> tuple[Array, Array]:
        """Return the decay a_t and the increment b_t, [..., H], of the steps with this drive [..., D]."""
        return self.weigh(self.gates_of_drive(drive))

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the value [..., H] of every gate; the carry has no part in it, and no gate reads another."""
        return self.gates_of_drive(drive)

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> Array:
        """Return h_t from h_{t-1} [..., H] and the gates."""
        decay, increment = self.weigh(gates)
        return decay * carry + increment


class InputGatedCell(LinearCell):
    """A linear cell with one affine map of the inputs for each gate, held side by side in `maps`, an `nnx.Linear`.

    The G gates lie in the order of `gate_order`: maps.kernel [F, G*H], maps.bias [G*H].

    Args:
        in_features: F.
        hidden_features: H.
        activation: phi of the candidate by name, see `cells.activations`.
        kernel_init: initialiser of the kernels W side by side, [F, G*H].
        bias_init: initialiser of the biases b, [G*H].
        dtype: of the computation (default: param_dtype).
        param_dtype: of the parameters.
        rngs: keys for the initialisers.

    Raises:
        ValueError: a size below 1, an unknown activation.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: str = "identity",
        kernel_init: Initializer = lecun_normal,
        bias_init: Initializer = zeros,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: rnglib.Rngs,
    ):
        self.activation = find_activation(activation)
        super().__init__(in_features, hidden_features, dtype=dtype, param_dtype=param_dtype)
        self.maps = nnx.Linear(
            in_features,
            len(self.gate_order) * hidden_features,
            kernel_init=kernel_init,
            bias_init=bias_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            rngs=rngs,
        )

    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive [..., G*H] = inputs @ kernel + bias.

        Raises:
            ValueError: inputs of the wrong width.
        """
        return self.maps(self.check_inputs(inputs))

    def split(self, drive: Array) -> list[Array]:
        """Split the drive [..., G*H] into one [..., H] for each gate, in `gate_order`."""
        return jnp.split(drive, len(self.gate_order), axis=-1)
