"""Who may import whom, and other rules of the house, checked on the syntax trees of the repository."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Who -> what of ours it may import. A leading dot stands for rnn_dynamics, a name for itself and all below it, and of
# two rows that fit a module the longer one counts. Everyone may import rnn_dynamics.discovery
# and rnn_dynamics.arguments.
MAY_IMPORT_OF_OURS = {
    ".__init__": ".",
    ".discovery": "",
    ".arguments": "",
    ".types": "",
    ".taps": "",
    ".results": "",
    ".devices": ".types",
    ".cells": ".cells .types",
    ".layers": ".layers .cells .taps .types",
    ".dynamics": ".dynamics .devices .taps .types",
    ".interop": ".interop .layers .cells .types",
    ".theory": ".theory .types .cells.activations",
    ".tasks": ".tasks .types",
    ".models": ".models .layers .cells .types",
    ".training": ".training .models .dynamics .taps .types",
    "experiments": ". experiments.runner",
    "experiments.runner": ". experiments",
    "experiments.shares": ". experiments",
    "experiments.processes": ". experiments",
    "experiments.__init__": ". experiments",
    "experiments.__main__": ". experiments",
    "analysis": ".results analysis",
    "paper_figures": "paper_figures",
    "benchmarks": ". benchmarks",
    "docs": ". docs",
}

# Who -> the only packages, besides ours and Python's own, that it may import; those not named here may import any.
MAY_IMPORT_OF_OTHERS = {
    ".discovery": "",
    ".results": "numpy xarray h5netcdf h5py filelock",
    "analysis": "numpy scipy xarray pandas rich tyro",
    "paper_figures": "numpy matplotlib pandas",
}

HEAVY = {"orbax", "tensorflow_datasets", "tensorflow", "grain", "scipy", "sklearn"}
HEAVY |= {"xarray", "pandas", "matplotlib", "tyro"}
HEAVY |= {"torch", "keras", "equinox", "haiku", "diffrax"}
ACCELERATED = {"jax", "jaxlib", "flax"}

OURS = ("rnn_dynamics", "experiments", "analysis", "paper_figures", "benchmarks", "docs")
EVERYONE_MAY = {"rnn_dynamics.discovery", "rnn_dynamics.arguments"}
SAYING_NOTHING = {"utils", "util", "misc", "helpers", "helper", "common"}
DYNAMIC_IMPORTS = {"import_module", "__import__", "discover"}
TEXT = {"", ".py", ".pyi", ".md", ".txt", ".toml", ".cfg", ".ini", ".yaml", ".yml", ".json", ".csv", ".cff", ".sh"}
NOT_SOURCE = {"results", "figures", "build", "dist", "__pycache__"}
HOME = re.compile(r"(?<![\w.~])/(home/|Users/)\w|(?<![\w.~/])/root/\w|[A-Z]:\\Users\\", re.ASCII)


def full(name: str) -> str:
    """Write a name of the tables out."""
    return ("rnn_dynamics" + name).rstrip(".") if name.startswith(".") else name


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def row_of(module: str, table: dict[str, str]) -> tuple[str, ...] | None:
    """Return what the row that fits a module allows it, None where no row does."""
    fitting = [who for who in table if within(module, full(who))]
    return tuple(full(name) for name in table[max(fitting, key=len)].split()) if fitting else None


def files(root: Path) -> Iterator[Path]:
    """Find every file of the source: hidden folders are left out but for the two that hold the CI's files."""
    for path in sorted(root.iterdir()):
        if not path.is_dir():
            yield path
        elif path.name in {".ci", ".github"} or not (
            path.name.startswith(".") or path.name.endswith(".egg-info") or path.name in NOT_SOURCE
        ):
            yield from files(path)


