"""What happens in one step: a collection of recurrent cells, one file per family.

`CELLS` lists every cell by name, found by looking at the modules of this package.
"""

import inspect
import re
from typing import Any, get_args

from rnn_dynamics.cells.activations import find_activation
from rnn_dynamics.cells.base import Cell
from rnn_dynamics.cells.elman import ElmanCell
from rnn_dynamics.cells.gru import GRUCell
from rnn_dynamics.cells.leaky_elman import LeakyElmanCell
from rnn_dynamics.cells.lstm import LSTMCell
from rnn_dynamics.cells.packed import PackedCell
from rnn_dynamics.cells.stacked_cells import StackedCells
from rnn_dynamics.discovery import discover, unknown_name

CELLS: dict[str, type[Cell]] = discover(
    __name__, lambda item: inspect.isclass(item) and issubclass(item, Cell) and not inspect.isabstract(item)
)
globals().update(CELLS)  # a new file's cell can be imported from here too; those named above also by static tools


def find_cell(name: str) -> type[Cell]:
    """Look a cell up.

    Args:
        name: one of `CELLS`, e.g. "LeakyElmanCell"; its `short_name`, "leaky_elman", does as well.

    Returns:
        The class.

    Raises:
        ValueError: if there is none of that name.
    """
    by_short_name = {short_name(cell): cell for cell in CELLS.values()}
    if name not in CELLS and name not in by_short_name:
        raise ValueError(unknown_name("cell", name, by_short_name))
    return CELLS.get(name) or by_short_name[name]


def short_name(cell: type[Cell]) -> str:
    """Return what experiments and figures call a cell.

    It is the class's name in snake case without "Cell", where an acronym in RNN stays with its first half: LSTMCell is
    "lstm", LeakyElmanCell "leaky_elman", IndRNNCell "indrnn".
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])(?![A-Z]*RNN)", "_", cell.__name__.removesuffix("Cell")).lower()


def options_of(cell: type[Cell]) -> tuple[str, ...]:
    """List the names of the options that a cell's constructor takes, those in its `Unpack[...]` written out."""
    names: list[str] = []
    for parameter in inspect.signature(cell.__init__).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            names += [option for unpacked in get_args(parameter.annotation) for option in unpacked.__annotations__]
        elif parameter.kind is parameter.KEYWORD_ONLY:
            names.append(parameter.name)
    return tuple(names)


def parse_cell_name(name: str) -> tuple[type[Cell], dict[str, str]]:
    """Read the name that experiments and figures call a network by.

    Args:
        name: short name of a cell, with an activation where it takes one: "lstm", "leaky_elman-relu".

    Returns:
        The class, and the options of its constructor that the name holds.

    Raises:
        ValueError: an unknown cell or activation, an activation for a cell that has its own.
    """
    cell_name, _, activation = name.partition("-")
    cell = find_cell(cell_name)
    if not activation:
        return cell, {}
    if "activation" not in options_of(cell):
        raise ValueError(f"cell {cell_name!r} has activations of its own, got {name!r}")
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
        ValueError: an unknown name, an option that the cell does not take or that the name holds too, a size below 1.
    """
    cell, named_options = parse_cell_name(name)
    taken = [option for option in options_of(cell) if option not in named_options]
    for option in options:
        if option not in taken:
            raise ValueError(f"cell {name!r} takes no option {option!r}: it takes {', '.join(taken)}")
    return cell(in_features, hidden_features, **named_options, **options)


__all__ = [
    "CELLS",
    "Cell",
    "ElmanCell",
    "GRUCell",
    "LSTMCell",
    "LeakyElmanCell",
    "PackedCell",
    "StackedCells",
    "find_cell",
    "make_cell",
    "options_of",
    "parse_cell_name",
    "short_name",
]
