"""How a gradient is made and what an update makes of it: the parts that a training is put together from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float

from rnn_dynamics.arguments import require
from rnn_dynamics.types import Batch, PyTree

Loss: TypeAlias = Callable[[Any, Batch], Array]
"""`loss(model, batch) -> [B]`, one number for each example."""

Penalty: TypeAlias = Callable[[Any, Batch], Array]
"""`penalty(model, batch) -> []`, differentiable by the model's parameters; what it must not move it holds fixed."""


@dataclass(frozen=True)
class TaskLoss:
    """A task's loss as a function of model and batch; equal for equal losses, so that it is compiled once.

    Attributes:
        loss: (outputs, targets) -> losses [B], of the task.
    """

    loss: Callable[[Any, Any], Array]

    def __call__(self, model: Any, batch: Batch) -> Array:
        """Return the losses [B] of a model's outputs."""
        return self.loss(model(batch.inputs, batch.lengths), batch.targets)


class LossGradient(NamedTuple):
    """What one batch says.

    Attributes:
        losses: [B], of each example.
        gradient: of their mean, or what takes its place, like `nnx.state(model, nnx.Param)`.
        report: name -> number [], what there is to tell about how the gradient was made; the same names every time.
    """

    losses: Float[Array, " B"]
    gradient: PyTree
    report: dict[str, Array]


GradientRule: TypeAlias = Callable[[Loss, Any, Batch], LossGradient]
"""`rule(loss, model, batch)`: what the gradient of the mean loss is, or what is taken for it. It is traced."""


def backpropagate(loss: Loss, model: Any, batch: Batch) -> LossGradient:
    """Differentiate the mean loss by the model's parameters: the gradient as it is.

    Args:
        loss: (model, batch) -> losses [B].
        model: what it is asked of; what it keeps besides parameters (a dropout's keys) moves on.
        batch: what the model reads.

    Returns:
        Losses and gradient, with nothing to report.
    """

    def mean_loss(model: Any) -> tuple[Array, Array]:
        losses = loss(model, batch)
        return jnp.mean(losses), losses

    gradient, losses = nnx.grad(mean_loss, has_aux=True)(model)
    return LossGradient(losses, gradient, {})


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a network is trained. Every number in it may be traced, and so may differ within an ensemble.

    Attributes:
        optimizer: makes the update from the gradient, clipping included: any chain of optax.
        gradient_rule: makes the gradient of the mean loss.
        penalties: name -> (weight, penalty); weight times penalty is added to the mean loss. A penalty sees the model
            and the batch; of a training that is truncated the window, as if a sequence began there.
        weight_noise: standard deviation of the noise on all parameters while the gradient is taken, drawn anew for
            every batch (Jim, Giles and Horne 1996; Graves 2013, sec. 3.2). 0 is none.

    Raises:
        ValueError: a weight noise < 0.
        TypeError: an optimiser or a rule that is none, a penalty without its weight.
    """

    optimizer: optax.GradientTransformation
    gradient_rule: GradientRule = backpropagate
    penalties: Mapping[str, tuple[float | Array, Penalty]] = field(default_factory=dict)
    weight_noise: float | Array = 0.0

    def __post_init__(self) -> None:
        if not (hasattr(self.optimizer, "init") and hasattr(self.optimizer, "update")):
            hint = "; a rule of the gradient, such as clip_each_step, goes to gradient_rule" * callable(self.optimizer)
            raise TypeError(f"optimizer must be a transformation of optax, got {type(self.optimizer).__name__}{hint}")
        if not callable(self.gradient_rule):
            came = type(self.gradient_rule).__name__
            raise TypeError(f"gradient_rule must be a function (loss, model, batch), got {came}")
        for name, pair in self.penalties.items():
            if not (isinstance(pair, tuple) and len(pair) == 2 and callable(pair[1])):
                came = type(pair).__name__
                raise TypeError(f"penalties must be name -> (weight, penalty), got {came} for {name!r}")
        require("weight_noise", self.weight_noise, "a finite number >= 0", lambda x: (x >= 0) & np.isfinite(x))