def modules(root: Path) -> dict[str, ast.Module]:
    """Parse our packages: dotted name (a package's own is `package.__init__`) -> syntax tree."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text("utf-8"), str(path))
        for package in OURS
        if (root / package).is_dir()
        for path in files(root / package)
        if path.suffix == ".py"
    }


def imports(module: str, tree: ast.Module, known: set[str]) -> Iterator[tuple[int, str]]:
    """List (line, dotted name) of every import in a module, those in functions and those by a literal name too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield node.lineno, inner if inner in known else source
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if called in DYNAMIC_IMPORTS and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def forbidden_imports(root: Path) -> list[str]:
    trees = modules(root)
    known = set(trees) | {module.removesuffix(".__init__") for module in trees}
    found = []
    for module, tree in trees.items():
        of_ours = row_of(module, MAY_IMPORT_OF_OURS)
        of_others = row_of(module, MAY_IMPORT_OF_OTHERS)
        if of_ours is None:
            found.append(f"{module} has no row in the table")
            continue
        for line, name in imports(module, tree, known):
            top = name.partition(".")[0]
            if top in OURS:
                allowed = name in EVERYONE_MAY or any(within(name, package) for package in of_ours)
            else:
                allowed = of_others is None or top in sys.stdlib_module_names or top in of_others
            if not allowed:
                found.append(f"{module}:{line} imports {name}")
    return found


def names_that_say_nothing(root: Path) -> list[str]:
    return [
        str(path.relative_to(root))
        for path in files(root)
        if SAYING_NOTHING & {part.strip("_").lower() for part in path.relative_to(root).with_suffix("").parts}
    ]


def missing_docstrings(root: Path) -> list[str]:
    return [f"{module} has no docstring" for module, tree in modules(root).items() if not ast.get_docstring(tree)]


def homes(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{number} names a home directory"
        for path in files(root)
        if path.suffix in TEXT
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1)
        if HOME.search(line)
    ]


def postponed_annotations(root: Path) -> list[str]:
    """Find the import that turns annotations into strings, which jaxtyping cannot check."""
    return [
        f"{module}:{node.lineno} imports annotations from __future__"
        for module, tree in modules(root).items()
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if any(alias.name == "annotations" for alias in node.names)
    ]


RULES = (forbidden_imports, names_that_say_nothing, missing_docstrings, homes, postponed_annotations)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_repository_keeps(rule):
    assert modules(ROOT), "nothing was looked at"
    assert rule(ROOT) == []


# What each violation is written as, and what the rule must say of it.
VIOLATIONS = {
    "cells_import_training": ("rnn_dynamics/cells/a.py", '"""A."""\nimport rnn_dynamics.training.loop', "a:2 imports"),
    "as_attribute": ("rnn_dynamics/cells/a.py", '"""A."""\nfrom rnn_dynamics import tasks', "a:2 imports"),
    "through_the_root": ("rnn_dynamics/dynamics/a.py", '"""A."""\nimport rnn_dynamics', "a:2 imports"),
    "relative": ("rnn_dynamics/tasks/a.py", '"""A."""\nfrom ..layers import x', "a:2 imports rnn_dynamics.layers"),
    "relative_from_package": ("rnn_dynamics/cells/__init__.py", '"""A."""\nfrom .. import tasks', "imports"),
    "in_function": ("rnn_dynamics/types.py", '"""A."""\ndef f():\n    import rnn_dynamics.taps', "types:3 imports"),
    "by_name": (
        "rnn_dynamics/training/a.py",
        '"""A."""\nimportlib.import_module("rnn_dynamics.tasks.a")',
        "a:2 imports",
    ),
    "discovered": ("rnn_dynamics/training/a.py", '"""A."""\ndiscover("rnn_dynamics.tasks", f)', "a:2 imports"),
    "discovery_imports": ("rnn_dynamics/discovery.py", '"""A."""\nimport rnn_dynamics.types', "discovery:2 imports"),
    "more_than_activations": ("rnn_dynamics/theory/a.py", '"""A."""\nfrom rnn_dynamics.cells import x', "a:2 imports"),
    "other_experiment": ("experiments/a.py", '"""A."""\nfrom experiments import b', "a:2 imports experiments"),
    "analysis_of_library": ("analysis/a.py", '"""A."""\nimport rnn_dynamics.dynamics', "a:2 imports"),
    "analysis_with_jax": ("analysis/a.py", '"""A."""\nimport jax.numpy as jnp', "a:2 imports jax.numpy"),
    "results_with_jax": ("rnn_dynamics/results.py", '"""A."""\nfrom jax import tree', "results:2 imports jax"),
    "figure_of_results": ("paper_figures/a.py", '"""A."""\nimport rnn_dynamics.results', "a:2 imports"),
    "figure_computes": ("paper_figures/a.py", '"""A."""\nfrom scipy import stats', "a:2 imports scipy"),
    "no_row": ("rnn_dynamics/novelty.py", '"""A."""', "rnn_dynamics.novelty has no row"),
    "file_name": ("experiments/utils.py", '"""A."""', "experiments/utils.py"),
    "folder_name": ("rnn_dynamics/cells/_helpers/a.py", '"""A."""', "_helpers/a.py"),
    "docstring": ("rnn_dynamics/cells/__init__.py", "", "rnn_dynamics.cells.__init__ has no docstring"),
    "home": ("README.md", "\n`cd /ho" + "me/someone/project`", "README.md:2 names"),
    "future": ("analysis/a.py", '"""A."""\nfrom __future__ import annotations', "a:2 imports annotations"),
}


