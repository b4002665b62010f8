"""What products of state Jacobians do: one file per measured quantity, all driven by the loop in `trajectories`."""

from rnn_dynamics.dynamics.gate_decomposition import (
    GateDecomposition,
    GateStatistics,
    gate_decomposition,
    jacobian_by_path,
)
from rnn_dynamics.dynamics.gradient_norms import GradientNormByLag, gradient_norm_by_lag
from rnn_dynamics.dynamics.jacobian_products import JacobianProduct, jacobian_product
from rnn_dynamics.dynamics.lyapunov_exponents import LyapunovSpectrum, lyapunov_spectrum
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import jacobian, trajectory

__all__ = [
    "DrivenSystem",
    "GateDecomposition",
    "GateStatistics",
    "GradientNormByLag",
    "JacobianProduct",
    "LyapunovSpectrum",
    "gate_decomposition",
    "gradient_norm_by_lag",
    "jacobian",
    "jacobian_by_path",
    "jacobian_product",
    "lyapunov_spectrum",
    "trajectory",
]
