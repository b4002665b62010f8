"""Several cells as one: each reads the output of the one below at the same step."""

from collections.abc import Sequence
from typing import Any

from flax import nnx
from jax import Array

from rnn_dynamics.types import Carry, Evaluable


class StackedCells(nnx.RNNCellBase):
    r"""A deep network as one cell, so that all its layers are one dynamical system.

    .. math:: s^l_t = F^l(s^l_{t-1}, y^{l-1}_t), \qquad y^0_t = x_t

    with y^l_t the output of cell l after the step. The carry is the tuple of the cells' carries from the bottom up, and
    N the sum of theirs. No cell sees what is above it: the state Jacobian is block lower triangular, the cells' own
    Jacobians on its diagonal, and the exponents are those of each cell as it is driven by the one below.

    Args:
        cells: from the bottom up, ours or Flax's, each with an attribute `in_features`.
        residual: add to the output of each cell but the lowest what it read, as `layers.Stacked` does.

    Raises:
        ValueError: no cell, or one without `in_features`.
    """

    def __init__(self, cells: Sequence[nnx.RNNCellBase], *, residual: bool = False):
        if not cells:
            raise ValueError("cells must hold at least one cell, got none")
        for cell in cells:
            if not hasattr(cell, "in_features"):
                raise ValueError(f"cells must say their in_features, got a {type(cell).__name__} without")
        self.cells: Any = nnx.List(cells)
        self.residual = residual

    @property
    def in_features(self) -> int:
        """F, of the lowest cell."""
        return self.cells[0].in_features

    @property
    def num_feature_axes(self) -> int:
        """Number of feature axes of the inputs, for `nnx.RNN`."""
        return 1

    def __call__(self, carry: tuple[Carry, ...], inputs: Array) -> tuple[tuple[Carry, ...], Array]:
        """Make one step from inputs [..., F]: (carries, the topmost cell's output [..., H]).

        Raises:
            ValueError: a residual cell that changes the width.
        """
        carries: list[Carry] = []
        for number, (cell, before) in enumerate(zip(self.cells, carry, strict=True)):
            after, output = cell(before, inputs)
            if self.residual and number > 0:
                if output.shape != inputs.shape:
                    came = f"cell {number} makes {output.shape[-1]} features of {inputs.shape[-1]}"
                    raise ValueError(f"residual cells must keep the width, {came}")
                output = output + inputs
            carries.append(after)
            inputs = output
        return tuple(carries), inputs

    def evaluated(self) -> "StackedCells":
        """Return the stack of the cells with what depends on parameters alone computed, see `Cell.evaluated`."""
        cells = [cell.evaluated() if isinstance(cell, Evaluable) else cell for cell in self.cells]
        return StackedCells(cells, residual=self.residual)

    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None
    ) -> tuple[Carry, ...]:
        """Return a fresh carry; Flax's signature.

        Args:
            input_shape: [..., F], of which all but the last are batch axes.
            rngs: keys for `carry_init` and for cells that draw their carry.
            carry_init: initialiser (default: each cell's own).

        Returns:
            The carries from the bottom up.
        """
        options = {} if carry_init is None else {"carry_init": carry_init}
        return tuple(
            cell.initialize_carry((*input_shape[:-1], cell.in_features), rngs, **options) for cell in self.cells
        )
