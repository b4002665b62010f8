"""How open the gates are as the inputs drive the network, and how long it keeps what it holds."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from rnn_dynamics.dynamics import gate_activity
from rnn_dynamics.dynamics.gate_activity import gate_names
from rnn_dynamics.training.probes.driven_network import check_streams, driven_system, encoded
from rnn_dynamics.training.probes.probe import Coordinate, Label, Probe


@dataclass(frozen=True, eq=False)
class Gates(Probe):
    """The gates that lie in (0, 1), by `gate_activity`, over S streams of inputs.

    Each stream is run from the cell's own initial carry.

    Attributes:
        inputs: features [S, T, F], or tokens [S, T], which the model encodes; the transient included.
        transient: steps of the state thrown away first.
        dtype: to measure in (default: the cell's).

    Raises:
        ValueError: inputs that are no sequences, and what `Probe` refuses.
    """

    inputs: Any
    _: KW_ONLY
    transient: int = 0
    dtype: DTypeLike | None = None
    name: str = "gates"

    labels: ClassVar[Mapping[str, Label]] = {
        "mean": Label(("gate",), "1", "value of the gate, mean over units, time and streams"),
        "left_saturated": Label(("gate",), "1", "fraction of units and time at which the gate is below 0.1"),
        "right_saturated": Label(("gate",), "1", "fraction of units and time at which the gate is above 0.9"),
        "time_scale": Label(("state",), "steps", "time in which a unit's state fades by a factor e, all gates held"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_streams(self.inputs)

    def check(self, model: nnx.Module) -> None:
        """See `Probe.check`.

        Raises:
            ValueError: a model without a cell that names its gates, or with one that has none in (0, 1).
        """
        cell = driven_system(model, self.dtype).gated_cell()
        if not gate_names(cell):
            raise ValueError(f"model must have a cell with gates that lie in (0, 1), {type(cell).__name__} has none")

    def coordinates(self, model: nnx.Module) -> dict[str, Coordinate]:
        """Name the gates."""
        names = gate_names(driven_system(model, self.dtype).gated_cell())
        return {"gate": Coordinate(names, "1", "name of the gate")}

    def quantities(self, model: nnx.Module) -> dict[str, Array]:
        """Measure each stream, and average over units and streams."""
        system = driven_system(model, self.dtype)
        activity = jax.vmap(lambda stream: gate_activity(system, stream, transient=self.transient))(
            encoded(model, self.inputs)
        )
        by_gate = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=(0, 2)), activity.by_unit)
        return {
            "mean": by_gate.mean,
            "left_saturated": by_gate.left_saturated,
            "right_saturated": by_gate.right_saturated,
            "time_scale": 1 / jnp.mean(1 / activity.time_scale, axis=0),  # what has a mean over time is the rate
        }
