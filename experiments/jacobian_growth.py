"""How fast do products of state Jacobians grow or shrink in untrained networks, by cell, activation, gain and input?

    python -m experiments jacobian_growth --preset laptop

Elman (tanh, relu), LSTM and GRU with Gaussian recurrent weights of gain g are driven by noise, by digits and MNIST
rows and by IMDB reviews (as random word vectors), end to end, and the singular values of the Jacobian product are
measured up to a horizon of 10,000 steps, beside the leading Lyapunov exponents and the reach of the gradient. All
inputs have mean 0 and variance 1.

Time on two cores: about 10 minutes (laptop), 15 s (smoke).
MNIST and IMDB must be prepared for TFDS; without them add e.g. --inputs noise digits.
"""

import math
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.cells import make_cell, options_of, parse_cell_name
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.discovery import unknown_name
from rnn_dynamics.dynamics import DrivenSystem, gradient_norm_by_lag, jacobian_product, lyapunov_spectrum
from rnn_dynamics.results import labelled
from rnn_dynamics.tasks import make_task
from rnn_dynamics.tasks.streams import input_stream, standardised
from rnn_dynamics.types import Task

TRANSIENT = 500
"""Steps until state and tangent frame have forgotten their start."""

MAX_LAG = 200

TASKS = {
    "digits": ("sequential_digits", {}),
    "mnist_rows": ("sequential_mnist", {"by": "rows"}),
    "imdb": ("imdb_sentiment", {}),
}
"""Input by name -> the task whose sequences it joins, and the task's options."""

NOISE = "noise"
"""The input without a task: independent N(0, 1), F = 1."""


@dataclass(frozen=True)
class Config:
    """What to compare.

    Attributes:
        cells: short names of cells.
        activations: of Elman cells; the gated cells have their own.
        gains: g, recurrent weight standard deviation x sqrt(H).
        inputs: "noise", "digits", "mnist_rows", "imdb".
        seeds: of weights and inputs.
        hidden: H.
        horizon: longest product, in steps; at least 1.
        exponents: number of leading Lyapunov exponents.
    """

    cells: tuple[str, ...] = ("elman", "lstm", "gru")
    activations: tuple[str, ...] = ("tanh", "relu")
    gains: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    inputs: tuple[str, ...] = ("noise", "digits", "mnist_rows", "imdb")
    seeds: tuple[int, ...] = (0, 1, 2)
    hidden: int = 32
    horizon: int = 10_000
    exponents: int = 8


PRESETS = {
    "smoke": Config(cells=("elman", "gru"), activations=("tanh",), gains=(1.0,), inputs=("noise", "digits"), seeds=(0,),
                    hidden=8, horizon=200, exponents=2),
    "laptop": Config(),
    "paper": Config(gains=tuple(np.linspace(0.25, 6, 24).tolist()), seeds=tuple(range(10)), hidden=256, exponents=32),
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One network under one input; the fields are those of `Config`, one of each."""

    network: str
    gain: float
    inputs: str
    seed: int
    hidden: int
    horizon: int
    exponents: int


def grid(config: Config) -> list[Point]:
    """List every network with every gain, input and seed; inputs outermost, so that each data set is read once.

    Raises:
        ValueError: no unit, a horizon below 1, more exponents than units, a gain that is not positive, an unknown name.
    """
    for name in ("hidden", "horizon"):
        whole_number(name, getattr(config, name), least=1)
    if not 1 <= config.exponents <= config.hidden:
        raise ValueError(f"exponents must be between 1 and hidden = {config.hidden}, got {config.exponents}")
    if not all(0 < gain < math.inf for gain in config.gains):
        raise ValueError(f"gains must be positive numbers, got {', '.join(map(str, config.gains))}")
    for name in config.inputs:
        if name not in (NOISE, *TASKS):
            raise ValueError(unknown_name("input", name, [NOISE, *TASKS]))
    networks = [
        name
        for cell in config.cells
        for name in ([f"elman-{activation}" for activation in config.activations] if cell == "elman" else [cell])
    ]
    for network in networks:
        cell, _ = parse_cell_name(network)
        if "recurrent_kernel_init" not in options_of(cell):
            raise ValueError(f"cells must have recurrent weights, whose gain is varied; {network} has none")
    return [
        Point(network, gain, inputs, seed, config.hidden, config.horizon, config.exponents)
        for inputs in config.inputs
        for network in networks
        for gain in config.gains
        for seed in config.seeds
    ]


def run(point: Point) -> xr.Dataset:
    """Measure one network under one input."""
    stream = _inputs(point)
    cell = make_cell(
        point.network,
        stream.shape[1],
        point.hidden,
        recurrent_kernel_init=gaussian(point.gain),
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(point.seed),
    )
    system = DrivenSystem.from_cell(cell)
    horizons = horizons_up_to(point.horizon)
    product = jacobian_product(system, stream, horizons=horizons, transient=TRANSIENT)
    k = point.exponents
    spectrum = lyapunov_spectrum(system, stream, k=k, transient=TRANSIENT // 2, tangent_transient=TRANSIENT // 2)
    by_lag = gradient_norm_by_lag(system, stream, max_lag=min(MAX_LAG, point.horizon), transient=TRANSIENT)
    nats, rate = "nats", "nats per step"
    return xr.Dataset(
        {
            "log_singular_values": labelled(
                ("horizon", "index"), product.log_singular_values, nats, "ln singular values of the product"
            ),
            "exponent": labelled("exponent_index", spectrum.exponents, rate, "Lyapunov exponent"),
            "exponent_error": labelled(
                "exponent_index", spectrum.standard_error, rate, "standard error of the exponent"
            ),
            "log_gradient_norm": labelled("lag", by_lag.log_norm, nats, "ln norm of the gradient by the lag"),
            "reach": labelled((), by_lag.reach, "steps", "gradient reach"),
            "reach_error": labelled((), by_lag.reach_standard_error, "steps", "standard error of the reach"),
            "first_nonfinite_step": labelled((), product.first_nonfinite_step, "steps", "first non-finite step"),
        },
        {
            "horizon": labelled("horizon", list(horizons), "steps", "horizon"),
            "index": labelled("index", np.arange(system.state_size), "1", "index of the singular value"),
            "exponent_index": labelled("exponent_index", np.arange(k), "1", "index of the exponent"),
            "lag": labelled("lag", np.asarray(by_lag.lags), "steps", "lag"),
        },
    )


def horizons_up_to(longest: int) -> tuple[int, ...]:
    """Return 1, 2, 5, 10, 20, 50, ... and the longest itself."""
    steps = [mantissa * 10**power for power in range(len(str(longest))) for mantissa in (1, 2, 5)]
    return (*[step for step in steps if step < longest], longest)


def _inputs(point: Point) -> np.ndarray:
    steps = TRANSIENT + point.horizon
    if point.inputs == NOISE:
        return np.asarray(jax.random.normal(jax.random.key(point.seed), (steps, 1), jnp.float64))
    return standardised(input_stream(_task(point.inputs), steps, seed=point.seed))


@cache
def _task(inputs: str) -> Task:
    name, options = TASKS[inputs]
    return make_task(name, **options)
