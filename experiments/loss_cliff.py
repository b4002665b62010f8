r"""What does a step of gradient descent do at a cliff of the loss, and what does clipping change about it?

    python -m experiments loss_cliff --preset laptop

One unit without inputs, asked for 0.7 after T steps (Pascanu, Mikolov and Bengio, "On the difficulty of training
recurrent neural networks", ICML 2013, figure 6):

.. math:: x_t = w \sigma(x_{t-1}) + b, \quad x_0 = 0.5, \qquad L = (\sigma(x_T) - 0.7)^2

Where :math:`b = x_0 - w \sigma(x_0)` the orbit stands on an unstable fixed point, and the loss has a wall. Measured are
the loss around it, the largest gradient and curvature across it at w = 5, and paths of gradient descent with and
without clipping from random starts below the wall.

Time on two cores: under a minute (laptop), 5 s (smoke). To expect at T = 50: the gradient at the wall is 6.8e3, and
grows by m = 1.175 with every step of the horizon, the multiplier of the fixed point; the curvature, 2.3e8, by its
square. Of 50 paths of rate 0.1 all that are clipped at 1 come below a loss of 1e-3 within 1,000 updates, and 22 % of
the others, whose longest steps are of 6.5 on average, and of up to 1,200. At a rate of 0.01 the clipped ones are too
slow for that: 24 % do, beside 10 %.
"""

from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array

from rnn_dynamics.arguments import require_positive, whole_number
from rnn_dynamics.dynamics import loss_curvature, loss_slice
from rnn_dynamics.results import labelled
from rnn_dynamics.training.clipping import clip_by_global_norm, global_norm

START, TARGET = 0.5, 0.7
WALL_WEIGHT = 5.0
SURFACE = {"w": np.linspace(3.95, 5.95, 41), "height": 2.9 * np.linspace(-1, 1, 45) ** 3}
"""Where the loss is looked at: weights, and the bias less that of the wall, densest there."""

ACROSS_WALL = np.linspace(-8, 8, 321)
"""Offsets in b at which gradient and curvature are looked at, in widths of the wall."""

METHODS = ("plain", "clipped")
Parameters = dict[str, Array]


@dataclass(frozen=True)
class Config:
    """What to compare.

    Attributes:
        horizons: T.
        learning_rates: of gradient descent.
        clip_threshold: norm above which gradients are shortened.
        updates: length of a path.
        seeds: paths, with seeds 0, 1, ... of their start.
    """

    horizons: tuple[int, ...] = (10, 20, 30, 40, 50)
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    clip_threshold: float = 1.0
    updates: int = 1000
    seeds: int = 50


PRESETS = {
    "smoke": Config(horizons=(10,), learning_rates=(0.1,), updates=20, seeds=5),
    "laptop": Config(),
    "paper": Config(updates=10_000, seeds=1000),
}


@dataclass(frozen=True)
class Point:
    """One loss and one rate; the fields are those of `Config`, one of each."""

    horizon: int
    learning_rate: float
    clip_threshold: float
    updates: int
    seeds: int


def grid(config: Config) -> list[Point]:
    """List every horizon with every rate.

    Raises:
        ValueError: a number out of range.
    """
    for horizon in config.horizons:
        whole_number("horizons", horizon, least=1)
    for rate in config.learning_rates:
        require_positive("learning_rates", rate)
    for name in ("updates", "seeds"):
        whole_number(name, getattr(config, name), least=1)
    require_positive("clip_threshold", config.clip_threshold)
    shared = config.clip_threshold, config.updates, config.seeds
    return [Point(horizon, rate, *shared) for horizon in config.horizons for rate in config.learning_rates]


def run(point: Point) -> xr.Dataset:
    """Measure the loss and its wall, and follow the paths."""
    return xr.merge([_surface(point), _wall(point), _paths(point)])


@cache
def one_unit_loss(horizon: int) -> jax.tree_util.Partial:
    """Return parameters {"w": [], "b": []} -> loss []; one function for one horizon, so that it is compiled once."""
    return jax.tree_util.Partial(partial(_loss, horizon))


def _loss(horizon: int, parameters: Parameters) -> Array:
    def step(x: Array, _: None) -> tuple[Array, None]:
        return parameters["w"] * jax.nn.sigmoid(x) + parameters["b"], None

    x, _ = jax.lax.scan(step, jnp.asarray(START, parameters["w"].dtype), length=horizon)
    return (jax.nn.sigmoid(x) - TARGET) ** 2


def wall(weight: float | Array) -> Array:
    """Return the bias at which the first state is the unstable fixed point, for weights above 1 / sigma'(0.5)."""
    return START - weight * jax.nn.sigmoid(START)


