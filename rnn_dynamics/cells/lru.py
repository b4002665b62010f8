"""The linear recurrent unit: a diagonal of complex numbers inside the unit circle."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import rnglib
from jax import Array
from jax.core import Tracer
from jax.typing import DTypeLike

from rnn_dynamics.cells.linear import LinearCell
from rnn_dynamics.types import Initializer

_normal = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")
_half_normal = jax.nn.initializers.variance_scaling(0.5, "fan_in", "normal")


class Ring(NamedTuple):
    """The sector of a ring in the complex plane, from phase 0 on, that eigenvalues are drawn from uniformly.

    Attributes:
        r_min: inner radius, >= 0.
        r_max: outer radius, <= 1.
        max_phase: largest phase, radians, > 0.
    """

    r_min: float | Array = 0.0
    r_max: float | Array = 1.0
    max_phase: float | Array = 2 * np.pi

    def check(self) -> None:
        """Refuse what is no ring; values that are being traced are taken as they come.

        Raises:
            ValueError: radii that are none of a ring, a sector that is none.
        """
        if any(isinstance(value, Tracer) for value in self):
            return
        if not (0 <= self.r_min <= self.r_max <= 1 and self.r_min < 1 and self.r_max > 0):
            raise ValueError(
                f"ring must have radii 0 <= r_min <= r_max <= 1, got r_min={self.r_min}, r_max={self.r_max}"
            )
        if not self.max_phase > 0:
            raise ValueError(f"ring must have max_phase > 0, got {self.max_phase}")

    def draw(self, key: Array, size: int, dtype: DTypeLike) -> tuple[Array, Array]:
        """Draw -ln|lambda| and the phase of each eigenvalue (lemma 3.2 of the paper).

        Args:
            key: of the random numbers.
            size: H.
            dtype: of the parameters.

        Returns:
            -ln|lambda| and phases, [H] each, positive, for their logarithms are what is trained.
        """
        r_min, r_max, max_phase = (jnp.asarray(value, dtype) for value in self)
        least = jnp.finfo(dtype).eps
        area, turn = jax.random.uniform(key, (2, size), dtype, minval=least)
        squared_radius = jnp.minimum(area * (r_max**2 - r_min**2) + r_min**2, 1 - least)
        return -jnp.log(squared_radius) / 2, max_phase * turn


WHOLE_DISC = Ring()


class LRUCell(LinearCell):
    r"""Linear recurrent unit (Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu and De 2023, sections 3.2-3.4).

    .. math::
        \lambda &= \exp(-e^{\nu} + i e^{\theta}) \\
        h_t &= \lambda \odot h_{t-1} + e^{\gamma} \odot (B x_t) \\
        y_t &= \mathrm{Re}(C h_t)

    where nu, theta and gamma are the paper's nu^log, theta^log and gamma^log, the parameters nu_log, theta_log and
    gamma_log [H]; B and C are complex and held as B_re, B_im [F, H], C_re, C_im [H, H]. The carry is one complex array
    h [..., H], so the state has N = 2H real entries, and each exponent ln|lambda| = -e^nu comes twice, driven or not.

    The feed-through D x_t of the paper's output sees no state and is left to a layer. The carry of a computation in
    bfloat16, which has no complex partner, is complex64; its output is bfloat16.

    At initialisation lambda is uniform on `ring`, and e^gamma = sqrt(1 - |lambda|^2), which keeps the variance of a
    white input.

    Args:
        in_features: F.
        hidden_features: H, of the state and of the output.
        ring: where lambda starts, see `Ring` (default: anywhere in the unit disc); r_min near 1 for long memory.
        kernel_init: initialiser of B_re and B_im (default: normal of variance 1 / 2F, the paper's).
        output_kernel_init: initialiser of C_re and C_im (default: normal of variance 1 / H, the paper's).
        dtype: of the computation (default: param_dtype).
        param_dtype: of the parameters.
        rngs: keys for the initialisers.

    Raises:
        ValueError: a size below 1, a ring or a sector that is none.
    """

    gate_order = ("decay", "increment")
    candidates = ("decay", "increment")

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        ring: Ring = WHOLE_DISC,
        kernel_init: Initializer = _half_normal,
        output_kernel_init: Initializer = _normal,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: rnglib.Rngs,
    ):
        super().__init__(in_features, hidden_features, dtype=dtype, param_dtype=param_dtype)
        ring = Ring(*ring)
        ring.check()
        decay_rate, phase = ring.draw(rngs.params(), hidden_features, self.param_dtype)
        self.nu_log = nnx.Param(jnp.log(decay_rate))
        self.theta_log = nnx.Param(jnp.log(phase))
        self.gamma_log = nnx.Param(jnp.log(-jnp.expm1(-2 * decay_rate)) / 2)

        def draw(init: Initializer, rows: int) -> nnx.Param[Array]:
            return nnx.Param(init(rngs.params(), (rows, hidden_features), self.param_dtype))

        self.B_re, self.B_im = draw(kernel_init, in_features), draw(kernel_init, in_features)
        self.C_re, self.C_im = draw(output_kernel_init, hidden_features), draw(output_kernel_init, hidden_features)

    @property
    def carry_dtype(self) -> Any:
        """The complex partner of the dtype of the computation; complex64 for bfloat16, which has none."""
        return jnp.result_type(self.dtype, jnp.complex64)

    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive e^gamma B x [..., H], complex.

        Raises:
            ValueError: inputs of the wrong width.
        """
        inputs, b_re, b_im = self.cast(self.check_inputs(inputs), self.B_re[...], self.B_im[...])
        real, imag = (part.astype(self._part_dtype) for part in (inputs @ b_re, inputs @ b_im))
        scale = jnp.broadcast_to(self._exponential(self.gamma_log), real.shape)
        return jax.lax.complex(scale * real, scale * imag)

    def gates_of_drive(self, drive: Array) -> dict[str, Array]:
        """Return lambda and e^gamma B x, each complex [..., H]."""
        decay = jnp.exp(jax.lax.complex(-self._exponential(self.nu_log), self._exponential(self.theta_log)))
        return {"decay": jnp.broadcast_to(decay, drive.shape), "increment": drive}

    def weigh(self, gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return lambda and e^gamma B x_t, each [..., H]."""
        return gates["decay"], gates["increment"]

    def output(self, carry: Array) -> Array:
        """Read the output Re(C h), real [..., H], off a carry."""
        real, imag, c_re, c_im = self.cast(jnp.real(carry), jnp.imag(carry), self.C_re[...], self.C_im[...])
        return real @ c_re - imag @ c_im

    @property
    def _part_dtype(self) -> Any:
        """Of the carry's real and imaginary parts."""
        return jnp.finfo(self.carry_dtype).dtype

    def _exponential(self, parameter: nnx.Variable) -> Array:
        return jnp.exp(parameter[...].astype(self._part_dtype))
