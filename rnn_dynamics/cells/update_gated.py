"""What cells have in common whose update gate weighs what is kept against what is new."""

from collections.abc import Mapping
from typing import Unpack

from jax import Array

from rnn_dynamics.cells.gate_biases import GateBias
from rnn_dynamics.cells.packed import PackedCell, PackedOptions


class UpdateGatedOptions(PackedOptions, total=False):
    """What every `UpdateGatedCell` takes besides its sizes; see there."""

    update_bias: GateBias


class UpdateGatedCell(PackedCell):
    r"""A cell whose gate "update", z, keeps the state, and whose gate "candidate", n, is what replaces it.

    .. math:: h_t = z_t \odot h_{t-1} + (1 - z_t) \odot n_t

    The carry is h, N = H.

    Args:
        in_features: F.
        hidden_features: H.
        update_bias: added to b_z at initialisation; large values keep the state (cf. the LSTM's forget bias). A number,
            one per unit, or a law such as chrono's, see `cells.gate_biases`.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        update_bias: GateBias = 0.0,
        **options: Unpack[PackedOptions],
    ):
        super().__init__(in_features, hidden_features, **options)
        self.add_to_bias("update", update_bias, options["rngs"])

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> Array:
        """Return h_t from h_{t-1} [..., H] and the gates."""
        return gates["update"] * carry + (1 - gates["update"]) * gates["candidate"]
