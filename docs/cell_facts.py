"""Write the numbers into docs/cells.md: `make docs`, a minute or two on two cores.

The page's sections, headings `### NAME` of cells, say in which order. Below each stands a line of what is counted; the
tables stand between comments. All that is counted is checked by the tests; what is measured is not, for that takes
the time.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from docs.measured_at_start import RESOLVED, WIDTH, Measured, exponents_at_start, matrix_spectrum
from docs.step_costs import SIZES, CellSize, cell_size, polynomial
from rnn_dynamics.cells import CELLS, gate_biases
from rnn_dynamics.cells.activations import ACTIVATIONS
from rnn_dynamics.cells.initializers import RECURRENT_INITIALIZERS

PAGE = Path(__file__).with_name("cells.md")
AT = "at F = {}, H = {}".format(*SIZES[-1])
MOST_DECIMALS = 5
HEADING = re.compile(r"^### `(\w+)`\n", re.MULTILINE)


def sections(page: str) -> list[str]:
    """List the names of the cells that a page has sections of, in its order."""
    return HEADING.findall(page)


def with_counts(page: str) -> str:
    """Write all that is counted: the table of cells, the line below each heading, and the table of activations.

    Args:
        page: text of the page.

    Returns:
        The text with them; unchanged if they were right.
    """
    names = [name for name in sections(page) if name in CELLS]
    lines = {name: _Counts(name) for name in names}
    page = _with_table(page, "cells", _Counts.columns, [counts.row() for counts in lines.values()])
    page = _with_table(page, "activations", *_activations())

    def with_line(heading: re.Match[str]) -> str:
        counts = lines.get(heading[1])
        return f"### `{heading[1]}`\n" + (f"\n> {counts.line()}\n" if counts else "")

    return re.sub(HEADING.pattern + r"(?:\n> .*\n)?", with_line, page, flags=re.MULTILINE)


def with_measurements(page: str) -> str:
    """Write all that is measured: the tables of exponents, and of weights and biases.

    Args:
        page: text of the page.

    Returns:
        The text with them.
    """
    names = [name for name in sections(page) if name in CELLS]
    measured = exponents_at_start(CELLS[name] for name in names)
    rows = [
        [_link(name), _shown(found.largest), _steps_per_e(found.largest), _shown(found.mean)]
        for name, found in ((name, measured[name]) for name in names)
    ]
    page = _with_table(page, "exponents", ["cell", "λ₁", "steps per e", "mean of all N"], rows)
    return _with_table(page, "matrices", *_matrices())


class _Counts:
    """What is counted of one cell, as numbers and as polynomials in F and H."""

    columns: Sequence[str] = (
        *("cell", "N", "parameters", AT),
        *("matmul flops of the input", "of the state", "in a row", "elementwise"),
    )

    def __init__(self, name: str):
        self.name = name
        self.sizes = [cell_size(CELLS[name], *size) for size in SIZES]
        self.size = self.sizes[-1]

    def formula(self, number: Callable[[CellSize], int]) -> str:
        return polynomial([number(size) for size in self.sizes])

    def row(self) -> list[str]:
        return [
            _link(self.name),
            self.formula(lambda size: size.state),
            self.formula(lambda size: size.parameters),
            f"{self.size.parameters:,}",
            self.formula(lambda size: size.of_inputs.matmul_flops),
            self.formula(lambda size: size.of_state.matmul_flops),
            str(self.size.of_state.matmuls_in_a_row),
            self.formula(_elementwise),
        ]

    def line(self) -> str:
        flops = self.size.of_inputs.matmul_flops + self.size.of_state.matmul_flops
        return (
            f"{AT}: N = {self.formula(lambda size: size.state)} = {self.size.state:,}, "
            f"{self.size.carry_bytes:,} bytes · "
            f"{self.formula(lambda size: size.parameters)} = {self.size.parameters:,} parameters · "
            f"{flops:,} flops in matmuls, {self.size.of_state.matmuls_in_a_row} in a row · "
            f"{self.formula(_elementwise)} = {_elementwise(self.size):,} elementwise operations"
        )


def _elementwise(size: CellSize) -> int:
    return size.of_inputs.elementwise + size.of_state.elementwise


def _activations() -> tuple[Sequence[str], list[list[str]]]:
    columns = ("name", "sup of \\|φ'\\|", "φ'(0)", "gradients must vanish if ‖W‖₂ <", "paper")
    return columns, [
        [f"`{name}`", f"{a.max_slope:.4g}", f"{a.slope_at_zero:.4g}", f"{1 / a.max_slope:.4g}", a.reference]
        for name, a in ACTIVATIONS.items()
    ]


def _matrices() -> tuple[Sequence[str], list[list[str]]]:
    """Decompose W_h of every initialiser at gain 1, and the diagonal of a gate of every law of biases."""
    laws: dict[str, tuple[Any, str]] = {
        "bias 0.0": (0.0, "Every unit keeps half."),
        "bias 1.0": (1.0, "Every unit keeps 0.73 (Jozefowicz, Zaremba and Sutskever 2015)."),
        "uniform(0.0, 5.0)": (gate_biases.uniform(0.0, 5.0), _first_sentence(gate_biases.uniform)),
        "uniform_gate()": (gate_biases.uniform_gate(), _first_sentence(gate_biases.uniform_gate)),
        "chrono(784.0)": (gate_biases.chrono(784.0), _first_sentence(gate_biases.chrono)),
    }

    def weights(init: Callable[..., Array]) -> Callable[[Array], Array]:
        return lambda key: init(key, (WIDTH, WIDTH), jnp.float64)

    def gate(bias: Any) -> Callable[[Array], Array]:
        law = bias if isinstance(bias, gate_biases.GateBiasLaw) else gate_biases.uniform(bias, bias)
        return lambda key: jnp.diag(jax.nn.sigmoid(law.draw(key, (WIDTH,), jnp.float64)))

    drawn = [
        (f"{name}(1.0)", weights(init(1.0)), _first_sentence(init)) for name, init in RECURRENT_INITIALIZERS.items()
    ]
    drawn += [(name, gate(bias), sentence) for name, (bias, sentence) in laws.items()]
    rows = []
    for name, draw, sentence in drawn:
        spectrum = matrix_spectrum(draw)
        rows.append([f"`{name}`", *map(_shown, (spectrum.radius, spectrum.norm, spectrum.mean_log)), sentence])
    return ("", "largest modulus", "‖J‖₂", "mean ln σ", "what it is"), rows


def _first_sentence(item: Any) -> str:
    """Return what a docstring begins with, in the words of a table."""
    return (inspect.getdoc(item) or "").splitlines()[0].replace("|", "\\|").replace("*", "\\*")


def _link(name: str) -> str:
    return f"[`{name}`](#{name.lower()})"


def _shown(measured: Measured) -> str:
    """Write a number to three digits or to the first of its error, on which machines and versions agree."""
    if np.isnan(measured.value):
        return "not resolved"
    if np.isinf(measured.value):
        return "-∞"
    value, error = (round(number, MOST_DECIMALS) for number in (measured.value, measured.standard_error))
    if value == 0:
        return "0"
    decimals = max(2 - math.floor(math.log10(abs(value))), -math.floor(math.log10(error)) if error else 0)
    decimals = min(decimals, MOST_DECIMALS)
    return f"{value:.{decimals}f}" + (f" ± {error:.{decimals}f}" if error else "")


def _steps_per_e(exponent: Measured) -> str:
    """Say in how many steps a gradient falls by a factor e in the long run, if it does beyond two standard errors."""
    if exponent.value + 2 * exponent.standard_error > -RESOLVED:
        return "—"
    return f"{float(f'{-1 / exponent.value:.2g}'):g}"


def _with_table(page: str, name: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Put a table between the comments of its name.

    Raises:
        ValueError: a page without them.
    """
    begin, end = f"<!-- {name}: make docs -->\n", f"<!-- end of {name} -->\n"
    if begin not in page or end not in page:
        raise ValueError(f"page must have the lines {begin.strip()!r} and {end.strip()!r}, got neither or one")
    lines = [columns, ["---"] * len(columns), *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    before, _, rest = page.partition(begin)
    return before + begin + "\n" + table + "\n" + end + rest.partition(end)[2]


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    PAGE.write_text(with_measurements(with_counts(PAGE.read_text(encoding="utf-8"))), encoding="utf-8")
