"""Training, and what its clipping did."""

from rnn_dynamics.training.clipping import ClipReport, clip_by_global_norm, clip_report
from rnn_dynamics.training.loop import TrainingBroke, TrainingConfig, TrainingRecord, evaluate, train
from rnn_dynamics.training.probe_history import ProbeHistory
from rnn_dynamics.training.probes import Probe, standard_probes

__all__ = [
    "ClipReport",
    "Probe",
    "ProbeHistory",
    "TrainingBroke",
    "TrainingConfig",
    "TrainingRecord",
    "clip_by_global_norm",
    "clip_report",
    "evaluate",
    "standard_probes",
    "train",
]
