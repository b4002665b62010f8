"""The contract of a cell: two halves, and named gates."""

import abc
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import rnglib
from jax import Array
from jax.core import Tracer
from jax.typing import DTypeLike

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.types import Carry

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

    gate_order: tuple[str, ...]
    """Names of the gates: the class's, or the instance's own where its constructor says how many there are."""

    candidates: tuple[str, ...] = ("candidate",)
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
        self.in_features = whole_number("in_features", in_features, least=1)
        self.hidden_features = whole_number("hidden_features", hidden_features, least=1)
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
