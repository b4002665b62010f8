"""The clockwork network: a plain network in modules, each of which moves at its own period."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.cells.activations import find_activation
from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.packed import PackedCell, PackedOptions


class ClockworkCell(PackedCell):
    r"""Clockwork RNN (Koutnik, Greff, Gomez and Schmidhuber 2014).

    The H units lie in M modules of equal sizes (the first of them one unit larger where M does not divide H) with
    periods T_1 < ... < T_M. At step t = 0, 1, ...

    .. math::
        n_t &= \phi(W_x x_t + W_h h_{t-1} + b) \\
        h_{t,i} &= n_{t,i} \text{ if } t \bmod T_{m(i)} = 0 \text{ else } h_{t-1,i}

    and a unit reads from its own module and from slower ones alone: W_h is block upper triangular, and
    recurrent_kernel [H, H], its transpose, block lower triangular. The rest of that parameter has no effect.

    The step depends on the time, so the clock is state: the carry is (clock [..., 1], h [..., H]), and N = H + 1. The
    clock holds t modulo the least common multiple of the periods. A clock between ticks is taken for the nearest one:
    no derivative goes through it, and one exponent is -inf.

    Without inputs and with the identity for phi, the exponents of module m are ln|eig(W_mm)| / T_m.

    Args:
        in_features: F.
        hidden_features: H.
        periods: T_1 ... T_M, steps; the paper's are powers of two.
        activation: phi by name, see `cells.activations`.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1, an unknown activation, periods that are no whole numbers in increasing order, more
            of them than units, or with a common multiple that dtype cannot count to.
    """

    gate_order = ("hidden",)
    candidates = ("hidden",)
    carry_structure: ClassVar[tuple[int, int]] = (0, 0)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        periods: tuple[int, ...] = (1, 2),
        activation: str = "tanh",
        **options: Unpack[PackedOptions],
    ):
        self.activation = find_activation(activation)
        self.periods = periods
        super().__init__(in_features, hidden_features, **options)
        self._check_periods()

    def _check_periods(self) -> None:
        whole = all(isinstance(period, int) and period >= 1 for period in self.periods)
        if not whole or list(self.periods) != sorted(set(self.periods)) or not self.periods:
            raise ValueError(f"periods must be whole numbers >= 1 in increasing order, got {self.periods}")
        if len(self.periods) > self.hidden_features:
            raise ValueError(
                f"periods must be no more than hidden_features = {self.hidden_features}, got {len(self.periods)}"
            )
        largest = 2 ** (jnp.finfo(self.dtype).nmant + 1)
        if self.cycle > largest:
            raise ValueError(
                f"periods must have a least common multiple <= {largest}, where {self.dtype} stops to count, "
                f"got {self.cycle}"
            )

    @property
    def cycle(self) -> int:
        """Steps after which all modules move together again: the least common multiple of the periods."""
        return math.lcm(*self.periods)

    def period_of_unit(self) -> np.ndarray:
        """Return the period of each unit's module, [H]."""
        modules = np.array_split(np.arange(self.hidden_features), len(self.periods))
        return np.repeat(self.periods, [len(units) for units in modules])

    def recur(self, hidden: Array, *gates: str) -> Array:
        """Map the hidden state [..., H] to its share of the preactivation, [..., H]: no unit hears a faster one."""
        period = self.period_of_unit()
        hidden, recurrent_kernel = self.cast(hidden, self.recurrent_kernel[...])
        return hidden @ jnp.where(period[:, None] >= period[None, :], recurrent_kernel, 0)

    def gates_from_drive(
        self, carry: tuple[Array, Array], drive: Array, given: Mapping[str, Array] = NONE_GIVEN
    ) -> dict[str, Array]:
        """Return the one candidate, n_t [..., H], of all units, whether it is their turn or not."""
        return {"hidden": self.activation(drive + self.recur(carry[1]))}

    def combine(self, carry: tuple[Array, Array], gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return the clock of the step to come [..., 1], and h_t: the candidate where it is the module's turn."""
        clock, h = carry
        tick = jnp.round(clock)
        period = jnp.asarray(self.period_of_unit(), self.dtype).reshape((1,) * (h.ndim - 1) + (-1,))
        return jnp.mod(tick + 1, self.cycle), jnp.where(jnp.mod(tick, period) == 0, gates["hidden"], h)

    def initialize_carry(self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None) -> Any:
        """Return a fresh carry (clock, h); Flax's signature. The clock is at 0, when all modules move.

        Args:
            input_shape: [..., F], of which all but the last are batch axes.
            rngs: keys for `carry_init`; needed with it alone.
            carry_init: initialiser of h (default: zeros).

        Returns:
            Clock [..., 1] and h [..., H].
        """
        _, h = super().initialize_carry(input_shape, rngs, carry_init)
        return jnp.zeros((*h.shape[:-1], 1), self.dtype), h
