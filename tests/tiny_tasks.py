"""Sizes at which generated tasks are cheap to draw, for the tests over all of them."""

from rnn_dynamics.tasks import TASKS
from rnn_dynamics.tasks.generated import GeneratedTask

GENERATED = {name for name, task in TASKS.items() if issubclass(task, GeneratedTask)}

TINY = {
    "adding": {"length": 7},
    "multiplication": {"length": 7},
    "temporal_order": {"length": 20},
    "random_permutation": {"length": 4},
    "noiseless_memorization": {"delay": 2},
    "memorization_20_bit": {"delay": 2},
    "copying_memory": {"delay": 2},
    "delayed_xor": {"delay": 2, "length": 9},
    "parity": {"length": 4},
    "delayed_recall": {"lag": 3, "noise": 0.5},
}
VARIANTS = [(name, TINY.get(name, {})) for name in sorted(GENERATED)]
VARIANTS.append(("temporal_order", {"length": 20, "symbols": 3}))


def variant_name(variant):
    name, options = variant
    return "-".join([name, *map(str, options.values())])
