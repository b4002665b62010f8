"""Training, and what its clipping did."""

from rnn_dynamics.training.clipping import ClipReport, clip_by_global_norm, clip_report
from rnn_dynamics.training.constrain_singular_values import constrain_singular_values, constrain_spectral_norm
from rnn_dynamics.training.loop import TrainingBroke, TrainingConfig, TrainingRecord, evaluate, train
from rnn_dynamics.training.penalties import (
    PENALTIES,
    FlossingPenalty,
    NormStabilizer,
    SoftOrthogonality,
    VanishingGradientPenalty,
    make_penalty,
)

__all__ = [
    "PENALTIES",
    "ClipReport",
    "FlossingPenalty",
    "NormStabilizer",
    "SoftOrthogonality",
    "TrainingBroke",
    "TrainingConfig",
    "TrainingRecord",
    "VanishingGradientPenalty",
    "clip_by_global_norm",
    "clip_report",
    "constrain_singular_values",
    "constrain_spectral_norm",
    "evaluate",
    "make_penalty",
    "train",
]
