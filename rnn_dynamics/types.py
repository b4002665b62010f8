"""The words of this project: axis letters, array aliases, and the Protocols that its parts meet at.

Axis letters, the same in every signature, docstring and result file:

    B batch     T time      F feature   H hidden    N state (flat; an LSTM has N = 2H)
    K tangents  E ensemble  V vocabulary            C classes   M horizons   L lags
    G gates     P paths

Shapes are written with jaxtyping and checked at test time; at run time they are documentation.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jax import Array

PyTree: TypeAlias = Any
Device: TypeAlias = Any
"""A `jax.Device`, which jaxlib declares in no way that type checkers read."""

Carry: TypeAlias = Any
"""Flax's word for the state of a cell: one array [..., H] (Elman, GRU) or a tuple of them (LSTM: c, h)."""

StepFunction: TypeAlias = Callable[[PyTree, Carry, Any], Carry]
"""`step(params, carry, inputs_t) -> carry`: a recurrent network with nothing but its dynamics."""

Initializer: TypeAlias = Callable[..., Array]
"""`init(key, shape, dtype) -> array`, Flax's convention."""


@runtime_checkable
class TwoHalves(Protocol):
    """A cell whose step is split into the half that does not see the state and the half that does.

    `advance(carry, project(inputs))` equals `cell(carry, inputs)`.
    """

    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive [..., D]; the state plays no part, so all time steps can go at once."""
        ...

    def advance(self, carry: Carry, drive: Array) -> tuple[Carry, Array]:
        """Make one step of the recurrence; all that the state Jacobian sees."""
        ...


@runtime_checkable
class NamedGates(TwoHalves, Protocol):
    """A cell whose recurrence is gate equations and one state equation.

    With `new = combine(carry, gates_from_drive(carry, drive))`, `advance(carry, drive)` is `(new, output(new))`.

    Attributes:
        gate_order: names of all the gates, candidates among them.
        candidates: those of them that hold content; the others lie in (0, 1).
    """

    gate_order: tuple[str, ...]
    candidates: tuple[str, ...]

    def gates_from_drive(self, carry: Carry, drive: Array, given: Mapping[str, Array]) -> dict[str, Array]:
        """Return every gate's value [..., H]; a gate that reads another reads it from `given` where it is there."""
        ...

    def combine(self, carry: Carry, gates: Mapping[str, Array]) -> Carry:
        """Make the carry after the step from the carry before it and the gates."""
        ...

    def output(self, carry: Carry) -> Array:
        """Read the output [..., H] off the carry after a step."""
        ...


@runtime_checkable
class ReadsByRecur(TwoHalves, Protocol):
    """A cell that reads its state through recurrent weights by calling its `recur`; a layer may hang in another one.

    Any number of calls, of any functions of carry and drive; what they return is used as if it were given. Weights that
    the cell reads otherwise, such as those of peepholes, are no less right, only not as fast.
    """

    def recur(self, hidden: Array, *options: Any) -> Array:
        """Map rows [..., H] through the recurrent weights, each row by itself; options are static."""
        ...


@runtime_checkable
class LinearInState(NamedGates, Protocol):
    """A cell whose carry, one array [..., H] that may be complex, is `decay * carry + increment` after a step.

    Neither sees the state, so all steps can be composed at once, in a tree.
    """

    def coefficients(self, drive: Array) -> tuple[Array, Array]:
        """Return decay and increment [..., H] of the steps with this drive [..., D]."""
        ...


@runtime_checkable
class Evaluable(Protocol):
    """A cell whose weights may be functions of its parameters, such as a rotation made from a skew matrix."""

    def evaluated(self) -> Any:
        """Return the cell with what depends on parameters alone computed, to be used at many steps."""
        ...


Regime: TypeAlias = Literal["many_to_one", "many_to_many"]
"""What a task asks of a sequence: one answer at its last step, outputs [B, C], or one at every step, [B, T, C]."""


class Batch(NamedTuple):
    """One batch of sequences, post-padded.

    Attributes:
        inputs: float [B, T, F], or token numbers [B, T] (int32) where the task has a vocabulary.
        targets: [B] int32 class numbers, or [B, ...] whatever the task's loss takes.
        lengths: [B] int32, valid steps of each sequence, 1 <= lengths <= T.
    """

    inputs: Any
    targets: Any
    lengths: Any


@runtime_checkable
class Task(Protocol):
    """What training and experiments may ask of a task. One file per task in `tasks/`, discovered by its module.

    Attributes:
        name: the module's name, as the command line spells it.
        metric_name: e.g. "accuracy", for axis labels.
        regime: which outputs its loss takes, and so which of `models` it wants.
        chance_level: the metric of the best answer that has not seen the inputs, though it may know the step: on the
            test split, or in expectation where a task draws its examples.
        output_features: width of the network's output (number of classes, say).
        input_features: F of float inputs, or None where inputs are token numbers.
        vocabulary_size: V, or None where inputs are floats.
    """

    name: str
    metric_name: str
    regime: Regime
    chance_level: float
    output_features: int
    input_features: int | None
    vocabulary_size: int | None

    def batches(
        self, split: str, batch_size: int, *, seed: int | tuple[int, ...] | None = None, epochs: int | None = 1
    ) -> Iterator[Batch]:
        """Yield batches, shuffled by `seed`; None keeps the order, several give a leading axis. epochs=None never ends.

        An iterator with `get_state()` and `set_state(state)`, such as Grain's, lets a training go on where it stopped.
        """
        ...

    def loss(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Return the loss of each example, [B], from the network's outputs [B, ...] and the targets."""
        ...

    def metric(self, outputs: np.ndarray | jax.Array, targets: np.ndarray | jax.Array) -> jax.Array:
        """Return the metric of each example, [B]; its mean over a split is the reported number."""
        ...
