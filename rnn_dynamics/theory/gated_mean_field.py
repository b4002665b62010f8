r"""Mean-field theory of gated networks: what is assumed, what it predicts, and how to find a critical initialisation.

One function for each cell, all returning a `GatedMeanField`: `minimal_rnn_mean_field`, `gru_mean_field` and
`lstm_mean_field`, each in the file of its name, take the `GateLaw` of every gate.

**What is assumed.** H goes to infinity, weights are independent Gaussians, and they are *untied*: weights and biases
are drawn anew at every step (Chen, Pennington and Schoenholz 2018, arXiv 1806.05394; Gilboa et al. 2019, arXiv
1901.08987). Then preactivations are Gaussian, independent between gates, steps and units, and independent of the unit's
own past: what a unit keeps is all that joins it to earlier steps. Inputs are independent between steps, each unit's
share of them Gaussian.

**What that is worth for a network whose weights stay.** Its preactivations are correlated in time, since its states
are, so that a unit adds up what is alike from step to step, and some units keep for longer than others. How far that
goes, for the networks of `tests/test_gated_simulations.py` at H = 500 (theory -> tied, means over three networks, with
standard errors of at most 2 % of the second moments, 0.5 % of the singular values and 0.003 nats per step):

=====================  ==================  ==================  ==================
network                second moment       tr(J J^T) / N       exponent
=====================  ==================  ==================  ==================
minimalRNN, stable     0.166 -> 0.150      0.588 -> 0.589      -0.266 -> -0.215
minimalRNN, chaotic    0.319 -> 0.293      1.429 -> 1.425      0.178 -> 0.180
GRU, stable            0.0867 -> 0.0902    0.430 -> 0.430      -0.422 -> -0.289
GRU, near criticality  0.141 -> 0.270      0.964 -> 0.916      -0.018 -> 0.044
LSTM, stable           0.047 -> 0.061      0.614 -> 0.609      -0.255 -> -0.090
LSTM, chaotic          0.077 -> 0.157      2.71 -> 2.37        0.140 -> 0.146
=====================  ==================  ==================  ==================

One Jacobian is as predicted, to 1 % where the network is stable and to 13 % in the others. The second moment is not,
nor is the exponent of a stable network, which is larger: the directions that last are those of the units that keep.
So the GRU that is critical in theory is chaotic with tied weights. With untied weights all three columns agree, within
4 standard errors and 5/H. Biases that stay tell units apart even more: a theory with a large bias variance is no theory
of such a network.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from rnn_dynamics.arguments import require

Number: TypeAlias = float | int | Array

SMALLEST = 1e-24
"""The variance or second moment that stands for 0, where square roots have no derivative."""
NEWTON_STEPS = 200
ENOUGH = 1e-9
"""Relative change in a step of Newton's method, after which another one would be lost in rounding."""
NEGLIGIBLE = 1e-14
"""Change in such a step that ends it where the solution is 0."""
SAME = 1e-9
"""1 - correlation below which two replicas count as one."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GateLaw:
    r"""What the preactivation of a gate is drawn from: :math:`W_h h + W_x x + b`.

    Attributes:
        gain: g, the recurrent weights' standard deviation x sqrt(H).
        drive_variance: variance of the inputs' share W_x x: (the input kernel's gain)^2 x the inputs' mean square.
        bias_mean: of b.
        bias_variance: of b.
    """

    gain: Number = 0.0
    drive_variance: Number = 0.0
    bias_mean: Number = 0.0
    bias_variance: Number = 0.0

    def variance(self, second_moment: Number) -> Array:
        """Return the preactivation's variance at a second moment E[h^2] of the state; 1e-24 where it has none."""
        return jnp.maximum(self.covariance(second_moment, 1.0), SMALLEST)

    def covariance(self, overlap: Number, input_correlation: Number) -> Array:
        """Return that of two replicas with E[h h'] = overlap, their inputs being correlated."""
        driven = self.drive_variance * input_correlation
        return jnp.asarray(self.gain**2 * overlap + driven + self.bias_variance, float)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GatedMeanField:
    r"""The stationary state of a wide gated network with untied weights, and how perturbations of it grow.

    Attributes:
        second_moment: q* = E[h^2], the largest solution; below 1e-14 it stands for 0; NaN where none was found.
        memory_second_moment: E[c^2] of an LSTM's cell state; of other cells q* again.
        preactivation_variance: by the gate's name.
        correlation: E[h h'] / q* in the long run, of two replicas with the same weights and correlated inputs.
        slope: chi, the factor per step at which that correlation approaches its limit.
        growth: chi_1, the factor per step of the mean square of a small perturbation, and so of the squared norms of
            gradients and of long Jacobian products. Above 1 they explode, below they vanish.
        mean_squared_singular_value: of one Jacobian J [N, N], tr(J J^T) / N; where the carry is one array it is
            `growth`, of an LSTM it is not.
        squared_singular_value_variance: tr((J J^T)^2) / N less the mean's square; 0 at dynamical isometry.
    """

    second_moment: Float[Array, "*E"]
    memory_second_moment: Float[Array, "*E"]
    preactivation_variance: dict[str, Float[Array, "*E"]]
    correlation: Float[Array, "*E"]
    slope: Float[Array, "*E"]
    growth: Float[Array, "*E"]
    mean_squared_singular_value: Float[Array, "*E"]
    squared_singular_value_variance: Float[Array, "*E"]

    @property
    def time_scale(self) -> Array:
        """Steps xi = -1 / ln chi in which replicas come closer to their limit by a factor e; inf at chi = 1."""
        return jnp.where(self.slope == 1, jnp.inf, -1 / jnp.log(self.slope))

    @property
    def exponent(self) -> Array:
        """ln(chi_1) / 2, nats per step: the largest Lyapunov exponent of the network with untied weights."""
        return jnp.log(self.growth) / 2


