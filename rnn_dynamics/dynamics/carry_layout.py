"""A carry, which is a pytree, as a flat state, and back."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.types import Carry


@dataclasses.dataclass(frozen=True)
class CarryLayout:
    """How a carry lies in the flat state: its leaves one after the other, in pytree order.

    Of a complex leaf all real parts come first, then all imaginary parts: a state has real directions alone.

    Attributes:
        structure: the carry's pytree structure.
        shapes: of its leaves.
        complex_leaves: which of them are complex.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    complex_leaves: tuple[bool, ...]

    @classmethod
    def of(cls, carry: Carry) -> "CarryLayout":
        """Read the layout off a carry of one network (no batch axis)."""
        leaves, structure = jax.tree.flatten(carry)
        shapes = tuple(np.shape(leaf) for leaf in leaves)
        return cls(structure, shapes, tuple(bool(jnp.iscomplexobj(leaf)) for leaf in leaves))

    def flatten(self, carry: Carry) -> Array:
        """Carry -> state [N].

        Raises:
            ValueError: if the carry's structure or shapes are not those of this layout.
        """
        found = CarryLayout.of(carry)
        if found != self:
            raise ValueError(
                f"the step must return a carry like the one it takes: it takes {self}, it returned {found}"
            )
        parts = (
            part
            for leaf, is_complex in zip(jax.tree.leaves(carry), self.complex_leaves, strict=True)
            for part in ((jnp.real(leaf), jnp.imag(leaf)) if is_complex else (leaf,))
        )
        return jnp.concatenate([jnp.ravel(part) for part in parts])

    def unflatten(self, state: Array) -> Carry:
        """State [N] -> carry."""
        sizes = [math.prod(shape) * (1 + two) for shape, two in zip(self.shapes, self.complex_leaves, strict=True)]
        pieces = jnp.split(state, np.cumsum(sizes)[:-1])
        leaves = [
            (jax.lax.complex(*jnp.split(piece, 2)) if two else piece).reshape(shape)
            for piece, shape, two in zip(pieces, self.shapes, self.complex_leaves, strict=True)
        ]
        return jax.tree.unflatten(self.structure, leaves)

    def __str__(self) -> str:
        """Say structure and shapes, for messages."""
        kinds = " (complex)" if any(self.complex_leaves) else ""
        return f"{self.structure} with shapes {self.shapes}{kinds}"
