"""Hard bounds of the recurrent weights: singular values are brought back into a band after every update."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.core import Tracer

from rnn_dynamics.arguments import require, require_positive
from rnn_dynamics.training.recurrent_blocks import NAME, side_by_side, square_blocks
from rnn_dynamics.types import PyTree


def constrain_singular_values(least: float | Array, largest: float | Array) -> optax.GradientTransformation:
    r"""Keep the singular values of all recurrent matrices within a band, as the last link of an optimiser's chain.

    After the update W = U S V^T becomes :math:`U \min(\max(S, \text{least}), \text{largest}) V^\top`, the nearest
    matrix within the band. With 1 - m and 1 + m these are the matrices that Vorontsov et al. (ICML 2017) let their
    factors parametrise (the hard constraint with margin m); with m = 0, the orthogonal ones.

    A parameter is meant if it is called `recurrent_kernel`, each of its square blocks [H, H] for itself. Of cells that
    make their weights from it (expRNN, scoRNN, antisymmetric ones) it is not the weights that are bounded so.

    Cost: one SVD, some 20 H^3 flops, for each block and update. It holds to rounding: a few units of the last digit of
    `largest`.

    Args:
        least: >= 0. It may be traced.
        largest: >= least. It may be traced.

    Returns:
        A transformation without a state, whose updates u' lead to the projected parameters: p + u' = project(p + u).

    Raises:
        ValueError: bounds out of order; when it is used, no parameters, none called `recurrent_kernel`, or one that is
            not made of square blocks.
    """
    require("least", least, "a finite number >= 0", lambda number: (number >= 0) & np.isfinite(number))
    require_positive("largest", largest)
    if not isinstance(least, Tracer) and not isinstance(largest, Tracer) and least > largest:
        raise ValueError(f"least must not exceed largest = {largest}, got {least}")

    def init(params: PyTree) -> optax.EmptyState:
        if not any(map(_is_recurrent, jax.tree.leaves_with_path(params))):
            raise ValueError(f"params must hold one that is called {NAME}, found none")
        return optax.EmptyState()

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError("params must be given to the update of constrain_singular_values, got None")

        def project(path: Any, update: Array, parameter: Array) -> Array:
            if not _is_recurrent((path, update)):
                return update
            return _projected(parameter + update, least, largest) - parameter

        return jax.tree.map_with_path(project, updates, params), state

    return optax.GradientTransformation(init, update)


def constrain_spectral_norm(largest: float | Array) -> optax.GradientTransformation:
    """Keep the spectral norm of all recurrent matrices at or below a bound, see `constrain_singular_values`.

    With a bound below 1 / sup|phi'| an Elman network's gradients cannot explode (Pascanu, Mikolov and Bengio 2013,
    section 2.1).

    Args:
        largest: > 0. It may be traced.

    Returns:
        The transformation, to be put last.
    """
    return constrain_singular_values(0.0, largest)


def _is_recurrent(at: tuple[Any, Any]) -> bool:
    """Tell a leaf by the last name in its path; what has no name is the inside of Flax's variables."""
    names = [key.key for key in at[0] if isinstance(key, jax.tree_util.DictKey)]
    return bool(names) and names[-1] == NAME


def _projected(kernel: Array, least: float | Array, largest: float | Array) -> Array:
    precise = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    left, sizes, right = jnp.linalg.svd(square_blocks(precise), full_matrices=False)
    sizes = jnp.clip(sizes, least, largest).astype(sizes.dtype)
    blocks = jnp.matmul(left * sizes[:, None, :], right, precision="highest")
    return side_by_side(blocks).astype(kernel.dtype)
