"""What does training do to the Jacobians of plain and gated networks?

    python -m experiments before_and_after_training --preset laptop

Elman (tanh, relu), LSTM and GRU learn to read 8x8 handwritten digits pixel by pixel (64 steps, chance 10 %). Before and
after, each is driven by test images one after the other, with the grey levels that it is trained on, and the growth of
its Jacobian products, its Lyapunov spectrum and the norm of its gradients against the lag are measured in float64, and
the loss gradient at every time step beside them.

Time on two cores: 1 to 2 minutes (laptop), 20 s (smoke). To expect: test accuracies of 75 to 87 %; training moves
lambda_1 from between -0.3 and -0.08 nats per step to within 0.03 of 0, and the reach from 2 to 4 steps to 30 and more.
"""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.cells import make_cell, parse_cell_name
from rnn_dynamics.dynamics import DrivenSystem, gradient_norm_by_lag, jacobian_product, loss_adjoints, lyapunov_spectrum
from rnn_dynamics.models import SequenceModel, make_model
from rnn_dynamics.results import labelled
from rnn_dynamics.tasks import make_task
from rnn_dynamics.tasks.streams import input_stream
from rnn_dynamics.training import TrainingBroke, TrainingConfig, clipped_adam, evaluate, train
from rnn_dynamics.types import Batch, Task

HORIZONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STARTS = 8
"""Images from whose start a Jacobian product is followed."""

MAX_LAG = 256
PROBE_IMAGES = 256
TRANSIENT = 64
"""One image: the state has then forgotten that it started from zero."""


@dataclass(frozen=True)
class Config:
    """What to compare.

    Attributes:
        networks: "elman-ACTIVATION", or the short name of a cell.
        seeds: of initial weights and of the order of the images.
        hidden: H.
        training_steps: updates.
        batch_size: images per update.
        learning_rate: of Adam.
        clip_threshold: global norm above which gradients are shortened.
        measured_steps: length of the stream behind exponents and gradient norms.
    """

    networks: tuple[str, ...] = ("elman-tanh", "elman-relu", "lstm", "gru")
    seeds: tuple[int, ...] = (0, 1, 2)
    hidden: int = 32
    training_steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 3e-3
    clip_threshold: float = 5.0
    measured_steps: int = 4096


PRESETS = {
    "smoke": Config(networks=("elman-tanh", "lstm"), seeds=(0,), hidden=8, training_steps=20, measured_steps=600),
    "laptop": Config(),
    "paper": Config(seeds=tuple(range(10)), hidden=128, training_steps=5000, measured_steps=40_000),
}


@dataclass(frozen=True)
class Point:
    """One network, trained once; the fields are those of `Config`, one of each."""

    network: str
    seed: int
    hidden: int
    training_steps: int
    batch_size: int
    learning_rate: float
    clip_threshold: float
    measured_steps: int


def grid(config: Config) -> list[Point]:
    """List every network with every seed.

    Raises:
        ValueError: an unknown network, or a number out of range.
    """
    for network in config.networks:
        parse_cell_name(network)
    for name, least in (("hidden", 1), ("training_steps", 1), ("batch_size", 1), ("measured_steps", MAX_LAG)):
        whole_number(name, getattr(config, name), least=least)
    TrainingConfig(config.training_steps, config.batch_size)
    clipped_adam(config.learning_rate, config.clip_threshold)
    shared = (
        config.hidden,
        config.training_steps,
        config.batch_size,
        config.learning_rate,
        config.clip_threshold,
        config.measured_steps,
    )
    return [Point(network, seed, *shared) for network in config.networks for seed in config.seeds]


