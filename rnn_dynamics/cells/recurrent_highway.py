"""The recurrent highway network: a step that is a deep highway network itself."""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.gate_biases import GateBias
from rnn_dynamics.cells.packed import PackedCell, PackedOptions


class RecurrentHighwayCell(PackedCell):
    r"""Recurrent highway network of depth L with coupled gates c = 1 - t (Zilly et al. 2017, equations 6-9).

    .. math::
        n_l &= \tanh(W_{xn} x_t \, [l = 0] + R_{n,l} s_{l-1} + b_{n,l}) \\
        t_l &= \sigma(W_{xt} x_t \, [l = 0] + R_{t,l} s_{l-1} + b_{t,l}) \\
        s_l &= t_l \odot n_l + (1 - t_l) \odot s_{l-1}

    for l = 0 ... L-1, from :math:`s_{-1} = h_{t-1}` to :math:`h_t = s_{L-1}`, which is all of the carry: N = H. The
    gates of level l are named "candidate_l" and "transform_l", and read all those of the levels below. The inputs enter
    at level 0, so kernel is [F, 2H], recurrent_kernel [H, 2LH] and bias [2LH].

    Args:
        in_features: F.
        hidden_features: H.
        depth: L, highway layers per step.
        transform_bias: added to every b_t at initialisation; very negative values keep the state. A number, one per
            unit, or a law, see `cells.gate_biases`. The paper's lie between -4 and -2.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size or a depth below 1.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        depth: int = 2,
        transform_bias: GateBias = -2.0,
        **options: Unpack[PackedOptions],
    ):
        depth = whole_number("depth", depth, least=1)
        self.levels = tuple((f"candidate_{level}", f"transform_{level}") for level in range(depth))
        self.gate_order = tuple(name for level in self.levels for name in level)
        self.candidates = tuple(candidate for candidate, _ in self.levels)
        super().__init__(in_features, hidden_features, **options)
        for _, transform in self.levels:
            self.add_to_bias(transform, transform_bias, options["rngs"])

    def block_counts(self) -> tuple[int, int, int]:
        """Return how many blocks of H columns kernel, recurrent_kernel and bias have."""
        return 2, 2 * len(self.levels), 2 * len(self.levels)

    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive [..., 2H] = inputs @ kernel, that of level 0.

        Raises:
            ValueError: inputs of the wrong width.
        """
        return self.check_inputs(inputs) @ self.kernel[...].astype(self.dtype)

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return n_l and t_l of every level, each [..., H]; they read those of the levels below through s_{l-1}."""
        bias = self.per_unit(self.bias, drive)
        gates, state = {}, carry
        for level in self.levels:
            preactivation = bias[..., self.columns(*level)] + self.recur(state, *level)
            if level == self.levels[0]:
                preactivation = preactivation + drive
            n, t = self.split(preactivation)
            values = given.get(level[0], jnp.tanh(n)), given.get(level[1], jax.nn.sigmoid(t))
            state = _highway(state, *values)
            gates |= dict(zip(level, values, strict=True))
        return gates

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> Array:
        """Return h_t = s_{L-1} from h_{t-1} [..., H] and the gates."""
        state = carry
        for candidate, transform in self.levels:
            state = _highway(state, gates[candidate], gates[transform])
        return state


def _highway(state: Array, candidate: Array, transform: Array) -> Array:
    """Return s_l from s_{l-1} [..., H] and the gates of level l."""
    return transform * candidate + (1 - transform) * state
