"""Clipping within the backward pass: the signal of every example, at every time step."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.arguments import require
from rnn_dynamics.taps import Listener, State, cotangent_norm, run_tapped, tapped_layers
from rnn_dynamics.training.clipping.norms import log_ratio, shortened
from rnn_dynamics.training.recipe import GradientRule, Loss, LossGradient
from rnn_dynamics.types import Batch, PyTree


def clip_each_step(threshold: float | Array) -> GradientRule:
    r"""Make the rule that shortens what flows back through every time step of every layer.

    .. math:: \delta_t = \min\left(1, \frac{c}{\|a_t\|}\right) a_t, \qquad
              a_t = \frac{\partial^+ \ell}{\partial h_t}
                    + \left(\frac{\partial h_{t+1}}{\partial h_t}\right)^\top \delta_{t+1}, \qquad
              \hat{g} = \sum_t \left(\frac{\partial^+ h_t}{\partial W}\right)^\top \delta_t

    for each example by itself, where :math:`\partial^+` is the immediate derivative: what the loss and the layers above
    ask of :math:`h_t`, the latter clipped already. h is the whole carry, for an LSTM c and h together. Graves (2013,
    section 2.1) clipped in the same place, each entry of the derivatives by the gates' inputs. The norm keeps the
    signal's direction within a step; the sum over steps is not the gradient of any loss.

    It bounds the signal while it flows, and so also where a product of Jacobians would overflow before anything that
    acts on the finished gradient could see it. An adjoint that is not finite (of a loss that is not, say) passes.

    The threshold is for the adjoints of each example's own loss, :math:`\ell_b`, not of the batch's mean, whose are 1/B
    of these: it means the same for every batch size. inf gives the gradient of `backpropagate`, to rounding.

    Report, all layers together: `step_clipped_share`, how many of the (step, example) pairs that a signal other than 0
    reached were shortened, so that padding does not count; `step_mean_factor`, the geometric mean of norm after / norm
    before over these, 1 if there was none. The angle to the gradient without clipping is left out, for it costs a
    second backward pass: `angle_between(clipped, backpropagate(...).gradient)` gives it.

    Cost: one backward pass through a scan that goes step by step, without what makes `Recurrence` fast on CPUs (see
    `dynamics.loss_adjoints`). Memory: two numbers for each step, example and layer.

    Args:
        threshold: c > 0, a norm: loss per unit of state. May be traced.

    Returns:
        `rule(loss, model, batch)`. The model must hold a layer that can be tapped, and the loss must call each such
        layer once and return [B]; else it raises a ValueError.

    Raises:
        ValueError: a threshold that is not positive.
    """
    require("threshold", threshold, "a number > 0", lambda number: number > 0)
    return partial(_backpropagate_clipped, jnp.asarray(threshold))


class _Heard(NamedTuple):
    """Probes: zeros, whose cotangents say of each step and example what became of the signal.

    Attributes:
        reached: [T, B], 1 where it was finite and not 0.
        log_factor: [T, B], ln(norm after / norm before), < 0 where it was shortened.
    """

    reached: Array
    log_factor: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Shortening(Listener):
    """Shortens the cotangents of the states to a limit."""

    limit: Array

    def make_probes(self, steps: int, batch: int, weights: PyTree) -> _Heard:
        zeros = jnp.zeros((steps, batch), jnp.result_type(jnp.float32, *map(jnp.real, jax.tree.leaves(weights))))
        return _Heard(zeros, zeros)

    def after(self, state: State, probes: _Heard) -> State:
        return _shorten(state, self.limit, probes)


@jax.custom_vjp
def _shorten(state: State, limit: Array, probes: _Heard) -> State:
    """Return the state [B, ...] as it is; its cotangent gets, for each example, a norm of the limit at most."""
    return state


def _shorten_forward(state: State, limit: Array, probes: _Heard) -> tuple[State, tuple[Array, _Heard]]:
    return state, (limit, probes)


def _shorten_backward(kept: tuple[Array, _Heard], cotangent: State) -> tuple[State, Array, _Heard]:
    limit, probes = kept
    norm = cotangent_norm(cotangent)
    length = limit.astype(norm.dtype)
    reached = (norm > 0) & jnp.isfinite(norm)
    log_factor = jnp.where(reached & (norm > length), log_ratio(length, norm), 0)
    cotangent = jax.tree.map(lambda leaf: shortened(leaf, norm.reshape(-1, *[1] * (leaf.ndim - 1)), length), cotangent)
    heard = _Heard(reached, log_factor)
    return cotangent, jnp.zeros_like(limit), jax.tree.map(lambda new, zero: new.astype(zero.dtype), heard, probes)


_shorten.defvjp(_shorten_forward, _shorten_backward)


def _backpropagate_clipped(threshold: Array, loss: Loss, model: Any, batch: Batch) -> LossGradient:
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def total_loss(params: PyTree, probes: dict[str, PyTree] | None) -> tuple[Array, Any]:
        copy = nnx.merge(graph, params, rest, copy=True)
        losses, probes, _ = run_tapped(copy, loss, batch, lambda _: _Shortening(threshold), probes)
        return jnp.sum(losses), (losses, probes, _rest_of(copy))

    shapes = jax.eval_shape(lambda: total_loss(params, None)[1][1])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    gradient_of = jax.grad(total_loss, argnums=(0, 1), has_aux=True)
    (gradient, heard), (losses, _, rest) = gradient_of(params, zeros)
    nnx.update(model, rest)
    return LossGradient(losses, jax.tree.map(lambda leaf: leaf / len(losses), gradient), _report(heard))


def _rest_of(tapped: Any) -> PyTree:
    """Take the listeners out of a model, and return what it keeps besides parameters."""
    for layer in tapped_layers(tapped).values():
        layer.listener, layer.probes, layer.first_nonfinite_step = None, None, None
    return nnx.split(tapped, nnx.Param, ...)[2]


def _report(heard: dict[str, _Heard]) -> dict[str, Array]:
    def total(of_layer: Callable[[_Heard], Array]) -> Array:
        return jnp.sum(jnp.stack([jnp.sum(of_layer(layer)) for layer in heard.values()]))

    reached = total(lambda layer: layer.reached)
    clipped = total(lambda layer: (layer.log_factor < 0).astype(layer.reached.dtype))
    log_factor = total(lambda layer: layer.log_factor)
    return {
        "step_clipped_share": clipped / jnp.maximum(reached, 1),
        "step_mean_factor": jnp.exp(log_factor / jnp.maximum(clipped, 1)),
    }
