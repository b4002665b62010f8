"""What products of state Jacobians do: one file per measured quantity, all driven by the loop in `trajectories`."""

from rnn_dynamics.dynamics.attractor_dimension import Estimate, entropy_rate, kaplan_yorke_dimension
from rnn_dynamics.dynamics.chunks import Chunked
from rnn_dynamics.dynamics.covariant_vectors import CovariantLyapunovVectors, covariant_lyapunov_vectors
from rnn_dynamics.dynamics.finite_time_exponents import FiniteTimeExponents, finite_time_exponents
from rnn_dynamics.dynamics.fixed_points import FixedPoints, LinearisedPoints, fixed_points
from rnn_dynamics.dynamics.gate_activity import GateActivity, GateStatistics, gate_activity
from rnn_dynamics.dynamics.gate_decomposition import GateDecomposition, gate_decomposition, jacobian_by_path
from rnn_dynamics.dynamics.gradient_norms import GradientNormByLag, gradient_norm_by_lag
from rnn_dynamics.dynamics.jacobian_products import JacobianProduct, jacobian_product
from rnn_dynamics.dynamics.loss_adjoints import LayerAdjoints, LossAdjoints, loss_adjoints
from rnn_dynamics.dynamics.loss_curvature import LossCurvature, LossSlice, loss_curvature, loss_slice
from rnn_dynamics.dynamics.lyapunov_exponents import LyapunovSpectrum, lyapunov_spectrum
from rnn_dynamics.dynamics.parallel_trajectory import ParallelTrajectory, parallel_trajectory
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import jacobian, trajectory
from rnn_dynamics.dynamics.trajectory_dimension import TrajectoryDimension, trajectory_dimension
from rnn_dynamics.dynamics.truncated_gradients import (
    GradientTails,
    TemporalComponents,
    gradient_tails,
    temporal_components,
)

__all__ = [
    "Chunked",
    "CovariantLyapunovVectors",
    "DrivenSystem",
    "Estimate",
    "FiniteTimeExponents",
    "FixedPoints",
    "GateActivity",
    "GateDecomposition",
    "GateStatistics",
    "GradientNormByLag",
    "GradientTails",
    "JacobianProduct",
    "LayerAdjoints",
    "LinearisedPoints",
    "LossAdjoints",
    "LossCurvature",
    "LossSlice",
    "LyapunovSpectrum",
    "ParallelTrajectory",
    "TemporalComponents",
    "TrajectoryDimension",
    "covariant_lyapunov_vectors",
    "entropy_rate",
    "finite_time_exponents",
    "fixed_points",
    "gate_activity",
    "gate_decomposition",
    "gradient_norm_by_lag",
    "gradient_tails",
    "jacobian",
    "jacobian_by_path",
    "jacobian_product",
    "kaplan_yorke_dimension",
    "loss_adjoints",
    "loss_curvature",
    "loss_slice",
    "lyapunov_spectrum",
    "parallel_trajectory",
    "temporal_components",
    "trajectory",
    "trajectory_dimension",
]
