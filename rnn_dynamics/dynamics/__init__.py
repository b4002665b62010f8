"""What products of state Jacobians do: one file per measured quantity, all driven by the loop in `trajectories`."""

from rnn_dynamics.dynamics.gradient_norms import GradientNormByLag, gradient_norm_by_lag
from rnn_dynamics.dynamics.jacobian_products import JacobianProduct, jacobian_product
from rnn_dynamics.dynamics.loss_adjoints import LayerAdjoints, LossAdjoints, loss_adjoints
from rnn_dynamics.dynamics.loss_curvature import LossCurvature, LossSlice, loss_curvature, loss_slice
from rnn_dynamics.dynamics.lyapunov_exponents import LyapunovSpectrum, lyapunov_spectrum
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import jacobian, trajectory
from rnn_dynamics.dynamics.truncated_gradients import (
    GradientTails,
    TemporalComponents,
    gradient_tails,
    temporal_components,
)

__all__ = [
    "DrivenSystem",
    "GradientNormByLag",
    "GradientTails",
    "JacobianProduct",
    "LayerAdjoints",
    "LossAdjoints",
    "LossCurvature",
    "LossSlice",
    "LyapunovSpectrum",
    "TemporalComponents",
    "gradient_norm_by_lag",
    "gradient_tails",
    "jacobian",
    "jacobian_product",
    "loss_adjoints",
    "loss_curvature",
    "loss_slice",
    "lyapunov_spectrum",
    "temporal_components",
    "trajectory",
]
