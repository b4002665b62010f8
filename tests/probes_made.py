"""One probe of every kind, and the small models that they look at."""

from functools import cache

import jax.numpy as jnp
import numpy as np
from flax import nnx
from largest_so_far import FEATURES, TASK, classifier

from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.initializers import orthogonal
from rnn_dynamics.models import ManyToOne
from rnn_dynamics.training.probes import Adjoints, Curvature, Exponents, Gates, Reach, RecurrentMatrix

STREAMS, LONG = 3, 14
INPUTS = np.random.default_rng(1).normal(size=(STREAMS, LONG, FEATURES))
BATCH = next(TASK.batches("test", 6))


def task_loss(model, batch):
    return TASK.loss(model(batch.inputs, batch.lengths), batch.targets)


MADE = {
    "Exponents": Exponents(INPUTS, k=2, transient=2, tangent_transient=3),
    "Reach": Reach(INPUTS, max_lag=6, transient=2),
    "Adjoints": Adjoints(BATCH, task_loss),
    "Gates": Gates(INPUTS, transient=2),
    "RecurrentMatrix": RecurrentMatrix(),
    "Curvature": Curvature(BATCH, task_loss, iterations=20),
}


@cache
def model_of(seed):
    """One of an ensemble of LSTMs that classify."""
    return classifier("LSTMCell", seed=seed)


def linear_model(gain, hidden=4, dtype=jnp.float64):
    """h' = g Q h + W_x x + b."""
    cell = ElmanCell(
        FEATURES, hidden, activation="identity", recurrent_kernel_init=orthogonal(gain), param_dtype=dtype,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    return ManyToOne(cell, 2, rngs=nnx.Rngs(1))
