"""What to measure while a network learns: one file per probe.

`PROBES` lists every probe by name, found by looking at the modules of this package.
"""

import inspect

from rnn_dynamics.discovery import discover
from rnn_dynamics.training.probes.adjoints import Adjoints
from rnn_dynamics.training.probes.curvature import Curvature
from rnn_dynamics.training.probes.exponents import Exponents
from rnn_dynamics.training.probes.gates import Gates
from rnn_dynamics.training.probes.probe import Coordinate, Label, Probe
from rnn_dynamics.training.probes.reach import Reach
from rnn_dynamics.training.probes.recurrent_matrix import RecurrentMatrix
from rnn_dynamics.training.probes.standard import standard_probes

PROBES: dict[str, type[Probe]] = discover(
    __name__, lambda item: inspect.isclass(item) and issubclass(item, Probe) and not inspect.isabstract(item)
)
globals().update(PROBES)  # a new file's probe can be imported from here too; those named above also by static tools

__all__ = [
    "PROBES",
    "Adjoints",
    "Coordinate",
    "Curvature",
    "Exponents",
    "Gates",
    "Label",
    "Probe",
    "Reach",
    "RecurrentMatrix",
    "standard_probes",
]
