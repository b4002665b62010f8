"""What of a loss's gradient reaches every time step."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.dynamics import loss_adjoints
from rnn_dynamics.taps import tapped_layers
from rnn_dynamics.training.probes.probe import Coordinate, Label, Probe
from rnn_dynamics.training.recipe import Loss
from rnn_dynamics.types import Batch


@dataclass(frozen=True, eq=False)
class Adjoints(Probe):
    """The norms of a loss's gradient by each step's state and weights, by `loss_adjoints`, on a fixed batch.

    Attributes:
        batch: what the loss reads; its lengths say which steps an example has.
        loss: (model, batch) -> losses [B].

    Raises:
        ValueError: what `Probe` refuses.
    """

    batch: Batch
    loss: Loss
    _: KW_ONLY
    name: str = "adjoints"

    labels: ClassVar[Mapping[str, Label]] = {
        "state_norm": Label(
            ("layer", "time"),
            "loss per unit of state",
            "||d loss / d s_t||, median over the examples that are so long; NaN if a state of theirs is not finite",
        ),
        "weight_norm": Label(
            ("parameter", "time"), "loss per unit of weight", "norm of a step's share in the mean loss's gradient"
        ),
    }

    def check(self, model: nnx.Module) -> None:
        """See `Probe.check`.

        Raises:
            ValueError: a model without a layer that can be tapped.
        """
        tapped_layers(model)

    def coordinates(self, model: nnx.Module) -> dict[str, Coordinate]:
        """Name the layers by their paths in the model, and the parameters of their cells."""
        layers = dict(sorted(tapped_layers(model).items()))
        parameters = [
            ".".join(map(str, (*filter(None, [layer]), *path)))
            for layer, module in layers.items()
            for path in sorted(path for path, _ in nnx.to_flat_state(nnx.state(module.cell, nnx.Param)))
        ]
        return {
            "layer": Coordinate(tuple(layers), "1", "path of the layer in the model"),
            "parameter": Coordinate(tuple(parameters), "1", "path of the layer, and parameter of its cell"),
        }

    def quantities(self, model: nnx.Module) -> dict[str, Array]:
        """Measure the adjoints, and take the median of those of the states over the examples."""
        layers = loss_adjoints(model, self.loss, self.batch).layers
        ordered = [layers[name] for name in sorted(layers)]
        state_norm = jnp.stack([layer.state_norm for layer in ordered])
        weight_norm = [layer.weight_norm[name] for layer in ordered for name in sorted(layer.weight_norm)]
        return {
            "state_norm": _median_of_long(state_norm, jnp.asarray(self.batch.lengths)),
            "weight_norm": jnp.stack(weight_norm),
        }


def _median_of_long(norm: Float[Array, "layer T B"], lengths: Int[Array, " B"]) -> Float[Array, "layer T"]:
    """Return the median over the examples that have such a step: zeros beyond an example's end are no gradients."""
    there = (jnp.arange(norm.shape[1])[:, None] < lengths[None, :])[None]
    broken = jnp.any(there & jnp.isnan(norm), axis=-1)
    return jnp.where(broken, jnp.nan, jnp.nanmedian(jnp.where(there, norm, jnp.nan), axis=-1))
