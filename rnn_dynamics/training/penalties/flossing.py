"""Gradient flossing: Lyapunov exponents are pulled to 0, so that no direction of the gradient dies or explodes."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.arguments import require, whole_number
from rnn_dynamics.dynamics import DrivenSystem, lyapunov_spectrum
from rnn_dynamics.models import SequenceModel
from rnn_dynamics.types import Batch


@dataclass(frozen=True)
class FlossingPenalty:
    r"""Penalise the leading Lyapunov exponents' distance from a target (Engelken, NeurIPS 2023, "Gradient flossing").

    .. math:: \operatorname{mean}_{b}\; \frac{1}{k} \sum_{i=1}^{k} (\lambda_i - \lambda_*)^2

    The exponents are those of the network that is driven by an example's inputs, from the cell's own first carry, zeros
    as a rule (see `lyapunov_spectrum`, through which it is differentiated); of an LSTM, of c and h together. The mean
    over exponents is that of the author's code, which runs 55 steps, throws 16 away, and takes k = 75 of N = 80.
    Everything that moves an exponent is trained by it: recurrent weights, input weights, biases, an embedding.

    To floss before training, train with this penalty alone.

    An exponent of which a step leaves nothing but rounding (a unit of relu that is at rest; in float32 also what one
    step shrinks by 1e-5 or so) is not known: it counts as if it were at its target, and has no gradient.

    Cost, and memory that grows with `steps`: about three times that of `lyapunov_spectrum` for each example. Inputs are
    read as they are, padding too: `steps` should not exceed the lengths.

    Attributes:
        k: number of exponents, 1 ... N.
        steps: of the inputs to be driven by, from the first on; the transient's among them.
        tangent_transient: steps, at first, whose growth is thrown away while the tangent frame aligns.
        qr_every: steps between orthonormalisations.
        examples: how many of the batch, the first ones.
        target: nats per step, to which the exponents are pulled. It may be traced.

    Raises:
        ValueError: a number out of range.
    """

    k: int
    steps: int
    tangent_transient: int = 0
    qr_every: int = 1
    examples: int = 1
    target: float | Array = 0.0

    def __post_init__(self) -> None:
        for name in ("k", "steps", "qr_every", "examples"):
            whole_number(name, getattr(self, name), least=1)
        whole_number("tangent_transient", self.tangent_transient, least=0)
        if self.tangent_transient >= self.steps:
            raise ValueError(f"tangent_transient must be less than steps = {self.steps}, got {self.tangent_transient}")
        require("target", self.target, "a finite number", np.isfinite)

    def __call__(self, model: Any, batch: Batch) -> Array:
        """Return the mean square of the exponents' distance from the target.

        Args:
            model: a `SequenceModel`; the network is its cell.
            batch: its inputs are read.

        Returns:
            [], (nats per step)^2; NaN where the state does not stay finite.

        Raises:
            ValueError: a model of another kind, k above N, more steps or examples than the batch has.
        """
        if not isinstance(model, SequenceModel):
            raise ValueError(f"model must be a SequenceModel, which tells its encoder, got a {type(model).__name__}")
        for name, there in (("examples", batch.inputs.shape[0]), ("steps", batch.inputs.shape[1])):
            if getattr(self, name) > there:
                raise ValueError(f"{name} must be at most the batch's {there}, got {getattr(self, name)}")
        system = DrivenSystem.from_cell(model.cell)
        inputs = model.encode(batch.inputs[: self.examples, : self.steps])
        return jnp.mean(jax.vmap(lambda each: self._distance(system, each))(inputs))

    def _distance(self, system: DrivenSystem, inputs: Array) -> Array:
        spectrum = lyapunov_spectrum(
            system, inputs, k=self.k, qr_every=self.qr_every, tangent_transient=self.tangent_transient
        )
        distance = spectrum.exponents - jnp.asarray(self.target, spectrum.exponents.dtype)
        distance = jnp.where(jnp.isfinite(distance), distance, 0)
        return jnp.where(spectrum.first_nonfinite_step < 0, jnp.mean(distance**2), jnp.nan)
