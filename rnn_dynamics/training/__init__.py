"""Training, and what its clipping did."""

from rnn_dynamics.training.clipping import (
    CLIPPINGS,
    ClipReport,
    clip_by_global_norm,
    clip_each_step,
    clip_report,
    clip_states,
    make_clipping,
)
from rnn_dynamics.training.loop import TrainingBroke, TrainingConfig, TrainingRecord, evaluate, train

__all__ = [
    "CLIPPINGS",
    "ClipReport",
    "TrainingBroke",
    "TrainingConfig",
    "TrainingRecord",
    "clip_by_global_norm",
    "clip_each_step",
    "clip_report",
    "clip_states",
    "evaluate",
    "make_clipping",
    "train",
]
