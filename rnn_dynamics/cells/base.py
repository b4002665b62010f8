"""The contract of a cell: two halves, named gates, parameters packed gate by gate."""

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx import rnglib
from jax import Array

from rnn_dynamics.cells import initializers
from rnn_dynamics.types import Carry, Initializer

zeros = jax.nn.initializers.zeros

NONE_GIVEN: Mapping[str, Array] = MappingProxyType({})
"""No gate is held: each follows its own equation."""


class Cell(nnx.RNNCellBase, abc.ABC):
    """A recurrent cell whose step is `advance(carry, project(inputs))`.

    `project` is the affine map of the inputs and sees no state, so it can be applied to all time steps at once;
    `advance` is the recurrence, and all that state Jacobians see. The recurrence is in turn gates, then state:
    `combine(carry, gates_from_drive(carry, drive))`, which lets the Jacobian be told apart by gate. Being an
    `nnx.RNNCellBase`, a cell also runs in `nnx.RNN`.

    A subclass names its gates in `gate_order`, writes one equation for each in `gates_from_drive`, and one for the
    state in `combine`. What reads the carry through weights is a gate, the candidate state too; what is left to
    `combine` is the direct path. The kernels hold the gates side by side in the order of `gate_order`, one matmul for
    all: kernel [F, G*H], recurrent_kernel [H, G*H], bias [G*H].

    Attributes:
        in_features: F.
        hidden_features: H.
    """

    gate_order: ClassVar[tuple[str, ...]]
    candidates: ClassVar[tuple[str, ...]] = ("candidate",)
    """Those of the gates that hold content; the others are fractions, in (0, 1)."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        kernel_init: Initializer,
        recurrent_kernel_init: Initializer,
        bias_init: Initializer,
        dtype: Any,
        param_dtype: Any,
        rngs: rnglib.Rngs,
    ):
        for name, size in (("in_features", in_features), ("hidden_features", hidden_features)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {size!r}")
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.dtype = jnp.dtype(param_dtype if dtype is None else dtype)
        self.param_dtype = jnp.dtype(param_dtype)
        width = len(self.gate_order) * hidden_features
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_features, width), param_dtype))
        self.recurrent_kernel = nnx.Param(recurrent_kernel_init(rngs.params(), (hidden_features, width), param_dtype))
        self.bias = nnx.Param(bias_init(rngs.params(), (width,), param_dtype))

    @abc.abstractmethod
    def gates_from_drive(self, carry: Carry, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the value of every gate.

        Args:
            carry: the state before the step, arrays [..., H].
            drive: `project(inputs)`, [..., G*H].
            given: gates that are held at these values [..., H]. A gate that reads another, as the GRU's candidate reads
                the reset gate, reads it from here where it is there; where no gate reads another, this has no effect.

        Returns:
            A value [..., H] for each name in `gate_order`.
        """

    @abc.abstractmethod
    def combine(self, carry: Carry, gates: Mapping[str, Array]) -> tuple[Carry, Array]:
        """Make the new state from the old one and the gates; no weight has a part in it.

        Args:
            carry: the state before the step, arrays [..., H].
            gates: a value [..., H] for each name in `gate_order`.

        Returns:
            The carry after the step and the output h [..., H].
        """

    def advance(self, carry: Carry, drive: Array) -> tuple[Carry, Array]:
        """Make one step of the recurrence.

        Args:
            carry: the state before the step, arrays [..., H].
            drive: `project(inputs)`, [..., G*H].

        Returns:
            The carry after the step and the output h [..., H].
        """
        return self.combine(carry, self.gates_from_drive(carry, drive))

    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive [..., G*H] = inputs @ kernel + bias.

        Raises:
            ValueError: inputs of the wrong width.
        """
        if inputs.shape[-1] != self.in_features:
            raise ValueError(f"inputs must have {self.in_features} features, got shape {inputs.shape}")
        inputs, kernel = self.cast(inputs, self.kernel[...])
        return self.add_bias(inputs @ kernel, self.bias[...])

    def __call__(self, carry: Carry, inputs: Array) -> tuple[Carry, Array]:
        """Make one step from inputs [..., F]: (carry, output [..., H])."""
        return self.advance(carry, self.project(inputs))

    def gates(self, carry: Carry, inputs: Array) -> dict[str, Array]:
        """Return every gate's value [..., H] by name, at the step that takes this carry and these inputs [..., F]."""
        return self.gates_from_drive(carry, self.project(inputs))

    def recur(self, hidden: Array) -> Array:
        """Map the hidden state [..., H] to its share of every gate's preactivation, [..., G*H]."""
        hidden, recurrent_kernel = self.cast(hidden, self.recurrent_kernel[...])
        return hidden @ recurrent_kernel

    def split(self, packed: Array) -> tuple[Array, ...]:
        """Split [..., G*H] into one [..., H] for each gate, in `gate_order`."""
        return tuple(jnp.split(packed, len(self.gate_order), axis=-1))

    def cast(self, *arrays: Array) -> tuple[Array, ...]:
        """Bring arrays to the dtype of the computation."""
        return tuple(array.astype(self.dtype) for array in arrays)

    def add_bias(self, preactivation: Array, bias: Array) -> Array:
        """Add a bias [D] to [..., D], its batch axes spelled out, so that no other broadcasting can hide behind it."""
        return preactivation + bias.astype(self.dtype).reshape((1,) * (preactivation.ndim - 1) + bias.shape)

    def initialize_carry(self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None) -> Carry:
        """Return a fresh carry; Flax's signature.

        Args:
            input_shape: [..., F], of which all but the last are batch axes.
            rngs: keys for `carry_init`; needed with it alone.
            carry_init: initialiser (default: zeros).

        Returns:
            One array [..., H], or a tuple of as many as the cell's carry has.
        """
        shape = (*input_shape[:-1], self.hidden_features)
        if carry_init is None:
            return jax.tree.map(lambda _: jnp.zeros(shape, self.dtype), self.carry_structure)
        keys = rngs.carry if isinstance(rngs, rnglib.Rngs) else rngs
        return jax.tree.map(lambda _: carry_init(keys(), shape, self.dtype), self.carry_structure)

    carry_structure: ClassVar[Any] = 0
    """A pytree with one leaf for each array of the carry."""

    @property
    def num_feature_axes(self) -> int:
        """Number of feature axes of the inputs, for `nnx.RNN`."""
        return 1


DEFAULT_KERNEL_INIT = jax.nn.initializers.lecun_normal()
DEFAULT_RECURRENT_KERNEL_INIT = initializers.orthogonal()
