"""The leading Lyapunov exponents of the network as its inputs drive it."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from rnn_dynamics.dynamics import lyapunov_spectrum
from rnn_dynamics.dynamics.batch_means import mean_of_batches
from rnn_dynamics.training.probes.driven_network import check_streams, driven_system, encoded
from rnn_dynamics.training.probes.probe import Coordinate, Label, Probe


@dataclass(frozen=True, eq=False)
class Exponents(Probe):
    """The k leading exponents by `lyapunov_spectrum`, over S streams of inputs.

    Each stream is run from the cell's own initial carry. The streams are independent, and their scatter is the
    error: NaN with one stream alone, and where an exponent is not finite.

    Attributes:
        inputs: features [S, T, F], or tokens [S, T], which the model encodes; both transients included.
        k: number of exponents.
        transient: steps of the state thrown away first.
        tangent_transient: steps, after those, that are thrown away while the tangent frame aligns.
        qr_every: steps between orthonormalisations, or "auto".
        dtype: to measure in (default: the cell's).

    Raises:
        ValueError: inputs that are no sequences, and what `Probe` refuses.
    """

    inputs: Any
    _: KW_ONLY
    k: int = 1
    transient: int = 0
    tangent_transient: int = 0
    qr_every: int | str = 1
    dtype: DTypeLike | None = None
    name: str = "exponents"

    labels: ClassVar[Mapping[str, Label]] = {
        "mean": Label(("exponent",), "nats per step", "leading Lyapunov exponents, mean over streams"),
        "standard_error": Label(("exponent",), "nats per step", "standard error of the exponents over streams"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_streams(self.inputs)

    def check(self, model: nnx.Module) -> None:
        """See `Probe.check`.

        Raises:
            ValueError: a model without a cell that tells its sizes, or with fewer than k exponents.
        """
        size = driven_system(model, self.dtype).state_size
        if not 1 <= self.k <= size:
            raise ValueError(f"k must lie in 1 ... {size}, the size of the model's state, got {self.k}")

    def coordinates(self, model: nnx.Module) -> dict[str, Coordinate]:
        """Number the exponents from 1, the largest."""
        return {"exponent": Coordinate(tuple(range(1, self.k + 1)), "1", "number of the exponent, largest first")}

    def quantities(self, model: nnx.Module) -> dict[str, Array]:
        """Measure the spectrum of each stream, and average."""
        system = driven_system(model, self.dtype)

        def exponents(stream: Array) -> Array:
            return lyapunov_spectrum(
                system,
                stream,
                k=self.k,
                qr_every=self.qr_every,
                transient=self.transient,
                tangent_transient=self.tangent_transient,
            ).exponents

        samples = jax.vmap(exponents)(encoded(model, self.inputs))
        mean, standard_error, _ = mean_of_batches(samples, np.ones(len(samples)))
        return {"mean": mean, "standard_error": standard_error}
