"""How sharp the loss is where the training stands."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics import loss_curvature
from rnn_dynamics.training.probes.probe import Coordinate, Label, Probe
from rnn_dynamics.training.recipe import Loss
from rnn_dynamics.types import Batch, PyTree


@dataclass(frozen=True, eq=False)
class Curvature(Probe):
    """The largest and the smallest eigenvalue of the Hessian of a batch's mean loss, by `loss_curvature`.

    Attributes:
        batch: what the loss reads.
        loss: (model, batch) -> losses [B].
        iterations: Lanczos vectors; the errors say whether they were enough. Each is some two to four gradients.

    Raises:
        ValueError: no iteration, and what `Probe` refuses.
    """

    batch: Batch
    loss: Loss
    _: KW_ONLY
    iterations: int = 16
    name: str = "curvature"

    labels: ClassVar[Mapping[str, Label]] = {
        "largest": Label((), "loss per squared unit of parameter", "largest eigenvalue of the loss's Hessian"),
        "smallest": Label((), "loss per squared unit of parameter", "smallest eigenvalue of the loss's Hessian"),
        "largest_error": Label((), "loss per squared unit of parameter", "residual of the largest eigenvalue"),
        "smallest_error": Label((), "loss per squared unit of parameter", "residual of the smallest eigenvalue"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("iterations", self.iterations, least=1)

    def check(self, model: nnx.Module) -> None:
        """See `Probe.check`.

        Raises:
            ValueError: a model without parameters.
        """
        if not jax.tree.leaves(nnx.state(model, nnx.Param)):
            raise ValueError(f"model must have parameters, {type(model).__name__} has none")

    def coordinates(self, model: nnx.Module) -> dict[str, Coordinate]:
        """Return nothing: all quantities are numbers."""
        return {}

    def quantities(self, model: nnx.Module) -> dict[str, Array]:
        """Measure both ends of the spectrum."""
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        loss = jax.tree_util.Partial(_MeanLoss(graph, self.loss), (rest, self.batch))
        curvature = loss_curvature(loss, params, iterations=self.iterations)
        return {name: getattr(curvature, name)[0] for name in self.labels}


@dataclass(frozen=True)
class _MeanLoss:
    """The mean loss as a function of what is not differentiated and of the parameters; equal for equal models."""

    graph: Any
    loss: Loss

    def __call__(self, fixed: tuple[PyTree, Batch], params: PyTree) -> Array:
        rest, batch = fixed
        return jnp.mean(self.loss(nnx.merge(self.graph, params, rest, copy=True), batch))
