"""The probes to take where nothing else is asked for."""

import numpy as np
from flax import nnx

from rnn_dynamics.training.probes.adjoints import Adjoints
from rnn_dynamics.training.probes.exponents import Exponents
from rnn_dynamics.training.probes.gates import Gates
from rnn_dynamics.training.probes.probe import Probe
from rnn_dynamics.training.probes.reach import Reach
from rnn_dynamics.training.probes.recurrent_matrix import RecurrentMatrix
from rnn_dynamics.training.recipe import TaskLoss
from rnn_dynamics.types import Batch, Task

STREAMS = 4
"""Examples whose inputs drive the network, those of the batch that are longest: as few as have a standard error that
says something, for the exponents and the reach cost most."""

EXAMPLES = 16
"""Examples of the batch for the adjoints."""


def standard_probes(model: nnx.Module, task: Task, *, seed: int, every: int = Probe.every) -> tuple[Probe, ...]:
    """Make probes of exponents, reach, adjoints, recurrent weights and gates, of examples to test on.

    Together they take some percent of the time of the training between them. They look at one batch of 16 examples,
    always the same. Exponents (k = 2), reach and gates are those of the network that is driven by the 4 longest of
    them, from its initial carry on and as far as the shortest of these 4 goes. The reach is looked for over all of
    these steps but the first quarter, and the tangents align during that quarter.

    Args:
        model: which decides what is left out: a probe whose `check` does not let it pass, such as that of the gates for
            a cell without.
        task: gives the examples, of its split "test", and the loss.
        seed: of which examples.
        every: updates between two measurements.

    Returns:
        The probes.

    Raises:
        ValueError: less than one update between two measurements.
    """
    batch = next(iter(task.batches("test", EXAMPLES, seed=seed, epochs=None)))
    inputs = _longest_streams(batch)
    quarter = inputs.shape[1] // 4
    probes = (
        Exponents(inputs, k=2, tangent_transient=quarter, every=every),
        Reach(inputs, max_lag=inputs.shape[1] - quarter, transient=quarter, every=every),
        Adjoints(batch, TaskLoss(task.loss), every=every),
        RecurrentMatrix(every=every),
        Gates(inputs, transient=quarter, every=every),
    )
    return tuple(probe for probe in probes if _suits(probe, model))


def _longest_streams(batch: Batch) -> np.ndarray:
    lengths = np.asarray(batch.lengths)
    longest = np.argsort(-lengths, kind="stable")[:STREAMS]
    return np.asarray(batch.inputs)[longest, : lengths[longest].min()]


def _suits(probe: Probe, model: nnx.Module) -> bool:
    try:
        probe.check(model)
    except ValueError:
        return False
    return True
