"""Encoder, recurrence and head: one file per input/output regime."""

from rnn_dynamics.models.many_to_many import ManyToMany
from rnn_dynamics.models.many_to_one import ManyToOne
from rnn_dynamics.models.regimes import make_model
from rnn_dynamics.models.sequence_model import SequenceModel

__all__ = ["ManyToMany", "ManyToOne", "SequenceModel", "make_model"]
