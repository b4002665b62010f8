"""Encoder, recurrence and head: one file per input/output regime."""

from rnn_dynamics.models.classifier import SequenceClassifier

__all__ = ["SequenceClassifier"]
