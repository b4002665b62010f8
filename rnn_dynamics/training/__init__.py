"""Training: recipes, the loop, checkpoints, probes, and what gradients did meanwhile."""

from rnn_dynamics.training.checkpoints import CheckpointError, Checkpoints
from rnn_dynamics.training.clipped_adam import clipped_adam
from rnn_dynamics.training.clipping import (
    CLIPPINGS,
    ClipReport,
    clip_by_global_norm,
    clip_each_step,
    clip_report,
    clip_states,
    make_clipping,
)
from rnn_dynamics.training.config import TrainingConfig
from rnn_dynamics.training.constrain_singular_values import constrain_singular_values, constrain_spectral_norm
from rnn_dynamics.training.evaluation import evaluate
from rnn_dynamics.training.loop import train, train_ensemble
from rnn_dynamics.training.penalties import (
    PENALTIES,
    FlossingPenalty,
    NormStabilizer,
    SoftOrthogonality,
    VanishingGradientPenalty,
    make_penalty,
)
from rnn_dynamics.training.probe_history import ProbeHistory
from rnn_dynamics.training.probes import Probe, standard_probes
from rnn_dynamics.training.progress import ProgressBar
from rnn_dynamics.training.recipe import LossGradient, Recipe, TaskLoss, backpropagate
from rnn_dynamics.training.record import TrainingBroke, TrainingRecord
from rnn_dynamics.training.run import CHECK_EVERY, News
from rnn_dynamics.training.tensorboard import TensorBoardWriter

__all__ = [
    "CHECK_EVERY",
    "CLIPPINGS",
    "PENALTIES",
    "CheckpointError",
    "Checkpoints",
    "ClipReport",
    "FlossingPenalty",
    "LossGradient",
    "News",
    "NormStabilizer",
    "Probe",
    "ProbeHistory",
    "ProgressBar",
    "Recipe",
    "SoftOrthogonality",
    "TaskLoss",
    "TensorBoardWriter",
    "TrainingBroke",
    "TrainingConfig",
    "TrainingRecord",
    "VanishingGradientPenalty",
    "backpropagate",
    "clip_by_global_norm",
    "clip_each_step",
    "clip_report",
    "clip_states",
    "clipped_adam",
    "constrain_singular_values",
    "constrain_spectral_norm",
    "evaluate",
    "make_clipping",
    "make_penalty",
    "standard_probes",
    "train",
    "train_ensemble",
]
