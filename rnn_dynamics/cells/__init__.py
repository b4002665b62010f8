"""What happens in one step: a collection of recurrent cells, one file per family.

`CELLS` lists every cell by name, found by looking at the modules of this package.
"""

import inspect
from typing import Any

from rnn_dynamics.cells.activations import find_activation
from rnn_dynamics.cells.base import Cell, PackedCell
from rnn_dynamics.cells.elman import ElmanCell
from rnn_dynamics.cells.gru import GRUCell
from rnn_dynamics.cells.lstm import LSTMCell
from rnn_dynamics.discovery import discover, unknown_name

CELLS: dict[str, type[Cell]] = discover(
    __name__, lambda item: inspect.isclass(item) and issubclass(item, Cell) and not inspect.isabstract(item)
)
globals().update(CELLS)  # a new file's cell can be imported from here too; those named above also by static tools


def find_cell(name: str) -> type[Cell]:
    """Look a cell up.

    Args:
        name: one of `CELLS`, e.g. "LSTMCell"; "lstm" does as well.

    Returns:
        The class.

    Raises:
        ValueError: if there is none of that name.
    """
    by_short_name = {full.removesuffix("Cell").lower(): cell for full, cell in CELLS.items()}
    if name not in CELLS and name not in by_short_name:
        raise ValueError(unknown_name("cell", name, by_short_name))
    return CELLS.get(name) or by_short_name[name]


def parse_cell_name(name: str) -> tuple[type[Cell], dict[str, str]]:
    """Read the name that experiments and figures call a network by.

    Args:
        name: short name of a cell, with an activation where it takes one: "lstm", "elman-relu".

    Returns:
        The class, and the options of its constructor that the name holds.

    Raises:
        ValueError: an unknown cell or activation, an activation for a cell that has its own.
    """
    short_name, _, activation = name.partition("-")
    cell = find_cell(short_name)
    if not activation:
        return cell, {}
    if "activation" not in inspect.signature(cell.__init__).parameters:
        raise ValueError(f"cell {short_name!r} has activations of its own, got {name!r}")
    return cell, {"activation": find_activation(activation).name}


def make_cell(name: str, in_features: int, hidden_features: int, **options: Any) -> Cell:
    """Make a cell from the name that experiments and figures call it by.

    Args:
        name: as `parse_cell_name` takes it.
        in_features: F.
        hidden_features: H.
        **options: for the cell's constructor, `rngs` among them.

    Returns:
        The cell.

    Raises:
        ValueError: an unknown name, a size below 1.
    """
    cell, named_options = parse_cell_name(name)
    return cell(in_features, hidden_features, **named_options, **options)


__all__ = [
    "CELLS",
    "Cell",
    "ElmanCell",
    "GRUCell",
    "LSTMCell",
    "PackedCell",
    "find_cell",
    "make_cell",
    "parse_cell_name",
]