def check_laws(laws: dict[str, GateLaw], input_correlation: Number = 1.0) -> None:
    """Refuse what is no law; numbers that are being traced are taken as they are.

    Args:
        laws: of the gates, by the name of the argument.
        input_correlation: of two replicas' inputs.

    Raises:
        ValueError: a negative or infinite gain or variance, a mean that is not finite, a correlation outside 0 ... 1.
    """
    require("input_correlation", input_correlation, "between 0 and 1", lambda number: (number >= 0) & (number <= 1))
    for gate, law in laws.items():
        for field, value in vars(law).items():
            if field == "bias_mean":
                require(f"{gate}.{field}", value, "finite", np.isfinite)
            else:
                require(f"{gate}.{field}", value, "finite and >= 0", lambda x: np.isfinite(x) & (x >= 0))


def fixed_point(update: Callable[[Array], Array], start: float | Array, lowest: float, highest: float) -> Array:
    """Solve x = update(x) by Newton's method; implicitly differentiable.

    From above an increasing concave update, as those of second moments are, or from below a convex one, as those of
    correlations are, the steps go one way and end at the fixed point that is met first, the stable one.

    Args:
        update: x [] -> [].
        start: where to begin.
        lowest: least x that is tried.
        highest: largest x that is tried.

    Returns:
        x [], NaN where 200 steps do not reach it.
    """

    def solve(excess: Callable[[Array], Array], first: Array) -> Array:
        def improve(loop: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            x, _, count = loop
            value, slope = jax.jvp(excess, (x,), (jnp.ones_like(x),))
            better = jnp.clip(x - value / jnp.where(slope > 0, slope, 1), lowest, highest)
            return better, jnp.abs(better - x), count + 1

        def unfinished(loop: tuple[Array, Array, Array]) -> Array:
            x, change, count = loop
            return (change > jnp.maximum(ENOUGH * jnp.abs(x), NEGLIGIBLE)) & (count < NEWTON_STEPS)

        x, _, count = jax.lax.while_loop(unfinished, improve, (first, jnp.full_like(first, jnp.inf), jnp.array(0)))
        return jnp.where(count < NEWTON_STEPS, x, jnp.nan)

    return jax.lax.custom_root(
        lambda x: x - update(x), jnp.asarray(start, float), solve, lambda slope, y: y / slope(jnp.ones_like(y))
    )


def replica_correlation(
    overlap_after: Callable[[Array], Array], second_moment: Array, growth: Array, input_correlation: Number
) -> tuple[Array, Array]:
    """Find the correlation that two replicas end at, and the slope of the correlation's map there.

    Args:
        overlap_after: E[h h'] [] -> that after a step.
        second_moment: q*.
        growth: the slope at correlation 1.
        input_correlation: of the replicas' inputs; where it is 1 and the growth is not above 1, replicas become equal.

    Returns:
        The correlation c* [] and the slope chi [].
    """

    def update(correlation: Array) -> Array:
        return overlap_after(correlation * second_moment) / second_moment

    alike = (jnp.asarray(input_correlation) == 1) & (growth <= 1)
    found = fixed_point(update, jnp.where(alike, 1 - SAME, 0.0), 0.0, 1 - 1e-13)
    inside = jnp.minimum(found, 1 - SAME)
    slope = jax.jvp(update, (inside,), (jnp.ones_like(inside),))[1]
    same = alike | (found > inside)
    return jnp.where(same, 1.0, found), jnp.where(same, growth, slope)


def critical_value(theory: Callable[[Array], GatedMeanField], low: float, high: float, *, points: int = 33) -> float:
    """Find the value of a parameter at which gradients neither explode nor vanish on average: chi_1 = 1.

    Which parameter, the caller says: a bias mean, a gain, a drive variance or what ties several of them together. Of
    several solutions between the bounds it is the smallest, unless two lie within one of the stretches that are tried.

    Args:
        theory: value [] -> its theory, such as `lambda gain: gru_mean_field(GateLaw(), GateLaw(gain), GateLaw(gain))`.
        low: least value.
        high: largest value.
        points: at how many values, evenly spaced, to look first.

    Returns:
        The value, to rounding, by Brent's method.

    Raises:
        ValueError: bounds or points that leave nothing to search; chi_1 - 1 of one sign at all the points.
    """
    from scipy.optimize import root_scalar  # heavy, and needed here alone

    if not (np.isfinite(low) and np.isfinite(high) and low < high and points >= 2):
        raise ValueError(f"low < high must be finite and points >= 2, got low={low}, high={high}, points={points}")
    exponent = jax.jit(lambda value: theory(value).exponent)
    tried = np.linspace(low, high, points)
    exponents = np.array([float(exponent(jnp.asarray(value))) for value in tried])
    crossings = np.flatnonzero(np.diff(np.signbit(exponents)) & np.all(np.isfinite([exponents[:-1], exponents[1:]]), 0))
    if not crossings.size:
        raise ValueError(
            f"low={low} and high={high} must enclose a value at which chi_1 is 1, got exponents "
            f"from {np.min(exponents):.4g} to {np.max(exponents):.4g} nats per step between them"
        )
    bracket = tuple(float(tried[crossings[0] + end]) for end in (0, 1))
    return float(root_scalar(lambda value: float(exponent(jnp.asarray(value))), bracket=bracket, xtol=1e-13).root)
