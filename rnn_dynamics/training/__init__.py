"""Training: recipes, the loop, checkpoints, probes, and what gradients did meanwhile."""

from rnn_dynamics.training.checkpoints import CheckpointError, Checkpoints
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
from rnn_dynamics.training.evaluation import evaluate
from rnn_dynamics.training.loop import train, train_ensemble
from rnn_dynamics.training.probe_history import ProbeHistory
from rnn_dynamics.training.probes import Probe, standard_probes
from rnn_dynamics.training.recipe import LossGradient, Recipe, TaskLoss, backpropagate
from rnn_dynamics.training.record import TrainingBroke, TrainingRecord
from rnn_dynamics.training.run import CHECK_EVERY, News

__all__ = [
    "CHECK_EVERY",
    "CLIPPINGS",
    "CheckpointError",
    "Checkpoints",
    "ClipReport",
    "LossGradient",
    "News",
    "Probe",
    "ProbeHistory",
    "Recipe",
    "TaskLoss",
    "TrainingBroke",
    "TrainingConfig",
    "TrainingRecord",
    "backpropagate",
    "clip_by_global_norm",
    "clip_each_step",
    "clip_report",
    "clip_states",
    "evaluate",
    "make_clipping",
    "standard_probes",
    "train",
    "train_ensemble",
]
