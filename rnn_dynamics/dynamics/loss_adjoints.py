"""What reaches every time step of a real loss's gradient: by the state, and into the recurrent weights."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.taps import Listener, State, cotangent_norm, gathered, run_tapped, tap, tap_weights
from rnn_dynamics.types import PyTree

Loss = Callable[[Any, Any], Array]
"""`loss(model, batch) -> [B]`, one number for each example. Compiled in by its identity: define it once."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerAdjoints:
    r"""What one layer's backward pass brought to every time step.

    Attributes:
        state_norm: [T, B], :math:`\|\partial \ell_b / \partial h_t\|`, loss per unit of state; the whole carry, for an
            LSTM c and h together. 0 beyond an example's length, NaN for an example whose state did not stay finite.
        weight_norm: name of each of the cell's parameters -> [T], :math:`\|\Delta_t\|_F`, loss per unit of weight,
            where :math:`\sum_t \Delta_t` is the gradient of the batch's mean loss; NaN if any state did not stay
            finite.
        first_nonfinite_step: [B], first step of the scan that left an inf or NaN in the state, -1 if none did.
    """

    state_norm: Float[Array, "*E T B"]
    weight_norm: dict[str, Float[Array, "*E T"]]
    first_nonfinite_step: Int[Array, "*E B"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossAdjoints:
    """A loss, its gradient, and what each time step had to do with it.

    Attributes:
        loss: [B], of each example.
        gradient: of the mean loss, like `nnx.state(model, nnx.Param)`.
        layers: path of each tapped layer in the model ("" for the model itself) -> its adjoints.
    """

    loss: Float[Array, "*E B"]
    gradient: PyTree
    layers: dict[str, LayerAdjoints]

    @property
    def state_norm(self) -> Array:
        """The state norms of all layers, [layer, T, B], in the order of `layers`."""
        return jnp.stack([layer.state_norm for layer in self.layers.values()], axis=-3)


class _Norms(NamedTuple):
    """Probes: zeros, by which the loss is differentiated.

    Attributes:
        states: [T, B].
        weights: name -> [T].
    """

    states: Array
    weights: dict[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _NormListener(Listener):
    """Hears the norms of the cotangents of the states and of each step's weights."""

    def make_probes(self, steps: int, batch: int, weights: PyTree) -> _Norms:
        norms = _parameter_norms(weights)
        dtype = jnp.result_type(jnp.float32, *norms.values())
        return _Norms(jnp.zeros((steps, batch), dtype), {name: jnp.zeros(steps, dtype) for name in norms})

    def start(self, weights: PyTree) -> PyTree:
        return gathered(weights)

    def before(self, state: State, weights: PyTree, riding: PyTree, probes: _Norms) -> tuple[State, PyTree, PyTree]:
        return state, *tap_weights(_norms_of_step, weights, riding, probes.weights)

    def after(self, state: State, probes: _Norms) -> State:
        return tap(state, probes.states)


def _norms_of_step(here: PyTree, total: PyTree) -> dict[str, Array]:
    return _parameter_norms(here)


def _parameter_norms(weights: PyTree) -> dict[str, Array]:
    named = {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(weights)}
    return {name: cotangent_norm(leaf[None])[0] for name, leaf in named.items()}


def loss_adjoints(model: nnx.Module, loss: Loss, batch: PyTree) -> LossAdjoints:
    r"""Measure what reaches every time step of a loss's gradient, by the state and into the recurrent weights.

    .. math:: \Bigl\| \frac{\partial \ell_b}{\partial h_t} \Bigr\|, \qquad
              \Bigl\| \frac{1}{B} \sum_b \frac{\partial \ell_b}{\partial h_t} \frac{\partial^+ h_t}{\partial W}
              \Bigr\|_F

    for each example b, layer and step t, where :math:`\partial^+` is the immediate derivative, with
    :math:`h_{t-1}` held fixed (Pascanu, Mikolov and Bengio 2013, eq. 3-5).

    Algorithm: one backward pass through taps (see `taps`). A step's cotangents are reduced to their norms where they
    pass, with the largest entry taken out first, so that 1e-30 is still a norm in float32. The gradient of the
    parameters is a by-product, the same as without taps up to the rounding of what the compiler fuses.

    Any module that holds a `Recurrence` will do, once or often, however it is called: `loss` calls it. Each layer must
    be called once. A layer that is not reached by any loss has norms of 0.

    Cost: that of `jax.value_and_grad` by the same scan and 10 to 16 %; on CPUs, where the gradient alone is gathered
    from many steps at once, 1.3 to 1.6 times that (benchmarks/loss_adjoints.py). Memory: T B numbers for each layer and
    T for each of its parameters, no copy of the gradient. Inputs are projected step by step.

    Args:
        model: the model, which is not changed.
        loss: (model, batch) -> losses [B], in the order of the examples that the layers see; the mean is
            differentiated for the parameters, each example's own for the states.
        batch: what the loss takes; any pytree of arrays.

    Returns:
        The norms by layer, the losses, and the gradient of their mean.

    Raises:
        ValueError: a model without a layer that can be tapped, one called twice or not at all, a loss that is not [B].
    """
    graph, state = nnx.split(model)
    return _measure(graph, loss, state, batch)


@partial(jax.jit, static_argnums=(0, 1))
def _measure(graph: Any, loss: Loss, state: PyTree, batch: PyTree) -> LossAdjoints:
    _, params, rest = nnx.split(nnx.merge(graph, state), nnx.Param, ...)

    def run(params: PyTree, probes: dict[str, _Norms] | None) -> tuple[Array, Any]:
        model = nnx.merge(graph, params, rest, copy=True)
        losses, probes, first_nonfinite = run_tapped(model, loss, batch, lambda _: _NormListener(), probes)
        return jnp.sum(losses), (losses, probes, first_nonfinite)

    shapes = jax.eval_shape(lambda: run(params, None)[1][1])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (gradient, norms), (losses, _, first_nonfinite) = jax.grad(run, argnums=(0, 1), has_aux=True)(params, zeros)

    share = 1 / len(losses)
    broken = jnp.any(jnp.stack([first >= 0 for first in first_nonfinite.values()]), axis=0)
    layers = {
        path: LayerAdjoints(
            jnp.where(broken[None, :], jnp.nan, heard.states),
            {name: jnp.where(jnp.any(broken), jnp.nan, share * norm) for name, norm in heard.weights.items()},
            first_nonfinite[path],
        )
        for path, heard in norms.items()
    }
    return LossAdjoints(losses, jax.tree.map(lambda leaf: share * leaf, gradient), layers)
