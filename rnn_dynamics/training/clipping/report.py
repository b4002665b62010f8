"""How often, by how much and how far sideways the gradients of a training were clipped, read off its optimiser."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, Int

from rnn_dynamics.training.clipping.reporting import ClipState
from rnn_dynamics.types import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClipReport:
    """What clipping did to the gradients of a training, or of each training of an ensemble.

    Attributes:
        updates: number of gradients seen.
        share: of them that were changed, 0 ... 1; NaN before the first.
        mean_factor: geometric mean of norm after / norm before over the changed ones; 1 if there was none.
        mean_angle: mean angle between before and after over the changed ones, radians; 0 if there was none.
    """

    updates: int | Int[np.ndarray, "*E"]
    share: float | Float[np.ndarray, "*E"]
    mean_factor: float | Float[np.ndarray, "*E"]
    mean_angle: float | Float[np.ndarray, "*E"]


def clip_states(optimizer_state: PyTree) -> tuple[ClipState, ...]:
    """Find what the clipping transformations in an optimiser's state have seen.

    Args:
        optimizer_state: of any chain, `optax.MultiSteps` or `optax.inject_hyperparams` around one included; its arrays
            may have leading axes [E], and may be traced.

    Returns:
        The states in the order of the chain; none where there is no clipping.
    """
    leaves = jax.tree.leaves(optimizer_state, is_leaf=lambda node: isinstance(node, ClipState))
    return tuple(leaf for leaf in leaves if isinstance(leaf, ClipState))


def clip_report(optimizer_state: PyTree) -> ClipReport:
    """Read what the one clipping transformation in an optimiser's state has done.

    Args:
        optimizer_state: of a chain that holds one; its arrays may have leading axes [E].

    Returns:
        The report: numbers, or arrays [E].

    Raises:
        ValueError: if there is no clipping transformation in it, or more than one.
    """
    states = clip_states(optimizer_state)
    if len(states) != 1:
        raise ValueError(f"optimizer_state must hold one clipping transformation, found {len(states)}")
    updates, clipped = np.asarray(states[0].updates), np.asarray(states[0].clipped)
    log_shrinkage, turning = (np.asarray(total, np.float64) for total in (states[0].log_shrinkage, states[0].turning))
    of_clipped, of_all = np.maximum(clipped, 1), np.maximum(updates, 1)
    share = np.where(updates > 0, clipped / of_all, np.nan)
    report = ClipReport(updates, share, np.exp(log_shrinkage / of_clipped), turning / of_clipped)
    return report if updates.ndim else jax.tree.map(lambda number: np.asarray(number).item(), report)