def multiplier(weight: float) -> float:
    """Return by what a step multiplies a small distance from that fixed point, w sigma'(0.5)."""
    slope = jax.nn.sigmoid(START) * jax.nn.sigmoid(-START)
    return float(weight * slope)


def _surface(point: Point) -> xr.Dataset:
    zero, one = jnp.zeros(()), jnp.ones(())
    directions = [{"w": one, "b": wall(one) - wall(zero)}, {"w": zero, "b": one}]
    extents = [jnp.asarray(SURFACE["w"]), jnp.asarray(SURFACE["height"])]
    surface = loss_slice(one_unit_loss(point.horizon), {"w": zero, "b": wall(zero)}, directions, extents)
    biases = np.asarray(wall(extents[0]))[:, None] + SURFACE["height"]
    return xr.Dataset(
        {"loss_surface": labelled(("w", "height"), surface.loss, "1", "loss")},
        {
            "w": labelled("w", SURFACE["w"], "1", "weight"),
            "height": labelled("height", SURFACE["height"], "1", "bias less that of the wall"),
            "bias": labelled(("w", "height"), biases, "1", "bias"),
        },
    )


def _wall(point: Point) -> xr.Dataset:
    """Look for the largest gradient and curvature across the wall, which is as thin as the multiplier's power."""
    loss, factor = one_unit_loss(point.horizon), multiplier(WALL_WEIGHT)
    offsets = jnp.asarray(ACROSS_WALL) * (factor - 1) / (factor**point.horizon - 1)

    def measured(offset: Array) -> tuple[Array, Array]:
        parameters = {"w": jnp.asarray(WALL_WEIGHT), "b": wall(WALL_WEIGHT) + offset}
        curvature = loss_curvature(loss, parameters, iterations=2)
        extreme = jnp.maximum(jnp.abs(curvature.largest[0]), jnp.abs(curvature.smallest[0]))
        return global_norm(jax.grad(loss)(parameters)), extreme

    gradient, curvature = jax.jit(jax.vmap(measured))(offsets)
    return xr.Dataset(
        {
            "gradient_norm": labelled("offset", gradient, "1 per unit weight", "gradient norm"),
            "curvature": labelled("offset", curvature, "1 per squared unit weight", "largest modulus of an eigenvalue"),
            "multiplier": labelled((), factor, "1", "slope of a step at the unstable fixed point"),
        },
        {"offset": labelled("offset", ACROSS_WALL, "widths", "offset from the wall")},
    )


def _paths(point: Point) -> xr.Dataset:
    loss = one_unit_loss(point.horizon)

    def path(threshold: Array, start: Parameters) -> tuple[Parameters, Array, Array]:
        """Return where it was, the loss and the gradient norm there, [updates + 1] each."""
        optimizer = optax.chain(clip_by_global_norm(threshold), optax.sgd(point.learning_rate))

        def update(carry, _):
            parameters, state = carry
            value, gradient = jax.value_and_grad(loss)(parameters)
            change, state = optimizer.update(gradient, state, parameters)
            return (optax.apply_updates(parameters, change), state), (parameters, value, global_norm(gradient))

        return jax.lax.scan(update, (start, optimizer.init(start)), length=point.updates + 1)[1]

    starts = [_start(seed) for seed in range(point.seeds)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    over_starts = jax.vmap(path, in_axes=(None, 0))
    thresholds = jnp.array([np.inf, point.clip_threshold])
    visited, losses, norms = jax.jit(jax.vmap(over_starts, in_axes=(0, None)))(thresholds, stacked)
    places = np.stack([visited["w"], visited["b"]])
    finite = np.isfinite(losses) & np.isfinite(norms)
    first = np.where(finite.all(axis=-1), -1, finite.argmin(axis=-1))
    axes = ("method", "seed", "update")
    return xr.Dataset(
        {
            "path": labelled(("parameter", *axes), places, "1", "parameters"),
            "loss": labelled(axes, losses, "1", "loss"),
            "path_gradient_norm": labelled(axes, norms, "1 per unit weight", "gradient norm before clipping"),
            "first_nonfinite_step": labelled(axes[:2], first, "updates", "update at which a path broke, -1 if none"),
        },
        {
            "method": labelled("method", list(METHODS), "1", "what is done to the gradient"),
            "parameter": labelled("parameter", ["w", "b"], "1", "parameter"),
            "seed": labelled("seed", np.arange(point.seeds), "1", "seed of the start"),
            "update": labelled("update", np.arange(point.updates + 1), "updates", "update"),
        },
    )


def _start(seed: int) -> Parameters:
    """Draw a start below the wall, where the state runs to the lower of the two stable fixed points."""
    random = np.random.default_rng(seed)
    weight = random.uniform(4.4, 5.4)
    return {"w": jnp.asarray(weight), "b": jnp.asarray(wall(weight) - random.uniform(0.1, 0.5))}
