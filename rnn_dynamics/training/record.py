"""What happened in a training: its series, evaluations and probes, of one network or of an ensemble."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from rnn_dynamics.training.clipping import ClipReport
from rnn_dynamics.training.probe_history import ProbeHistory


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """What happened; of an ensemble arrays have a last axis [E], and series are NaN where a member has stopped.

    Attributes:
        series: name -> [steps], one number for each batch: "loss", the batch mean before the update; "gradient_norm",
            the global norm of its gradient before clipping; "penalty_NAME" of each penalty; what the gradient's rule
            reports; "clipped", "clip_factor" and "clip_angle" of the update, NaN where batches are accumulated and
            there was none, with "_2" for a second clipping in the chain.
        evaluated: [n], batches seen before each evaluation.
        metric: [n], the task's metric over the evaluation split; of a stopped member what it stays at.
        broken_step: [], the batch at which the loss or the norm of its gradient was not finite; -1 if none.
        solved_step: [], batches seen when an evaluation called the task solved and training stopped; -1 if none did.
        clipping: how often and by how much, of the first clipping in the chain; None without.
        probes: what they measured.
        probe_share: of the run time, taken by them, compiling left out; NaN where they measured less than three times.
    """

    series: Mapping[str, np.ndarray]
    evaluated: np.ndarray
    metric: np.ndarray
    broken_step: np.ndarray
    solved_step: np.ndarray
    clipping: ClipReport | None
    probes: ProbeHistory
    probe_share: float = math.nan

    @property
    def loss(self) -> np.ndarray:
        """[steps], batch mean before each update."""
        return self.series["loss"]

    @property
    def gradient_norm(self) -> np.ndarray:
        """[steps], global norm before clipping."""
        return self.series["gradient_norm"]


class TrainingBroke(FloatingPointError):
    """The loss, or the norm of its gradient, was no longer finite; the message says at which step, and its value.

    Attributes:
        record: what happened until then: the last loss and gradient norm are those that broke; clipping counts the
            updates before.
        step: of the update that broke, from 0; the updates before it were made.
        value: the loss that broke; the gradient norm where the loss was finite still.
    """

    def __init__(self, record: TrainingRecord):
        loss, norm = float(record.loss[-1]), float(record.gradient_norm[-1])
        what, value = ("gradient norm", norm) if np.isfinite(loss) else ("loss", loss)
        self.record = record
        self.step = len(record.loss) - 1
        self.value = value
        super().__init__(f"the {what} became {value} at training step {self.step}")
