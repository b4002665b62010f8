"""Training and what to watch while it runs."""

from rnn_dynamics.training.clipping import ClipReport, clip_by_global_norm, clip_report
from rnn_dynamics.training.loop import TrainingBroke, TrainingConfig, TrainingRecord, evaluate, train
from rnn_dynamics.training.probes import loss_gradient_norms

__all__ = [
    "ClipReport",
    "TrainingBroke",
    "TrainingConfig",
    "TrainingRecord",
    "clip_by_global_norm",
    "clip_report",
    "evaluate",
    "loss_gradient_norms",
    "train",
]
