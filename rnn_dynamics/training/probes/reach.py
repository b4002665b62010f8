"""How far back gradients reach in the network as its inputs drive it."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics import gradient_norm_by_lag
from rnn_dynamics.dynamics.batch_means import mean_of_batches
from rnn_dynamics.dynamics.gradient_norms import reach_of
from rnn_dynamics.training.probes.driven_network import check_streams, driven_system, encoded
from rnn_dynamics.training.probes.probe import Coordinate, Label, Probe


@dataclass(frozen=True, eq=False)
class Reach(Probe):
    """The norm of the state's derivative by the earlier state, by `gradient_norm_by_lag`, over S streams of inputs.

    Each stream is run from the cell's own initial carry, and has (T - transient) // max_lag end times. Errors are those
    over the streams, which are independent: with one stream alone there are none, NaN.

    Attributes:
        inputs: features [S, T, F], or tokens [S, T], which the model encodes; the transient included.
        max_lag: L >= 1, the largest distance back.
        transient: steps of the state thrown away first.
        dtype: to measure in (default: the cell's).

    Raises:
        ValueError: inputs that are no sequences, max_lag < 1, and what `Probe` refuses.
    """

    inputs: Any
    _: KW_ONLY
    max_lag: int
    transient: int = 0
    dtype: DTypeLike | None = None
    name: str = "reach"

    labels: ClassVar[Mapping[str, Label]] = {
        "steps": Label((), "steps", "reach: lag at which the gradient norm has fallen by a factor e"),
        "steps_standard_error": Label((), "steps", "standard error of the reach"),
        "log_norm": Label(("lag",), "nats", "ln ||d s_T / d s_{T-lag}||_F / sqrt(N), mean over end times and streams"),
        "log_norm_standard_error": Label(("lag",), "nats", "standard error of the log norm over streams"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_streams(self.inputs)
        whole_number("max_lag", self.max_lag, least=1)

    def check(self, model: nnx.Module) -> None:
        """See `Probe.check`.

        Raises:
            ValueError: a model without a cell that tells its sizes.
        """
        driven_system(model, self.dtype)

    def coordinates(self, model: nnx.Module) -> dict[str, Coordinate]:
        """Count the lags from 0."""
        return {"lag": Coordinate(tuple(range(self.max_lag + 1)), "steps", "distance back in time")}

    def quantities(self, model: nnx.Module) -> dict[str, Array]:
        """Measure the norms of each stream, average them, and find where the average has fallen by a factor e."""
        system = driven_system(model, self.dtype)

        def log_norm_of(stream: Array) -> Array:
            return gradient_norm_by_lag(system, stream, max_lag=self.max_lag, transient=self.transient).log_norm

        samples = jax.vmap(log_norm_of)(encoded(model, self.inputs))
        log_norm, standard_error, _ = mean_of_batches(samples, np.ones(len(samples)))
        steps, steps_standard_error = reach_of(log_norm, standard_error)
        return {
            "steps": steps,
            "steps_standard_error": steps_standard_error,
            "log_norm": log_norm,
            "log_norm_standard_error": standard_error,
        }
