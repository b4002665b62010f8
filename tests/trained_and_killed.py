"""A training with everything in it, to be killed: `python -m trained_and_killed FOLDER RESULT [kill-at]`."""

import os
import signal
import sys
from functools import cache

import jax
import numpy as np
import optax
from flax import nnx

from rnn_dynamics.cells import GRUCell
from rnn_dynamics.models import make_model
from rnn_dynamics.tasks import make_task
from rnn_dynamics.training import Checkpoints, Recipe, TrainingConfig, clip_by_global_norm, train
from rnn_dynamics.training.probes import RecurrentMatrix

STEPS = 60
PROBE = RecurrentMatrix(every=7)


def recipe(learning_rate, deviation):
    """Adam, clipping and weight noise: state of the optimiser, running counts and random numbers."""
    return Recipe(optax.chain(clip_by_global_norm(0.5), optax.adam(learning_rate)), weight_noise=deviation)


@cache  # one object, so that what is compiled for it is found again
def short_task():
    return make_task("delayed_xor", delay=1, length=10, train_size=100, test_size=32)


def trained(folder, watchers=()):
    """Train a tagger of delayed XOR, by windows, as far as it goes."""
    task = short_task()
    rngs = nnx.Rngs(0)
    model = make_model(task, GRUCell(1, 6, rngs=rngs), rngs=rngs)
    config = TrainingConfig(STEPS, 8, truncation=4, evaluate_every=15)
    checkpoints = None if folder is None else Checkpoints(folder, every=10)
    numbers = {"learning_rate": 0.01, "deviation": 0.05}
    options = {"probes": [PROBE], "checkpoints": checkpoints, "watchers": watchers}
    record = train(model, task, recipe, config, numbers=numbers, **options)
    return model, record


def contents(model, record):
    """Everything that a training ends with, by name."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    state = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}
    evaluations = {"evaluated": record.evaluated, "metric": record.metric}
    clipping = {f"clip_{name}": np.asarray(value) for name, value in vars(record.clipping).items()}
    return {**state, **record.series, **evaluations, **clipping, **record.probes.to_arrays()}


def main():
    folder, result, *kill_at = sys.argv[1:]

    def kill(news):
        if kill_at and news.made >= int(kill_at[0]):
            os.kill(os.getpid(), signal.SIGKILL)

    np.savez(result, **{name.replace("/", "|"): array for name, array in contents(*trained(folder, [kill])).items()})


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
