r"""Clipping, by every method that recurrent networks are trained with, and what it did.

A method is listed because its module is here and defines `clip_by_<module's name>(threshold)`, an optax transformation
made by `reporting`; adding one edits nothing else. The threshold is each method's one number, and may be traced:

================ ============================================ =================== ======================= ==========
name             what becomes of the gradient g               threshold           its unit                direction
================ ============================================ =================== ======================= ==========
global_norm      min(1, c / ‖g‖) g, all parameters together   c, norm             loss / parameter        kept
value            each entry brought into [-c, c]              c, size of an entry loss / parameter        turned
parameter_norm   min(1, c / ‖g‖) g, each array by itself      c, norm             loss / parameter        turned
unit_ratio       each unit's ‖g‖ at most c times its weights' c, ratio of norms   loss / parameter²       turned
                 norm (AGC)
percentile       as global_norm, c the p-th percentile of the p, 0 ... 100        percent                 kept
                 norms so far (AutoClip)
normalising      c g / ‖g‖, longer or shorter                 c, norm             loss / parameter        kept
none             nothing: `optax.identity()`, no report       not looked at                               kept
================ ============================================ =================== ======================= ==========

All of these act on the gradient that is there when the backward pass is over. `clip_each_step(threshold)` acts within
it: a `GradientRule` that shortens the signal of every example at every time step, so that no product of Jacobians can
overflow; threshold in loss per unit of state.
"""

from collections.abc import Callable, Mapping
from inspect import isfunction
from types import MappingProxyType

import optax
from jax import Array

from rnn_dynamics.discovery import discover, unknown_name
from rnn_dynamics.training.clipping.each_step import clip_each_step
from rnn_dynamics.training.clipping.global_norm import clip_by_global_norm
from rnn_dynamics.training.clipping.normalising import clip_by_normalising
from rnn_dynamics.training.clipping.norms import angle_between, global_norm
from rnn_dynamics.training.clipping.parameter_norm import clip_by_parameter_norm
from rnn_dynamics.training.clipping.percentile import NormHistory, clip_by_percentile
from rnn_dynamics.training.clipping.report import ClipReport, clip_report, clip_states
from rnn_dynamics.training.clipping.reporting import ClipEvent, ClipState, reporting
from rnn_dynamics.training.clipping.unit_ratio import clip_by_unit_ratio
from rnn_dynamics.training.clipping.value import clip_by_value

__all__ = [
    "CLIPPINGS",
    "ClipEvent",
    "ClipReport",
    "ClipState",
    "NormHistory",
    "angle_between",
    "clip_by_global_norm",
    "clip_by_normalising",
    "clip_by_parameter_norm",
    "clip_by_percentile",
    "clip_by_unit_ratio",
    "clip_by_value",
    "clip_each_step",
    "clip_report",
    "clip_states",
    "global_norm",
    "make_clipping",
    "reporting",
]


def _no_clipping(threshold: float | Array) -> optax.GradientTransformation:
    return optax.identity()


_METHODS = discover(__name__, lambda item: isfunction(item) and item.__name__.startswith("clip_by_"))

CLIPPINGS: Mapping[str, Callable[[float | Array], optax.GradientTransformation]] = MappingProxyType(
    {name.removeprefix("clip_by_"): method for name, method in _METHODS.items()} | {"none": _no_clipping}
)
"""Name -> `method(threshold)`: every module's `clip_by_<name>`, and "none"."""


def make_clipping(name: str, threshold: float | Array) -> optax.GradientTransformation:
    """Make a way of clipping by its name.

    Args:
        name: a key of `CLIPPINGS`; "none" is `optax.identity()`, which leaves no report.
        threshold: the method's one number, see the table above; may be traced.

    Returns:
        The transformation, to be put before the optimiser in `optax.chain`.

    Raises:
        ValueError: an unknown name, or a threshold that the method does not allow.
    """
    if name not in CLIPPINGS:
        raise ValueError(unknown_name("clipping", name, CLIPPINGS))
    return CLIPPINGS[name](threshold)
