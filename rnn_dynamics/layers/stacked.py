"""Time: recurrent layers, one on top of another."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from flax import nnx
from flax.nnx import rnglib
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.cells import StackedCells
from rnn_dynamics.layers.recurrence import Recurrence
from rnn_dynamics.types import Carry

RecurrentLayer: TypeAlias = Callable[..., tuple[Carry, Array]]
"""`layer(inputs [B, T, F], lengths=..., initial_carry=...) -> (carry, outputs [B, T, H])`, such as a `Recurrence`."""


class Stacked(nnx.Module):
    """Recurrent layers, each reading the outputs of the one below.

    Dropout is variational (Gal and Ghahramani 2016): what each layer reads is masked by one mask for each sequence, the
    same at all of its steps. The paper's mask of the recurrent connections lies within the cell and is not made here.
    As of `nnx.Dropout`, it is on unless `deterministic`, which `model.eval()` sets and `model.train()` takes back.

    Args:
        layers: from the bottom up.
        residual: add to the outputs of each layer but the lowest what it read, before dropout.
        dropout: fraction of the features that is dropped.
        rngs: keys of the masks, stream "dropout"; needed where dropout > 0.

    Raises:
        ValueError: no layer, a dropout outside 0 ... 1, or one without keys.
    """

    def __init__(
        self,
        layers: Sequence[RecurrentLayer],
        *,
        residual: bool = False,
        dropout: float = 0.0,
        rngs: rnglib.Rngs | None = None,
    ):
        if not layers:
            raise ValueError("layers must hold at least one layer, got none")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in 0 ... 1, 1 excluded, got {dropout}")
        if dropout > 0 and rngs is None:
            raise ValueError(f"rngs must be given where dropout > 0, got dropout {dropout} without")
        self.layers = nnx.List(layers)
        self.residual = residual
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1,), rngs=rngs)

    def __call__(
        self,
        inputs: Float[Array, "B T F"],
        *,
        lengths: Int[Array, " B"] | None = None,
        initial_carry: Sequence[Carry | None] | None = None,
        deterministic: bool | None = None,
        rngs: rnglib.Rngs | None = None,
    ) -> tuple[tuple[Carry, ...], Float[Array, "B T H"]]:
        """Run over the sequences.

        Args:
            inputs: [B, T, F].
            lengths: valid steps of each sequence, 1 ... T (default: all T).
            initial_carry: of each layer; None, for one or for all: the layer's own.
            deterministic: drop nothing (default: what `eval` or `train` said, at first to drop).
            rngs: keys of the masks for this call (default: those of the constructor).

        Returns:
            The carries of all layers after the sequences, and the outputs of the topmost [B, T, H].

        Raises:
            ValueError: carries of another number than the layers, a residual layer that changes the width.
        """
        starts = [None] * len(self.layers) if initial_carry is None else initial_carry
        if len(starts) != len(self.layers):
            raise ValueError(f"initial_carry must hold one for each of {len(self.layers)} layers, got {len(starts)}")
        carries: list[Carry] = []
        for number, (layer, start) in enumerate(zip(self.layers, starts, strict=True)):
            read = self.dropout(inputs, deterministic=deterministic, rngs=rngs)
            carry, outputs = layer(read, lengths=lengths, initial_carry=start)
            if self.residual and number > 0:
                if outputs.shape != inputs.shape:
                    raise ValueError(
                        f"residual layers must keep the width, layer {number} makes {outputs.shape[-1]} features of "
                        f"{inputs.shape[-1]}"
                    )
                outputs = outputs + inputs
            carries.append(carry)
            inputs = outputs
        return tuple(carries), inputs

    def as_cell(self) -> StackedCells:
        """Return all layers as one cell, which shares their parameters; what `DrivenSystem.from_cell` takes.

        As in evaluation nothing is dropped, and the initial carry is the cells' own.

        Returns:
            The cells of the layers, stacked.

        Raises:
            ValueError: a layer that is no `Recurrence` forward in time: no state carries the others.
        """
        cells = []
        for number, layer in enumerate(self.layers):
            if not isinstance(layer, Recurrence) or layer.reverse:
                came = "one with reverse=True" if isinstance(layer, Recurrence) else f"a {type(layer).__name__}"
                raise ValueError(f"every layer must be a Recurrence forward in time, got {came} as layer {number}")
            cells.append(layer.cell)
        return StackedCells(cells, residual=self.residual)
