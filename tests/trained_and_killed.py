"""A training with everything in it, to be killed: `python -m trained_and_killed FOLDER [RESULT]`.

Without a RESULT the disk is full after a while.
"""

import resource
import signal
import sys
import time
from functools import cache
from pathlib import Path

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


def on_a_disk_that_fills(folder):
    """Train; once the second checkpoint is there no file can grow: the system's limit stands for a full disk."""

    def fill(news):
        if news.made > 20:
            while not (Path(folder) / "20").exists():
                time.sleep(0.01)
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        trained(folder, [fill])
    except OSError as error:
        print(type(error).__name__, error)


def main(folder, result=None):
    if result is None:
        on_a_disk_that_fills(folder)
    else:
        arrays = contents(*trained(folder))
        np.savez(result, **{name.replace("/", "|"): array for name, array in arrays.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