@pytest.mark.parametrize(("path", "text", "says"), VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_violation_is_caught(tmp_path, path, text, says):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text, "utf-8")

    found = [violation for rule in RULES for violation in rule(tmp_path)]

    assert len(found) == 1
    assert says in found[0]


def test_what_is_allowed_is_not_reported(tmp_path):
    sources = {
        "rnn_dynamics/cells/__init__.py": "from .base import Cell\nfrom rnn_dynamics.discovery import discover",
        "rnn_dynamics/cells/base.py": "from ..types import Carry\nfrom flax import nnx",
        "rnn_dynamics/theory/mean_field.py": "from rnn_dynamics.cells.activations import tanh\nimport scipy.special",
        "rnn_dynamics/results.py": "import json\nimport xarray as xr",
        "experiments/runner.py": "import jax\ndiscover('experiments', bool)",
        "experiments/question.py": "from experiments import runner\nfrom rnn_dynamics.tasks import make_task",
        "analysis/question.py": "from rnn_dynamics import results\nfrom analysis import bootstrap\nimport numpy as np",
        "analysis/bootstrap.py": "import pandas",
        "paper_figures/question.py": "import csv\nfrom matplotlib.figure import Figure\nfrom . import style",
        "paper_figures/style.py": "'https://example.org/home/page, ~/results'",
    }
    for path, text in sources.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f'"""What it holds."""\n{text}\n', "utf-8")

    assert [violation for rule in RULES for violation in rule(tmp_path)] == []


def loaded_by(*packages: str) -> set[str]:
    """Import packages, and all their modules, in a fresh Python; say which top-level modules that loaded."""
    script = (
        "import importlib, pkgutil, sys\n"
        "for name in sys.argv[1:]:\n"
        "    package = importlib.import_module(name)\n"
        "    for info in pkgutil.iter_modules(getattr(package, '__path__', ())):\n"
        "        if name != 'rnn_dynamics' and info.name != '__main__':\n"
        "            importlib.import_module(f'{name}.{info.name}')\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    command = [sys.executable, "-c", script, *packages]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.partition("LOADED")[2].split())


@pytest.mark.parametrize(
    ("packages", "unwanted"),
    [
        (["rnn_dynamics"], HEAVY),
        (["rnn_dynamics.cells", "rnn_dynamics.layers", "rnn_dynamics.dynamics", "rnn_dynamics.interop"], HEAVY),
        (["rnn_dynamics.results"], ACCELERATED),
        (["analysis"], ACCELERATED),
        (["paper_figures"], ACCELERATED | {"xarray", "scipy"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_import_is_light(packages, unwanted):
    assert loaded_by(*packages) & unwanted == set()
