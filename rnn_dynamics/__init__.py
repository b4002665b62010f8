"""Gradient dynamics in recurrent networks: cells, layers, and what their state Jacobians do.

The parts are loaded when they are first used, so that reading results needs neither jax nor flax.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

_PARTS = (
    "arguments",
    "cells",
    "devices",
    "dynamics",
    "interop",
    "layers",
    "models",
    "results",
    "taps",
    "tasks",
    "theory",
    "training",
    "types",
)


def __getattr__(name: str) -> ModuleType:
    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; its parts are {', '.join(_PARTS)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PARTS])
