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
from rnn_dynamics.theory.gated_mean_field import GatedMeanField, GateLaw, critical_value
from rnn_dynamics.theory.gaussian_averages import average, average_of_pair
from rnn_dynamics.theory.gaussian_products import (
    fuss_catalan_curve,
    fuss_catalan_density,
    fuss_catalan_edge,
    fuss_catalan_moment,
    gaussian_log_determinant,
    gaussian_product_exponents,
    gaussian_product_variances,
    triangular_cdf,
    triangular_density,
)
from rnn_dynamics.theory.gru_mean_field import gru_mean_field
from rnn_dynamics.theory.linear_units import (
    LRUSensitivity,
    UnitMoments,
    edge_moments,
    lru_sensitivity,
    parameter_sensitivity,
    unit_moments,
    unit_moments_of_autocorrelation,
)
from rnn_dynamics.theory.lstm_mean_field import lstm_mean_field
from rnn_dynamics.theory.minimal_rnn_mean_field import minimal_rnn_mean_field
from rnn_dynamics.theory.random_matrices import (
    circular_cdf,
    circular_density,
    elliptic_cdf,
    elliptic_density,
    elliptic_semi_axes,
    marchenko_pastur_cdf,
    marchenko_pastur_density,
    marchenko_pastur_edges,
    spectral_radius,
)

__all__ = [
    "GateLaw",
    "GatedMeanField",
    "GradientBound",
    "LRUSensitivity",
    "RandomElman",
    "UnitMoments",
    "average",
    "average_of_pair",
    "circular_cdf",
    "circular_density",
    "correlation_map",
    "correlation_slope",
    "critical_gain",
    "critical_value",
    "edge_moments",
    "elliptic_cdf",
    "elliptic_density",
    "elliptic_semi_axes",
    "fuss_catalan_curve",
    "fuss_catalan_density",
    "fuss_catalan_edge",
    "fuss_catalan_moment",
    "gaussian_log_determinant",
    "gaussian_product_exponents",
    "gaussian_product_variances",
    "gradient_bound",
    "gru_mean_field",
    "leading_exponent",
    "lru_sensitivity",
    "lstm_mean_field",
    "marchenko_pastur_cdf",
    "marchenko_pastur_density",
    "marchenko_pastur_edges",
    "mean_exponent",
    "memory_depth",
    "minimal_rnn_mean_field",
    "parameter_sensitivity",
    "spectral_radius",
    "squared_growth",
    "stationary_correlation",
    "stationary_variance",
    "triangular_cdf",
    "triangular_density",
    "unit_moments",
    "unit_moments_of_autocorrelation",
    "variance_map",
]
