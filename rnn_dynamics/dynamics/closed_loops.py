"""Networks that read what they make themselves."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array

from rnn_dynamics.types import Carry, PyTree, StepFunction

Feedback: TypeAlias = Callable[[PyTree, Carry, Any], Array]
"""(params, carry, inputs_t) -> what the network reads at the next step, [F]."""


class LoopParams(NamedTuple):
    """Parameters of a network in a closed loop.

    Attributes:
        network: those of the network's step.
        feedback: those of the readout and of the way back.
    """

    network: PyTree
    feedback: PyTree


@dataclasses.dataclass(frozen=True)
class ClosedStep:
    """A step that reads, in the place of inputs, what is fed back; equal for the same step and feedback.

    Attributes:
        open_step: of the network: (params, carry, inputs_t) -> carry.
        feedback: (params, carry, inputs_t) -> what it reads.
        in_features: F, or None where it is not known.
    """

    open_step: StepFunction
    feedback: Feedback
    in_features: int | None
    made_by: ClassVar[str] = "closed_loop"

    def __call__(self, params: LoopParams, carry: Carry, inputs_t: Any) -> Carry:
        """Read the carry before the step, and make the step.

        Raises:
            ValueError: a feedback of another shape than the network's inputs.
        """
        read = self.feedback(params.feedback, carry, inputs_t)
        if self.in_features is not None and jnp.shape(read) != (self.in_features,):
            raise ValueError(f"feedback must return {self.in_features} features, got shape {jnp.shape(read)}")
        return self.open_step(params.network, carry, read)
