"""Closed forms and mean-field predictions, to lay beside what is measured."""

from rnn_dynamics.theory.bounds import GradientBound, gradient_bound
from rnn_dynamics.theory.edge_of_chaos import critical_gain
from rnn_dynamics.theory.elman_correlations import (
    correlation_map,
    correlation_slope,
    memory_depth,
    stationary_correlation,
)
from rnn_dynamics.theory.elman_mean_field import (
    RandomElman,
    leading_exponent,
    mean_exponent,
    squared_growth,
    stationary_variance,
    variance_map,
)
from rnn_dynamics.theory.gaussian_averages import average, average_of_pair

__all__ = [
    "GradientBound",
    "RandomElman",
    "average",
    "average_of_pair",
    "correlation_map",
    "correlation_slope",
    "critical_gain",
    "gradient_bound",
    "leading_exponent",
    "mean_exponent",
    "memory_depth",
    "squared_growth",
    "stationary_correlation",
    "stationary_variance",
    "variance_map",
]
