"""Training, and what its clipping did."""

from rnn_dynamics.training.clipping import ClipReport, clip_by_global_norm, clip_report
from rnn_dynamics.training.loop import TrainingBroke, TrainingConfig, TrainingRecord, evaluate, train

__all__ = [
    "ClipReport",
    "TrainingBroke",
    "TrainingConfig",
    "TrainingRecord",
    "clip_by_global_norm",
    "clip_report",
    "evaluate",
    "train",
]