def run(point: Point) -> xr.Dataset:
    """Measure a network, train it, and measure it again; after a training that broke everything is NaN."""
    task = _digits()
    rngs = nnx.Rngs(point.seed)
    model = make_model(task, make_cell(point.network, 1, point.hidden, rngs=rngs), rngs=rngs)
    before = _measure(model, task, point)
    config = TrainingConfig(point.training_steps, point.batch_size, point.seed)
    numbers = {"learning_rate": point.learning_rate, "clip_threshold": point.clip_threshold}
    try:
        record, broken_update = train(model, task, clipped_adam, config, numbers=numbers), -1
        after = _measure(model, task, point)
    except TrainingBroke as broke:
        record, broken_update = broke.record, broke.step
        after = xr.full_like(before, np.nan, dtype=np.float64)  # there is no trained network
    assert record.clipping is not None
    stages = xr.concat([before, after], xr.Variable("stage", ["before", "after"]))
    not_made = (0, point.training_steps - len(record.loss))
    loss, norm = (np.pad(x, not_made, constant_values=np.nan) for x in (record.loss, record.gradient_norm))
    return stages.assign(
        training_loss=labelled("update", loss, "nats", "training loss"),
        gradient_norm=labelled("update", norm, "nats per unit weight", "global gradient norm"),
        broken_update=labelled((), broken_update, "updates", "update at which the training broke, -1 if none"),
        clip_share=labelled((), record.clipping.share, "1", "share of clipped updates"),
        clip_factor=labelled((), record.clipping.mean_factor, "1", "mean factor of clipped updates"),
        chance_level=labelled((), task.chance_level, "1", "accuracy of the most frequent class"),
    ).assign_coords(
        stage=labelled("stage", ["before", "after"], "1", "stage of training"),
        update=labelled("update", np.arange(point.training_steps), "updates", "training update"),
    )


@cache
def _digits() -> Task:
    return make_task("sequential_digits")


def _example_losses(model: SequenceModel, batch: Batch) -> jax.Array:
    return _digits().loss(model(batch.inputs, batch.lengths), batch.targets)


def _measure(model: SequenceModel, task: Task, point: Point) -> xr.Dataset:
    system = DrivenSystem.from_cell(model.cell, dtype=jnp.float64)
    stream = input_stream(task, point.measured_steps + TRANSIENT, seed=point.seed)
    starts = np.stack([input_stream(task, TRANSIENT + HORIZONS[-1], seed=1000 + start) for start in range(STARTS)])
    products = jax.vmap(lambda s: jacobian_product(system, s, horizons=HORIZONS, transient=TRANSIENT))(starts)
    spectrum = lyapunov_spectrum(system, stream, transient=TRANSIENT, tangent_transient=TRANSIENT)
    by_lag = gradient_norm_by_lag(system, stream, max_lag=MAX_LAG, transient=TRANSIENT)
    probe = next(iter(task.batches("test", PROBE_IMAGES)))
    adjoints = loss_adjoints(model, _example_losses, probe)
    at_steps = np.median(np.asarray(adjoints.layers["recurrence"].state_norm), axis=1)
    nats, rate = "nats", "nats per step"
    return xr.Dataset(
        {
            "accuracy": labelled((), evaluate(model, task), "1", "test accuracy"),
            "log_singular_values": labelled(
                ("start", "horizon", "index"), products.log_singular_values, nats, "ln singular values of the product"
            ),
            "exponent": labelled("index", spectrum.exponents, rate, "Lyapunov exponent"),
            "exponent_error": labelled("index", spectrum.standard_error, rate, "standard error of the exponent"),
            "log_det_residual": labelled((), spectrum.log_det_residual, rate, "determinant check"),
            "log_gradient_norm": labelled("lag", by_lag.log_norm, nats, "ln norm of the gradient by the lag"),
            "log_gradient_norm_error": labelled("lag", by_lag.standard_error, nats, "its standard error"),
            "reach": labelled((), by_lag.reach, "steps", "gradient reach"),
            "reach_error": labelled((), by_lag.reach_standard_error, "steps", "standard error of the reach"),
            "loss_gradient_norm": labelled(
                "time", at_steps, "nats per unit state", "median norm of the loss gradient by the state"
            ),
            "first_nonfinite_step": labelled((), spectrum.first_nonfinite_step, "steps", "first non-finite step"),
        },
        {
            "horizon": labelled("horizon", list(HORIZONS), "steps", "horizon"),
            "start": labelled("start", np.arange(STARTS), "1", "number of the start"),
            "index": labelled("index", np.arange(system.state_size), "1", "index of the direction"),
            "lag": labelled("lag", np.arange(MAX_LAG + 1), "steps", "lag"),
            "time": labelled("time", 1 + np.arange(len(at_steps)), "steps", "time step"),
        },
    )
