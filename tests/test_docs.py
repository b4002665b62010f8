"""The documentation runs: every Python block of README.md and docs/*.md, page by page; and knows all there is."""

import ast
import inspect
import os
import re
from pathlib import Path

import pytest
from networks import slow_but

from docs import cell_facts
from docs.step_costs import SIZES, cell_size, polynomial
from rnn_dynamics import dynamics
from rnn_dynamics.cells import CELLS
from rnn_dynamics.cells.activations import ACTIVATIONS
from rnn_dynamics.cells.initializers import RECURRENT_INITIALIZERS
from rnn_dynamics.tasks import TASKS
from rnn_dynamics.training import CLIPPINGS, PENALTIES
from rnn_dynamics.training.probes import PROBES

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_EXAMPLES = ROOT / "docs" / "PAPER_MAP.md"
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - {WITHOUT_EXAMPLES})]
QUANTITIES = ROOT / "docs" / "quantities.md"
ANY_NETWORK = ROOT / "docs" / "any_network.md"
TASKS_PAGE = ROOT / "docs" / "tasks.md"
TRAINING_PAGE = ROOT / "docs" / "training.md"


def code_of(page, framework=None):
    """Return all Python blocks of a page, or all of a framework, as one program, each line where it stands."""
    opening = "```python" if framework is None else f"```python {framework}"
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == opening
            line = "```"
        lines.append(line if inside and line != "```" else "")
    return "\n".join(lines)


@pytest.mark.usefixtures("allow_rank_promotion")  # as for a reader, who has not forbidden it
@pytest.mark.parametrize("page", slow_but(PAGES[:1], PAGES), ids=lambda page: page.name)
def test_examples_run(page):
    """What they say about their numbers is asserted in them."""
    code = code_of(page)
    assert code.strip()
    exec(compile(code, page, "exec"), {"__name__": page.stem})


@pytest.mark.usefixtures("allow_rank_promotion")
@pytest.mark.parametrize("framework", ["equinox", "haiku", "torch", "keras", "diffrax"])
def test_examples_of_frameworks_run(framework, monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
    pytest.importorskip(framework, reason=f"{framework} is not installed: pip install 'rnn_dynamics[frameworks]'")
    code = code_of(ANY_NETWORK, framework)
    assert code.strip()
    exec(compile(code, ANY_NETWORK, "exec"), {"__name__": framework})


def test_every_quantity_is_on_the_page():
    named = set(re.findall(r"`(\w+)", QUANTITIES.read_text(encoding="utf-8")))
    functions = {name for name in dynamics.__all__ if inspect.isfunction(getattr(dynamics, name))}
    assert len(functions) > 15
    assert functions <= named


def test_every_clipping_penalty_and_probe_is_on_the_page():
    named = set(re.findall(r"\b\w+\b", TRAINING_PAGE.read_text(encoding="utf-8")))
    assert set(CLIPPINGS) <= named
    assert {penalty.__name__ for penalty in PENALTIES.values()} | set(PROBES) <= named


def test_every_task_has_a_row_with_its_metric_and_defaults():
    rows = dict(re.findall(r"^\| `(\w+)`(.*)$", TASKS_PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(rows) == set(TASKS)
    for name, task in TASKS.items():
        assert f"| {task.metric_name} " in rows[name]
        written = dict(re.findall(r"`(\w+)=([^`]+)`", rows[name]))
        options = inspect.signature(task).parameters
        assert set(written) == {option for option in options if option not in ("data_dir", "options")}
        for option, default in written.items():
            assert ast.literal_eval(default) == options[option].default


def test_every_cell_has_a_section_and_counts_that_are_right():
    """Sizes, parameters, flops and slopes, as numbers and as formulas; `make docs` writes them."""
    page = cell_facts.PAGE.read_text(encoding="utf-8")
    assert set(CELLS) <= set(cell_facts.sections(page))
    assert cell_facts.with_counts(page) == page, "make docs"


@pytest.mark.parametrize(
    ("name", "parameters", "of_inputs", "of_state", "in_a_row", "elementwise"),
    [
        ("ElmanCell", "FH + H² + H", "2FH", "2H²", 1, "H + 2H"),  # the bias; a sum, a tanh
        ("LSTMCell", "4FH + 4H² + 4H", "8FH", "8H²", 1, "4H + 13H"),  # 4 sums, 3 sigmoids, 2 tanh, 3 products, a sum
        ("ChoGRUCell", "3FH + 3H² + 3H", "6FH", "6H²", 2, "3H + 11H"),  # its candidate waits for the reset gate
        ("ExpRNNCell", "FH + H² + H", "2FH", "2H²", 1, "0 + 8H"),  # exp(A) is not counted
    ],
)
def test_costs_counted_by_hand(name, parameters, of_inputs, of_state, in_a_row, elementwise):
    sizes = [cell_size(CELLS[name], *size) for size in SIZES]
    halves = [size.of_inputs for size in sizes], [size.of_state for size in sizes]
    assert polynomial([size.parameters for size in sizes]) == parameters
    assert [polynomial([cost.matmul_flops for cost in half]) for half in halves] == [of_inputs, of_state]
    assert {cost.matmuls_in_a_row for cost in halves[1]} == {in_a_row}
    assert " + ".join(polynomial([cost.elementwise for cost in half]) for half in halves) == elementwise


def test_measured_tables_have_all_rows():
    """What is measured takes too long to be made again here."""
    page = cell_facts.PAGE.read_text(encoding="utf-8")
    for table, names in [
        ("exponents", [f"[`{name}`](#" for name in CELLS]),
        ("matrices", [f"`{name}(" for name in RECURRENT_INITIALIZERS]),
        ("activations", [f"`{name}`" for name in ACTIVATIONS]),
    ]:
        rows = page.partition(f"<!-- {table}: make docs -->")[2].partition(f"<!-- end of {table} -->")[0]
        for name in names:
            assert f"\n| {name}" in rows, "make docs"
