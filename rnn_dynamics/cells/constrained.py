"""Cells whose recurrent weights are a function of a free parameter, such as a rotation made from a skew matrix."""

import abc

import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.cells.packed import PackedCell


class EvaluatedKernel(nnx.Variable):
    """A recurrent kernel [H, H] that was made from a free parameter; itself no parameter, so nothing trains it."""


class ConstrainedCell(PackedCell):
    """A cell whose W_h is `recurrent_matrix` of its parameter `recurrent_kernel`, [H, H] and free of constraints.

    Optimisers move the free parameter, and W_h keeps its form. `evaluated()` makes W_h once, ahead of a scan; a cell
    that is not evaluated makes it at every step, with the same result. In the evaluated cell `recurrent_kernel` is that
    kernel, in the precision of the parameters or of the computation, whichever is higher, and at least in float32.
    """

    @property
    def recurrent_shape(self) -> tuple[int, int]:
        """Of the parameter `recurrent_kernel`: that of one W_h, whatever the number of gates."""
        return self.hidden_features, self.hidden_features

    @abc.abstractmethod
    def recurrent_matrix(self, free: Array) -> Array:
        """Make W_h [H, H], which acts on columns as in the papers, from the free parameter [H, H]."""

    def evaluated(self) -> "ConstrainedCell":
        """Return this cell with its recurrent kernel computed; gradients pass to the free parameter."""
        if isinstance(self.recurrent_kernel, EvaluatedKernel):
            return self
        copy = nnx.clone(self)
        copy.recurrent_kernel = EvaluatedKernel(self._effective_kernel())
        return copy

    def recur(self, hidden: Array, *gates: str) -> Array:
        """Map the hidden state [..., H] to W_h h [..., H]."""
        hidden, kernel = self.cast(hidden, self._effective_kernel())
        return hidden @ kernel

    def _effective_kernel(self) -> Array:
        """Return the transpose of W_h: kernels act from the right."""
        values = self.recurrent_kernel[...]
        if isinstance(self.recurrent_kernel, EvaluatedKernel):
            return values
        precise = max(values.dtype, self.dtype, jnp.dtype(jnp.float32), key=lambda dtype: jnp.finfo(dtype).bits)
        return self.recurrent_matrix(values.astype(precise)).T


def skew(free: Array) -> Array:
    """Return the skew-symmetric matrix [H, H] with the strict upper triangle of the given one; its rest is not used."""
    upper = jnp.triu(free, 1)
    return upper - upper.T
