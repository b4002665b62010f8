"""Spectral radius and norm of the weights through which a cell reads its state."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from rnn_dynamics.training.probes.driven_network import recurrent_cell
from rnn_dynamics.training.probes.probe import Coordinate, Label, Probe
from rnn_dynamics.types import ReadsByRecur


@dataclass(frozen=True, eq=False)
class RecurrentMatrix(Probe):
    r"""The matrices W_h [H, H] of a cell, block by block: spectral radius and 2-norm.

    They are those of the linear map `recur`, by which our cells read their state, so that weights which are a function
    of parameters, masked or diagonal are what the state meets. What a cell reads otherwise, such as the velocities of a
    coRNN, is not looked at. Of a vanilla network, :math:`\|W_h\|_2 < 1 / \sup|\phi'|` is sufficient for gradients to
    vanish (Pascanu, Mikolov and Bengio 2013).

    Raises:
        ValueError: what `Probe` refuses.
    """

    _: KW_ONLY
    name: str = "recurrent_matrix"

    labels: ClassVar[Mapping[str, Label]] = {
        "spectral_radius": Label(("block",), "1", "largest modulus of an eigenvalue of the recurrent weights"),
        "norm": Label(("block",), "1", "largest singular value of the recurrent weights"),
    }

    def check(self, model: nnx.Module) -> None:
        """See `Probe.check`.

        Raises:
            ValueError: a model whose cell has no `recur`, or one that is not linear.
        """
        cell = recurrent_cell(model)
        if not isinstance(cell, ReadsByRecur):
            raise ValueError(f"model must have a cell that reads its state by recur, {type(cell).__name__} does not")
        once = blocks_of(cell)
        # Powers of two leave no rounding, so a linear map passes exactly.
        if not np.array_equal(blocks_of(cell, 2.0), 2 * np.asarray(once), equal_nan=True):
            raise ValueError(
                f"model must have a cell whose recur is linear in the state, that of {type(cell).__name__} is not"
            )

    def coordinates(self, model: nnx.Module) -> dict[str, Coordinate]:
        """Name the blocks after the gates that read them, or number them where there is no block for each gate."""
        cell: Any = recurrent_cell(model)
        names, count = getattr(cell, "mapped_gates", ()), jax.eval_shape(lambda: blocks_of(cell)).shape[0]
        if len(names) != count:
            names = tuple(str(number) for number in range(count))
        return {"block": Coordinate(names, "1", "gate that reads the state through this block of weights")}

    def quantities(self, model: nnx.Module) -> dict[str, Array]:
        """Measure every block."""
        blocks = blocks_of(recurrent_cell(model))
        return {"spectral_radius": spectral_radius(blocks), "norm": jnp.linalg.norm(blocks, 2, axis=(1, 2))}


def blocks_of(cell: Any, scale: float = 1.0) -> Float[Array, "n H H"]:
    """Return the matrices by which a cell maps the rows of `scale` times the identity, in float32 at least."""
    dtype = jnp.promote_types(cell.dtype, jnp.float32)
    size = cell.hidden_features
    with jax.default_matmul_precision("highest"):
        packed = cell.recur(scale * jnp.eye(size, dtype=cell.dtype)).astype(dtype)
    return jnp.swapaxes(packed.reshape(size, -1, size), 0, 1)


def spectral_radius(matrices: Float[Array, "n H H"]) -> Float[Array, " n"]:
    """Return the largest modulus of each matrix's eigenvalues; NaN where an entry is not finite.

    jax computes eigenvalues of general matrices on CPUs, and on some accelerators in some versions. On all but CPUs the
    matrices are handed to NumPy on the host.

    Args:
        matrices: real.
    """
    return jax.lax.platform_dependent(matrices, cpu=_radius_by_jax, default=radius_on_host)


def _radius_by_jax(matrices: Array) -> Array:
    finite = jnp.all(jnp.isfinite(matrices), axis=(-2, -1))
    eigenvalues = jnp.linalg.eigvals(jnp.where(finite[..., None, None], matrices, 0))
    return jnp.where(finite, jnp.max(jnp.abs(eigenvalues), axis=-1), jnp.nan)


def radius_on_host(matrices: Float[Array, "n H H"]) -> Float[Array, " n"]:
    """Return what `spectral_radius` does, by way of NumPy; under `jax.vmap` with one call for all."""
    result = jax.ShapeDtypeStruct(matrices.shape[:-2], matrices.dtype)
    return jax.pure_callback(_radius_by_numpy, result, matrices, vmap_method="expand_dims")


def _radius_by_numpy(matrices: Any) -> np.ndarray:
    matrices = np.asarray(matrices)
    finite = np.isfinite(matrices).all(axis=(-2, -1))
    eigenvalues = np.linalg.eigvals(np.where(finite[..., None, None], matrices, 0))
    return np.where(finite, np.abs(eigenvalues).max(axis=-1), np.nan).astype(matrices.dtype)
