"""Omega: a loss's gradient shall neither shrink nor grow from one step to the one before it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.taps import Listener, State, cotangent_norm, note, run_tapped, tapped_layers
from rnn_dynamics.training.recipe import Loss
from rnn_dynamics.types import Batch, Carry, Evaluable, PyTree, ReadsByRecur


@dataclass(frozen=True)
class VanishingGradientPenalty:
    r"""Penalise what a step makes of the gradient's length (Pascanu, Mikolov and Bengio 2013, eq. 9-10).

    .. math:: \Omega = \operatorname{mean}_{t, b} \left(
              \frac{\| d_t J_t \|}{\| d_t \|} - 1 \right)^2, \qquad
              d_t = \frac{\partial \ell_b}{\partial s_t}, \quad J_t = \frac{\partial s_t}{\partial s_{t-1}}

    Only what the recurrent weights do to :math:`J_t` at once is differentiated (the paper's
    :math:`\partial^+ \Omega / \partial W`): states, adjoints :math:`d_t`, and so the slopes of the units and the values
    of the gates are held as they are. That is so for cells that read their state by `recur` (`types.ReadsByRecur`). Of
    any other, such as Flax's, which does not say what its recurrent weights are, all parameters are moved, at fixed
    states and adjoints, and slopes move with them.

    The state is the whole carry; :math:`J_1`, from the first carry, counts. The mean is over the examples and steps
    of all layers that the loss reaches: where :math:`d_t` has vanished, as beyond a sequence's length, a step does not
    count. So do the authors in their code (pascanur/trainingRNNs), where the paper has a sum over steps; they square
    both norms first, so that near 1 their Omega is four times this one, and their weights a fourth.

    Algorithm: one tapped forward and backward pass (see `taps`) for states and adjoints, then the vector-Jacobian
    products of all steps as one batch. Adjoints are brought to length 1 first, so that 1e-30 is as good as 1.

    Cost: about two gradients of the loss. Memory: inputs, states and adjoints of all steps and examples. A model with
    dropout draws masks of its own here.

    Attributes:
        loss: (model, batch) -> losses [B]; it must call every layer of the model once.
    """

    loss: Loss

    def __call__(self, model: Any, batch: Batch) -> Array:
        """Return Omega.

        Args:
            model: any that holds a layer that can be tapped, such as `Recurrence`; it is not changed.
            batch: what the loss takes.

        Returns:
            [], >= 0; NaN where states or adjoints are not finite; 0 where no gradient reaches any state.

        Raises:
            ValueError: a model without such a layer, one called twice or not at all, a loss that is not [B], a cell
                without `in_features`.
        """
        heard = _hear(model, self.loss, batch)
        layers = tapped_layers(model)
        sums, counts = zip(*(_deviation(layers[path].cell, steps) for path, steps in heard.items()), strict=True)
        return sum(sums) / jnp.maximum(sum(counts), 1)


class _Steps(NamedTuple):
    """Probes of one layer, zeros, and what the backward pass leaves in their place, leaves [T, B, ...].

    Attributes:
        inputs: that each step reads.
        entering: the carry that enters.
        adjoints: of the carry that leaves, in the order of its leaves.
    """

    inputs: Array
    entering: Carry
    adjoints: list[Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _StepListener(Listener):
    """Hears what is needed to make every step again.

    Attributes:
        features: zeros [F], like one sequence's inputs at a step.
        carry: zeros, like one sequence's carry.
    """

    features: Array
    carry: Carry

    @classmethod
    def of(cls, cell: nnx.RNNCellBase) -> "_StepListener":
        if not hasattr(cell, "in_features"):
            raise ValueError(f"cells must have an attribute in_features, {type(cell).__name__} has none")
        features: int = cell.in_features  # pyright: ignore[reportAttributeAccessIssue]
        carry = jax.tree.map(jnp.zeros_like, cell.initialize_carry((features,), nnx.Rngs(0)))
        return cls(jnp.zeros(features, jnp.finfo(jnp.result_type(*jax.tree.leaves(carry))).dtype), carry)

    def make_probes(self, steps: int, batch: int, weights: PyTree) -> _Steps:
        probes = _Steps(self.features, self.carry, jax.tree.leaves(self.carry))
        return jax.tree.map(lambda leaf: jnp.zeros((steps, batch, *leaf.shape), leaf.dtype), probes)

    def before(self, state: State, weights: PyTree, riding: PyTree, probes: _Steps) -> tuple[State, PyTree, PyTree]:
        return note(state, probes.entering), weights, riding

    def reads(self, inputs: Array, probes: _Steps) -> Array:
        return note(inputs, probes.inputs)

    def after(self, state: State, probes: _Steps) -> State:
        return jax.tree.map(jnp.add, state, probes.adjoints)


def _hear(model: nnx.Module, loss: Loss, batch: Batch) -> dict[str, _Steps]:
    """Run a copy of the model forward and back: path of each layer -> inputs, carries and adjoints of its steps."""
    graph, state = nnx.split(model)
    state = jax.tree.map(jax.lax.stop_gradient, state)
    listeners = {path: _StepListener.of(layer.cell) for path, layer in tapped_layers(model).items()}

    def total_loss(probes: dict[str, _Steps] | None) -> tuple[Array, dict[str, _Steps]]:
        copy = nnx.merge(graph, state, copy=True)
        losses, probes, _ = run_tapped(copy, loss, batch, listeners.__getitem__, probes)
        return jnp.sum(losses), probes

    shapes = jax.eval_shape(lambda: total_loss(None)[1])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, pull, _ = jax.vjp(total_loss, zeros, has_aux=True)  # not grad, which takes no complex carries
    return pull(jnp.ones_like(total))[0]


def _deviation(cell: nnx.RNNCellBase, steps: _Steps) -> tuple[Array, Array]:
    """Return the sum of (||d J|| / ||d|| - 1)^2 over a layer's steps and examples, and how many count."""
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)
    norm = cotangent_norm(rows.adjoints)
    # Of a shorter one the small entries are no normal numbers any more. NaN is not passed over.
    counts = ~(norm < jnp.finfo(norm.dtype).tiny / jnp.finfo(norm.dtype).eps)
    scale = jnp.where(counts, norm, 1)
    directions = [leaf / scale.astype(leaf.dtype).reshape(-1, *[1] * (leaf.ndim - 1)) for leaf in rows.adjoints]
    carry, pull = jax.vjp(lambda entering: _step_of(cell)(entering, rows.inputs), rows.entering)
    ratio = cotangent_norm(pull(jax.tree.unflatten(jax.tree.structure(carry), directions))[0])
    return jnp.sum(jnp.where(counts, (ratio - 1) ** 2, 0)), jnp.sum(counts)


def _step_of(cell: nnx.RNNCellBase) -> Callable[[Carry, Array], Carry]:
    """Return the cell's step, (carry, inputs) -> carry, with a Jacobian that is moved by the recurrent weights alone.

    Where the cell does not say what those are, all of its parameters move it.
    """
    moving: Any = cell.evaluated() if isinstance(cell, Evaluable) else cell
    if not isinstance(moving, ReadsByRecur):
        return lambda carry, inputs: moving(carry, inputs)[0]
    graph, state = nnx.split(moving)
    still: Any = nnx.merge(graph, jax.tree.map(jax.lax.stop_gradient, state), copy=True)
    still.recur = partial(_recur_with_fixed_value, moving.recur)
    return lambda carry, inputs: still(carry, inputs)[0]


def _recur_with_fixed_value(recur: Callable[..., Array], hidden: Array, *options: Any) -> Array:
    """Map the hidden state by weights that move the derivative by the state, but not the value."""
    value = recur(hidden, *options)
    return jax.lax.stop_gradient(value) + (value - recur(jax.lax.stop_gradient(hidden), *options))
