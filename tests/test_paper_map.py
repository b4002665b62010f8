"""The table from papers to functions and tests: what it names is there, and nothing public is missing from it."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from rnn_dynamics import dynamics, theory

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "PAPER_MAP.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| paper |")
]


def quoted(cell):
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def found(dotted):
    """Follow a dotted name: what a package holds comes before its module of the same name."""
    first, *others = dotted.split(".")
    item, path = importlib.import_module(first), first
    for name in others:
        path = f"{path}.{name}"
        item = getattr(item, name) if hasattr(item, name) else importlib.import_module(path)
    return item


def names_of_tests(path):
    """Read the names of a file's tests off its syntax tree."""
    return {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}


def test_every_row_has_a_paper_names_and_tests():
    assert len(ROWS) > 30
    for row in ROWS:
        paper, what, names, tests = row
        assert paper
        assert what
        assert quoted(names)
        assert quoted(tests)


@pytest.mark.parametrize("name", sorted({name for row in ROWS for name in quoted(row[2])}))
def test_every_name_exists(name):
    assert name.startswith("rnn_dynamics.")
    assert callable(found(name))


def test_every_test_exists():
    named = {test for row in ROWS for test in quoted(row[3])}
    missing = []
    for test in named:
        path, _, function = test.partition("::")
        if not (ROOT / path).is_file() or function not in names_of_tests(ROOT / path):
            missing.append(test)
    assert missing == []


@pytest.mark.parametrize("package", [dynamics, theory], ids=lambda package: package.__name__)
def test_every_public_name_has_a_row(package):
    named = {name for row in ROWS for name in quoted(row[2])}
    assert {f"{package.__name__}.{name}" for name in package.__all__} <= named


def test_what_is_not_there_is_noticed():
    with pytest.raises(ModuleNotFoundError):
        found("rnn_dynamics.theory.no_such_name")
