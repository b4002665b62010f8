"""The contract of a cell: two halves, named gates; and the parameters that most cells have, packed gate by gate."""

import abc
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Required, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import rnglib
from jax import Array
from jax.core import Tracer
from jax.typing import DTypeLike

from rnn_dynamics.cells import initializers
from rnn_dynamics.types import Carry, Initializer

lecun_normal = jax.nn.initializers.lecun_normal()
orthogonal = initializers.orthogonal()
zeros = jax.nn.initializers.zeros

NONE_GIVEN: Mapping[str, Array] = MappingProxyType({})
"""No gate is held: each follows its own equation."""


class Setting(nnx.Variable):
    """A number of a cell that is not trained, such as a leak or a step: an array, so that `vmap` can carry many."""


class Cell(nnx.RNNCellBase, abc.ABC):
    """A recurrent cell whose step is `advance(carry, project(inputs))`.

    `project` is what becomes of the inputs and sees no state, so it can be applied to all time steps at once;
    `advance` is the recurrence, and all that state Jacobians see. The recurrence is in turn gates, state, output:
    with `gates = gates_from_drive(carry, drive)` the carry becomes `combine(carry, gates)`, and of that the output is
    `output(carry)`. So the Jacobian can be told apart by gate. Being an `nnx.RNNCellBase`, a cell runs in `nnx.RNN`.

    A subclass names its gates in `gate_order`, writes one equation for each in `gates_from_drive`, and one for the
    state in `combine`. What reads the carry through weights is a gate, the candidate state too; what is left to
    `combine` is the direct path.

    Args:
        in_features: F.
        hidden_features: H.
        dtype: of the computation (default: param_dtype).
        param_dtype: of the parameters.

    Raises:
        ValueError: a size below 1.
    """

    gate_order: ClassVar[tuple[str, ...]]
    candidates: ClassVar[tuple[str, ...]] = ("candidate",)
    """Those of the gates that hold content; the others are fractions, in (0, 1)."""

    carry_structure: ClassVar[Any] = 0
    """A pytree with one leaf for each array of the carry, h last."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
    ):
        for name, size in (("in_features", in_features), ("hidden_features", hidden_features)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {size!r}")
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.dtype = jnp.dtype(param_dtype if dtype is None else dtype)
        self.param_dtype = jnp.dtype(param_dtype)

    @abc.abstractmethod
    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive [..., D].

        Raises:
            ValueError: inputs of the wrong width.
        """

    @abc.abstractmethod
    def gates_from_drive(self, carry: Carry, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the value of every gate.

        Args:
            carry: the state before the step, arrays [..., H].
            drive: `project(inputs)`, [..., D].
            given: gates that are held at these values [..., H]. A gate that reads another, as the GRU's candidate reads
                the reset gate, reads it from here where it is there; where no gate reads another, this has no effect.

        Returns:
            A value [..., H] for each name in `gate_order`.
        """

    @abc.abstractmethod
    def combine(self, carry: Carry, gates: Mapping[str, Array]) -> Carry:
        """Make the new state from the old one and the gates; no weight has a part in it.

        Args:
            carry: the state before the step, arrays [..., H].
            gates: a value [..., H] for each name in `gate_order`.

        Returns:
            The carry after the step.
        """

    def output(self, carry: Carry) -> Array:
        """Read the output h [..., H] off a carry: its last array, if a cell does not say otherwise."""
        return jax.tree.leaves(carry)[-1]

    def evaluated(self) -> "Cell":
        """Return this cell with all that is computed from parameters alone computed once, ahead of a scan.

        It is this cell itself if its parameters are its weights. Gradients pass through what is computed.
        """
        return self

    def advance(self, carry: Carry, drive: Array) -> tuple[Carry, Array]:
        """Make one step of the recurrence.

        Args:
            carry: the state before the step, arrays [..., H].
            drive: `project(inputs)`, [..., D].

        Returns:
            The carry after the step and the output h [..., H].
        """
        carry = self.combine(carry, self.gates_from_drive(carry, drive))
        return carry, self.output(carry)

    def __call__(self, carry: Carry, inputs: Array) -> tuple[Carry, Array]:
        """Make one step from inputs [..., F]: (carry, output [..., H])."""
        return self.advance(carry, self.project(inputs))

    def gates(self, carry: Carry, inputs: Array) -> dict[str, Array]:
        """Return every gate's value [..., H] by name, at the step that takes this carry and these inputs [..., F]."""
        return self.gates_from_drive(carry, self.project(inputs))

    def check_inputs(self, inputs: Array) -> Array:
        """Return inputs [..., F] in the dtype of the computation.

        Raises:
            ValueError: inputs of the wrong width.
        """
        if inputs.shape[-1] != self.in_features:
            raise ValueError(f"inputs must have {self.in_features} features, got shape {inputs.shape}")
        return inputs.astype(self.dtype)

    def cast(self, *arrays: Array) -> tuple[Array, ...]:
        """Bring arrays to the dtype of the computation."""
        return tuple(array.astype(self.dtype) for array in arrays)

    def setting(self, name: str, value: float | Array, allowed: str, is_allowed: Callable[[Any], Any]) -> Setting:
        """Make a setting of this cell, [] or one number per unit [H].

        Args:
            name: of the argument, for the message.
            value: what came.
            allowed: in words, such as "> 0".
            is_allowed: tells for an array of values; not asked of values that are being traced.

        Returns:
            The setting, in the dtype of the parameters.

        Raises:
            ValueError: a value that is not allowed, or neither one number nor one for each unit.
        """
        if np.shape(value) not in ((), (self.hidden_features,)):
            raise ValueError(
                f"{name} must be one number or {self.hidden_features}, one for each unit, got shape {np.shape(value)}"
            )
        if not isinstance(value, Tracer) and not np.all(is_allowed(np.asarray(value))):
            raise ValueError(f"{name} must be {allowed}, got {value}")
        return Setting(jnp.asarray(value, self.param_dtype))

    def per_unit(self, parameter: nnx.Variable, like: Array) -> Array:
        """Return a parameter or setting, [D] or [], in the dtype of the computation, shaped to meet an array [..., D].

        Its batch axes are spelled out, so that no other broadcasting can hide behind it.
        """
        values = parameter[...].astype(self.dtype)
        return values.reshape((1,) * (like.ndim - values.ndim) + values.shape)

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
            return jax.tree.map(lambda _: jnp.zeros(shape, self.carry_dtype), self.carry_structure)
        keys = rngs.carry if isinstance(rngs, rnglib.Rngs) else rngs
        return jax.tree.map(lambda _: carry_init(keys(), shape, self.carry_dtype), self.carry_structure)

    @property
    def carry_dtype(self) -> Any:
        """Of the carry's arrays: that of the computation, if a cell does not say otherwise."""
        return self.dtype

    @property
    def num_feature_axes(self) -> int:
        """Number of feature axes of the inputs, for `nnx.RNN`."""
        return 1


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

    The G gates lie in the order of `gate_order`: kernel [F, G*H], recurrent_kernel [H, G*H], bias [G*H].

    Args:
        in_features: F.
        hidden_features: H.
        kernel_init: initialiser of the input kernels W_x side by side, [F, G*H].
        recurrent_kernel_init: initialiser of the recurrent kernels W_h side by side, [H, G*H].
        bias_init: initialiser of the biases b, [G*H].
        dtype: of the computation (default: param_dtype).
        param_dtype: of the parameters.
        rngs: keys for the initialisers.

    Raises:
        ValueError: a size below 1.
    """

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
        width = len(self.gate_order) * hidden_features
        self.kernel = nnx.Param(kernel_init(rngs.params(), (in_features, width), self.param_dtype))
        self.recurrent_kernel = nnx.Param(
            recurrent_kernel_init(rngs.params(), (hidden_features, width), self.param_dtype)
        )
        self.bias = nnx.Param(bias_init(rngs.params(), (width,), self.param_dtype))

    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive [..., G*H] = inputs @ kernel + bias.

        Raises:
            ValueError: inputs of the wrong width.
        """
        drive = self.check_inputs(inputs) @ self.kernel[...].astype(self.dtype)
        return drive + self.per_unit(self.bias, drive)

    def recur(self, hidden: Array) -> Array:
        """Map the hidden state [..., H] to its share of every gate's preactivation, [..., G*H]."""
        hidden, recurrent_kernel = self.cast(hidden, self.recurrent_kernel[...])
        return hidden @ recurrent_kernel

    def split(self, packed: Array) -> tuple[Array, ...]:
        """Split [..., G*H] into one [..., H] for each gate, in `gate_order`."""
        return tuple(jnp.split(packed, len(self.gate_order), axis=-1))

    def add_to_bias(self, gate: str, amount: float | Array) -> None:
        """Add to the bias of a gate, a number or one per unit [H]."""
        start = self.gate_order.index(gate) * self.hidden_features
        block = slice(start, start + self.hidden_features)
        self.bias[...] = self.bias[...].at[block].add(jnp.asarray(amount, self.param_dtype))
