"""An experiment that takes no time, and the command and the bytes that tests of the runner compare."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from experiments import runner
from experiments.__main__ import main
from rnn_dynamics import results
from rnn_dynamics.results import CodeVersion, CorruptResult

EXPERIMENT = '''"""How far does a straight line go?

    python -m experiments line --preset laptop

Takes no time on two cores. Expect 3.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Config:
    slopes: tuple[float, ...] = (1.0, 2.0)
    """How steep the lines are."""
    steps: int = 3


PRESETS = {
    "smoke": Config(),
    "laptop": Config(slopes=(2, 1, 3)),
    "paper": Config(slopes=(1.0, 2.0, 3.0, 4.0)),
}
POINTS_RUN = []


@dataclass(frozen=True)
class Point:
    slope: float
    steps: int
    shape: str = "straight"


def grid(config):
    return [Point(slope, config.steps) for slope in config.slopes]


def run(point):
    POINTS_RUN.append(point)
    if point.slope <= 0:
        raise ValueError(f"slope must be positive, not {point.slope}")
    height = ("step", point.slope * np.arange(point.steps), {"units": "1", "long_name": "height"})
    return xr.Dataset({"height": height})
'''
LAPTOP_SLOPES = [2.0, 1.0, 3.0]


def imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Yield `questions.line`, freshly imported from a package written to a folder."""
    package = folder / "questions"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "runner.py").write_text("def run(): ...")
    (package / "line.py").write_text(EXPERIMENT)
    monkeypatch.syspath_prepend(package.parent)
    for name in ("questions", "questions.line"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    # The checkout may be edited while the tests run, and every byte of provenance is compared.
    monkeypatch.setattr(runner, "code_version", lambda: CodeVersion("test"))
    yield importlib.import_module("questions.line")
    for name in ("questions", "questions.line"):
        sys.modules.pop(name, None)


def command(*words: str | Path) -> int:
    return main([str(word) for word in words], package="questions")


def run(line, folder: Path, preset: str = "laptop") -> list[Path]:
    line.POINTS_RUN.clear()
    return runner.run(line, line.PRESETS[preset], results=folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that has to be bit for bit the same: the data and the manifests."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("line/**/*") if is_settled(p)}


def is_settled(path: Path) -> bool:
    return path.suffix == ".nc" or path.parent.name == "runs"


def is_whole(path: Path) -> bool:
    try:
        results.load(path)
    except CorruptResult:
        return False
    return True
