"""Elman networks whose recurrent matrix is orthogonal at every step of training."""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.typing import DTypeLike

from rnn_dynamics.cells.activations import ACTIVATIONS, modrelu
from rnn_dynamics.cells.base import NONE_GIVEN, Setting
from rnn_dynamics.cells.constrained import ConstrainedCell, skew
from rnn_dynamics.cells.packed import PackedOptions
from rnn_dynamics.discovery import unknown_name


def henaff(key: Array, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> Array:
    """Rotate H/2 planes by angles from U(-pi, pi) (Henaff, Szlam and LeCun 2016): an initialiser of `ExpRNNCell`'s A.

    Where H is odd, one unit is in no plane; exp(A) keeps it.

    Args:
        key: of the draw.
        shape: [H, H].
        dtype: of the parameter.

    Returns:
        The parameter, in whose upper triangle the blocks' entries lie.
    """
    return _planes(jax.random.uniform(key, (shape[0] // 2,), dtype, -jnp.pi, jnp.pi), shape)


def cayley(key: Array, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> Array:
    """Rotate H/2 planes by angles from U(0, pi/2) under Cayley's map (Helfrich, Willmott and Ye 2018).

    The blocks' entries are tan(angle / 2); exp(A) rotates by these, at most one radian.

    Args:
        key: of the draw.
        shape: [H, H].
        dtype: of the parameter.

    Returns:
        The parameter, in whose upper triangle the blocks' entries lie.
    """
    return _planes(jnp.tan(jax.random.uniform(key, (shape[0] // 2,), dtype, 0, jnp.pi / 2) / 2), shape)


def _planes(entries: Array, shape: tuple[int, int]) -> Array:
    first = 2 * jnp.arange(len(entries))
    return jnp.zeros(shape, entries.dtype).at[first, first + 1].set(entries)


class OrthogonalCell(ConstrainedCell):
    r"""Elman network with an orthogonal W_h; how it is made, a subclass says.

    .. math:: h_t = \mathrm{modReLU}(W_x x_t + W_h h_{t-1};\, b) \quad\text{or}\quad \phi(W_x x_t + W_h h_{t-1} + b)

    The state Jacobian is a diagonal of slopes times :math:`W_h`. With activation="identity" it is orthogonal: every
    exponent and the logarithm of every singular value of a product is 0. modReLU's slopes are 0 and 1, and with the
    default b = 0 all are 1 until b is trained.

    Args:
        in_features: F.
        hidden_features: H.
        activation: "modrelu", whose b is its threshold, or phi by name, see `cells.activations`.
        **options: initialisers, dtypes and keys, see `PackedCell`; recurrent_kernel_init is that of A, of which the
            strict upper triangle counts.

    Raises:
        ValueError: a size below 1, an unknown activation.
    """

    gate_order = ("hidden",)
    candidates = ("hidden",)

    def __init__(
        self, in_features: int, hidden_features: int, *, activation: str = "modrelu", **options: Unpack[PackedOptions]
    ):
        if activation not in ("modrelu", *ACTIVATIONS):
            raise ValueError(unknown_name("activation", activation, ("modrelu", *ACTIVATIONS)))
        self.activation = ACTIVATIONS.get(activation)
        super().__init__(in_features, hidden_features, **options)

    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive [..., H], W_x x_t alone: the bias is the activation's.

        Raises:
            ValueError: inputs of the wrong width.
        """
        return self.check_inputs(inputs) @ self.kernel[...].astype(self.dtype)

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the one candidate, h_t [..., H], from h_{t-1} and the drive W_x x_t [..., H]."""
        preactivation = drive + self.recur(carry)
        bias = self.per_unit(self.bias, preactivation)
        if self.activation is None:
            return {"hidden": modrelu(preactivation, bias)}
        return {"hidden": self.activation(preactivation + bias)}

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> Array:
        """Return h_t: nothing but the candidate."""
        return gates["hidden"]


class ExpRNNCell(OrthogonalCell):
    r"""expRNN (Lezcano-Casado and Martinez-Rubio 2019): an `OrthogonalCell` with a rotation.

    .. math::
        h_t &= \mathrm{modReLU}(W_x x_t + W_h h_{t-1};\, b) \\
        W_h &= \exp(A), \qquad A = -A^\top

    Every rotation is exp(A) for some A. The carry is h, so N = H.

    Args:
        in_features: F.
        hidden_features: H.
        activation: "modrelu" or a name, see `OrthogonalCell`.
        **options: initialisers, dtypes and keys, see `PackedCell`. recurrent_kernel_init is that of A: `henaff` if not
            given, or the paper's other choice, `cayley`.

    Raises:
        ValueError: a size below 1, an unknown activation.
    """

    def __init__(
        self, in_features: int, hidden_features: int, *, activation: str = "modrelu", **options: Unpack[PackedOptions]
    ):
        options.setdefault("recurrent_kernel_init", henaff)
        super().__init__(in_features, hidden_features, activation=activation, **options)

    def recurrent_matrix(self, free: Array) -> Array:
        """Return exp(A)."""
        return jax.scipy.linalg.expm(skew(free))


class ScoRNNCell(OrthogonalCell):
    r"""scoRNN (Helfrich, Willmott and Ye 2018): an `OrthogonalCell` by the scaled Cayley transform.

    .. math::
        h_t &= \mathrm{modReLU}(W_x x_t + W_h h_{t-1};\, b) \\
        W_h &= (I + A)^{-1} (I - A)\, D, \qquad A = -A^\top

    D is a diagonal of 1 and -1, so that W_h may have the eigenvalue -1, which the transform alone cannot reach; its
    determinant is :math:`(-1)^\rho`. The carry is h, so N = H.

    Args:
        in_features: F.
        hidden_features: H.
        activation: "modrelu" or a name, see `OrthogonalCell`.
        negatives: rho, number of -1 in D, 0 ... H (default: half of H, rounded down); not trained, and `vmap` can carry
            it.
        **options: initialisers, dtypes and keys, see `PackedCell`. recurrent_kernel_init is that of A: `cayley` if not
            given.

    Raises:
        ValueError: a size below 1, an unknown activation, a number of -1 outside 0 ... H.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: str = "modrelu",
        negatives: int | Array | None = None,
        **options: Unpack[PackedOptions],
    ):
        options.setdefault("recurrent_kernel_init", cayley)
        super().__init__(in_features, hidden_features, activation=activation, **options)
        count = hidden_features // 2 if negatives is None else negatives
        if not isinstance(count, Tracer) and count not in range(hidden_features + 1):
            raise ValueError(f"negatives must be a whole number from 0 to {hidden_features}, got {negatives}")
        self.signs = Setting(jnp.where(jnp.arange(hidden_features) < count, -1, 1).astype(self.param_dtype))

    def recurrent_matrix(self, free: Array) -> Array:
        """Return the Cayley transform of A, its columns times the signs in D."""
        a, one = skew(free), jnp.eye(self.hidden_features, dtype=free.dtype)
        return jnp.linalg.solve(one + a, one - a) * self.signs[...].astype(free.dtype)[None, :]
