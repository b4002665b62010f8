"""Does the reach of gradients at initialisation tell the longest lag that a network learns?

    python -m experiments trainability --preset laptop

Elman networks (tanh) of several gains and GRUs of several update biases learn to say which symbol they saw so many
steps ago, all in the same number of updates. Before that each is driven by the noise that fills the lag, and lambda_1
and the reach are measured in float64. A seed's initial weights are the same at every lag. In deep networks the depth
that can be trained follows a depth scale that diverges at the edge of chaos (Schoenholz, Gilmer, Ganguli and
Sohl-Dickstein, ICLR 2017); here lags stand in the place of depths.

Time on two cores: 4 minutes (laptop), 20 s (smoke); the preset `paper` is for an accelerator and has not been run. To
expect: while gradients fade, lambda_1 < 0, the longest lag learnt grows with the reach. Where it is below 160, the
longest lag tried, with every seed, it is 7 to 10 times the reach in both kinds of network; it grows like
reach^(1.18 +- 0.05) over the gains of Elman networks (0.6 to 0.9) and like reach^(0.89 +- 0.16) over the biases of GRUs
(0 to 2; lags are tried at factors of 2). At gain 1.5, where lambda_1 = 0.010 +- 0.016 nats per step, all five seeds
learn 160 steps. In chaos the lag falls again, to 46 +- 6 at gain 2 and 15 +- 3 at gain 3, lambda_1 = 0.109 and 0.273.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from jax import Array

from rnn_dynamics.arguments import require, require_positive, whole_number
from rnn_dynamics.cells import ElmanCell, GRUCell
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.dynamics import (
    DrivenSystem,
    GradientNormByLag,
    LyapunovSpectrum,
    gradient_norm_by_lag,
    lyapunov_spectrum,
)
from rnn_dynamics.models import make_model
from rnn_dynamics.results import labelled
from rnn_dynamics.tasks.delayed_recall import DelayedRecall
from rnn_dynamics.training import Checkpoints, TrainingConfig, clipped_adam, train_ensemble

EVALUATE_EVERY = 50
MAX_LAG = 256
"""Longest lag of the gradient norms; a reach beyond it is not seen."""

TEST_EXAMPLES = 512
TRANSIENT = 300
"""Steps in which state and tangents forget how they started."""


@dataclass(frozen=True)
class Config:
    """What to compare.

    Attributes:
        gains: of Elman networks.
        update_biases: of GRUs.
        lags: to learn.
        seeds: number of them, of initial weights and of the order of the examples.
        hidden: H.
        noise: standard deviation of the inputs after the symbol.
        training_steps: updates at most; a network that has solved the task makes no more.
        batch_size: examples per update.
        learning_rate: of Adam.
        clip_threshold: global norm above which gradients are shortened.
        measured_steps: length of the run behind exponents and gradient norms.
    """

    gains: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0)
    update_biases: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    lags: tuple[int, ...] = (10, 20, 40, 80, 160)
    seeds: int = 5
    hidden: int = 64
    noise: float = 0.1
    training_steps: int = 400
    batch_size: int = 32
    learning_rate: float = 1e-3
    clip_threshold: float = 1.0
    measured_steps: int = 2048


PRESETS = {
    "smoke": Config(
        gains=(1.0,), update_biases=(1.0,), lags=(2,), seeds=2, hidden=4, training_steps=50, measured_steps=MAX_LAG
    ),
    "laptop": Config(),
    "paper": Config(
        gains=(0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.5, 3.0),
        update_biases=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0),
        lags=(5, 7, 10, 14, 20, 28, 40, 57, 80, 113, 160, 226, 320),
        seeds=10,
        hidden=256,
        training_steps=2000,
    ),
}


@dataclass(frozen=True)
class Point:
    """One network at one lag, all seeds of it as one ensemble; the other fields are those of `Config`.

    Attributes:
        network: "elman-tanh" or "gru".
        control: its gain, or its update bias.
        lag: to learn.
    """

    network: str
    control: float
    lag: int
    seeds: int
    hidden: int
    noise: float
    training_steps: int
    batch_size: int
    learning_rate: float
    clip_threshold: float
    measured_steps: int


def grid(config: Config) -> list[Point]:
    """List every network at every lag; networks of one lag in a row, for they share what is compiled.

    Raises:
        ValueError: a number out of range.
    """
    limits = {"seeds": 1, "hidden": 1, "training_steps": EVALUATE_EVERY, "measured_steps": MAX_LAG}
    for name, least in limits.items():
        whole_number(name, getattr(config, name), least=least)
    for gain in config.gains:
        require_positive("gains", gain)
    for bias in config.update_biases:
        require("update_biases", bias, "finite numbers", np.isfinite)
    for lag in config.lags:
        DelayedRecall(lag, config.noise)
    TrainingConfig(config.training_steps, config.batch_size)
    clipped_adam(config.learning_rate, config.clip_threshold)
    networks = [("elman-tanh", gain) for gain in config.gains] + [("gru", bias) for bias in config.update_biases]
    shared = (
        config.seeds,
        config.hidden,
        config.noise,
        config.training_steps,
        config.batch_size,
        config.learning_rate,
        config.clip_threshold,
        config.measured_steps,
    )
    return [Point(network, control, lag, *shared) for lag in config.lags for network, control in networks]


def run(point: Point, unfinished: Path) -> xr.Dataset:
    """Measure an ensemble as it is drawn, then see which of its members learn the lag."""
    task = _task(point.lag, point.noise)
    rngs = [nnx.Rngs(seed) for seed in range(point.seeds)]
    models = [make_model(task, _cell(point, task.symbols, own), rngs=own) for own in rngs]
    measured = _at_initialisation([model.cell for model in models], point, task.symbols)
    config = TrainingConfig(
        point.training_steps, point.batch_size, evaluate_every=EVALUATE_EVERY, stop_when_solved=True
    )
    record = train_ensemble(
        models,
        task,
        clipped_adam,
        config,
        seeds=range(point.seeds),
        numbers={"learning_rate": point.learning_rate, "clip_threshold": point.clip_threshold},
        checkpoints=Checkpoints(unfinished, every=10 * EVALUATE_EVERY),
    )
    accuracy = record.metric[-1] if len(record.metric) else np.nan
    return measured.assign(
        accuracy=labelled("seed", np.where(record.broken_step < 0, accuracy, np.nan), "1", "test accuracy in the end"),
        solved_update=labelled("seed", record.solved_step, "updates", "updates until solved, -1 if it never was"),
        broken_update=labelled("seed", record.broken_step, "updates", "update at which training broke, -1 if none"),
        chance_level=labelled((), task.chance_level, "1", "accuracy without the symbol"),
    )


@cache  # one task for all networks of a lag, so that they share what is compiled
def _task(lag: int, noise: float) -> DelayedRecall:
    return DelayedRecall(lag, noise, test_size=TEST_EXAMPLES)


def _cell(point: Point, features: int, rngs: nnx.Rngs) -> nnx.RNNCellBase:
    if point.network == "gru":
        return GRUCell(features, point.hidden, update_bias=point.control, rngs=rngs)
    return ElmanCell(features, point.hidden, recurrent_kernel_init=gaussian(point.control), rngs=rngs)


def _at_initialisation(cells: list[nnx.RNNCellBase], point: Point, features: int) -> xr.Dataset:
    systems = [DrivenSystem.from_cell(cell, dtype=jnp.float64) for cell in cells]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *systems)
    shape = (point.seeds, TRANSIENT + point.measured_steps, features)
    spectrum, by_lag = _measure(stacked, point.noise * jax.random.normal(jax.random.key(0), shape, jnp.float64))
    exponent, error = spectrum.exponents[:, 0], spectrum.standard_error[:, 0]
    return xr.Dataset(
        {
            "largest_exponent": labelled("seed", exponent, "nats per step", "largest Lyapunov exponent"),
            "largest_exponent_error": labelled("seed", error, "nats per step", "its standard error"),
            "reach": labelled("seed", by_lag.reach, "steps", "gradient reach, inf beyond the longest lag"),
            "log_gradient_norm": labelled(("seed", "back"), by_lag.log_norm, "nats", "ln norm of the gradient by lag"),
            "first_nonfinite_step": labelled("seed", spectrum.first_nonfinite_step, "steps", "first non-finite step"),
        },
        {
            "seed": labelled("seed", np.arange(point.seeds), "1", "seed"),
            "back": labelled("back", np.arange(MAX_LAG + 1), "steps", "lag of the gradient"),
        },
    )


@jax.jit
@jax.vmap
def _measure(system: DrivenSystem, inputs: Array) -> tuple[LyapunovSpectrum, GradientNormByLag]:
    spectrum = lyapunov_spectrum(system, inputs, k=1, transient=TRANSIENT // 2, tangent_transient=TRANSIENT // 2)
    return spectrum, gradient_norm_by_lag(system, inputs, max_lag=MAX_LAG, transient=TRANSIENT)
