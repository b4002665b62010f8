"""Truncated back-propagation through time against the whole of it: the weight gradient by lag, and by time."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.loss_adjoints import Loss
from rnn_dynamics.taps import Listener, State, cotangent_norm, gathered, run_tapped, tap_weights, tapped_layers
from rnn_dynamics.types import PyTree

LAG = "lag"
"""Name of the mapped axis along which the parts of a cotangent that differ in lag lie."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TemporalComponents:
    r"""The gradient by the cells' parameters, split by how far back from its loss each part reaches.

    Attributes:
        components: layer -> its cell's parameters with a leading axis [L+1]: the part of each lag 0 ... L-1 and, last,
            all that lies further back; they add up to the gradient of the mean loss.
        component_norm: [L], Frobenius norm of each lag's part over all layers, loss per unit of weight.
        truncated_norm: [L], that of the gradient truncated to k = 1 ... L steps: the lags 0 ... k-1 together.
        cosine: [L], of the angle between the gradient truncated to k = 1 ... L steps and the full one; NaN where either
            is 0.
        relative_error: [L], ||full - truncated|| / ||full||, right also where the cosine rounds to 1.
        residual: ||sum of all components - gradient|| / ||gradient||, against a plain backward pass: rounding alone if
            all is well. Look at it: jaxlib 0.10.2 compiles some small batched LSTMs wrongly on CPUs.
        first_nonfinite_step: [B], first step that left an inf or NaN in an example's state, -1 if none did; if any did,
            everything else is NaN.
    """

    components: dict[str, PyTree]
    component_norm: Float[Array, "*E L"]
    truncated_norm: Float[Array, "*E L"]
    cosine: Float[Array, "*E L"]
    relative_error: Float[Array, "*E L"]
    residual: Float[Array, "*E"]
    first_nonfinite_step: Int[Array, "*E B"]

    def split(self, truncation: int) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
        """Split the gradient into its short- and its long-lag part.

        Args:
            truncation: k = 1 ... L.

        Returns:
            The gradient truncated to k steps, lags 0 ... k-1, and the rest, by layer.

        Raises:
            ValueError: a truncation outside 1 ... L.
        """
        longest = self.cosine.shape[-1]
        truncation = whole_number("truncation", truncation, least=1)
        if truncation > longest:
            raise ValueError(f"truncation must be between 1 and max_lag = {longest}, got {truncation}")
        short = jax.tree.map(lambda leaf: jnp.sum(leaf[:truncation], axis=0), self.components)
        return short, jax.tree.map(lambda leaf: jnp.sum(leaf[truncation:], axis=0), self.components)


@jax.custom_vjp
def _older(state: State) -> State:
    """Let the state by; every part of its cotangent moves on to the next lag, and the last slot keeps what it has."""
    return state


def _older_backward(_: None, cotangent: State) -> tuple[State]:
    slots = jax.lax.axis_size(LAG)
    slot = jax.lax.axis_index(LAG)
    onwards = [(source, (source + 1) % slots) for source in range(slots)]

    def shifted(leaf: Array) -> Array:
        zero = jnp.zeros((), leaf.dtype)
        came = jax.lax.ppermute(leaf, LAG, onwards)
        return jnp.where(slot == 0, zero, came) + jnp.where(slot == slots - 1, leaf, zero)

    return (jax.tree.map(shifted, cotangent),)


_older.defvjp(lambda state: (state, None), _older_backward)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _LagListener(Listener):
    """Makes cotangents older by one lag with every step that they go back."""

    def make_probes(self, steps: int, batch: int, weights: PyTree) -> None:
        return None

    def before(self, state: State, weights: PyTree, riding: PyTree, probes: PyTree) -> tuple[State, PyTree, PyTree]:
        return _older(state), weights, riding


def temporal_components(model: nnx.Module, loss: Loss, batch: PyTree, *, max_lag: int) -> TemporalComponents:
    r"""Split the gradient of a loss by how far back it reaches, and compare truncated with full back-propagation.

    .. math:: \frac{\partial E}{\partial \theta} = \sum_\tau \sum_{t \le \tau}
              \frac{\partial E_\tau}{\partial h_\tau} \frac{\partial h_\tau}{\partial h_t}
              \frac{\partial^+ h_t}{\partial \theta}

    The terms are the temporal components of Pascanu, Mikolov and Bengio (2013, eq. 3-5); here those of one lag
    :math:`\tau - t` are together. Truncation to k steps keeps the lags 0 ... k-1 of every loss: the backward pass of
    each goes through k steps, exactly, as the BPTT(h) of Williams and Peng (1990), not in chunks.

    Algorithm: one backward pass with L+1 cotangents side by side, one for each lag and one for all that is older. A
    loss enters as lag 0; where a state's cotangent goes back from one step to the step before, it moves on by one lag.
    So losses at any steps are taken apart right, and those of sequences of different length. In a stack of layers a lag
    is a step back in time, in whichever layer.

    Cost: L+1 backward passes, batched into one, after one forward pass; and one gradient as a check. Memory: L+1
    gradients, and L+1 times the adjoints of one step. Where all losses are at the last step, `gradient_tails` tells all
    truncations in two passes.

    Args:
        model: the model, which is not changed; each layer that can be tapped must be called once.
        loss: (model, batch) -> losses [B]; their mean is differentiated.
        batch: what the loss takes; any pytree of arrays.
        max_lag: L >= 1, the longest truncation.

    Returns:
        The components, their norms, and by truncation 1 ... L the cosine with the full gradient and the relative error.

    Raises:
        ValueError: a model without a layer that can be tapped, one called twice or not at all, a loss that is not [B],
            max_lag < 1.
    """
    graph, state = nnx.split(model)
    return _components(graph, loss, whole_number("max_lag", max_lag, least=1), state, batch)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _components(graph: Any, loss: Loss, max_lag: int, state: PyTree, batch: PyTree) -> TemporalComponents:
    def run(cells: dict[str, PyTree]) -> tuple[Array, Array]:
        model = _with_cells(nnx.merge(graph, state, copy=True), cells)
        losses, _, first_nonfinite = run_tapped(model, loss, batch, lambda _: _LagListener())
        return losses, _earliest(first_nonfinite)

    def plain(cells: dict[str, PyTree]) -> Array:
        return jnp.mean(loss(_with_cells(nnx.merge(graph, state, copy=True), cells), batch))

    cells = _cells_of(nnx.merge(graph, state))
    losses, pull, first_nonfinite = jax.vjp(run, cells, has_aux=True)
    entering = jnp.zeros((max_lag + 1, len(losses)), losses.dtype).at[0].set(1 / len(losses))
    (components,) = jax.vmap(pull, axis_name=LAG)(entering)
    components = _unless_broken(first_nonfinite, components)

    flat = jnp.concatenate([leaf.reshape(max_lag + 1, -1) for leaf in jax.tree.leaves(components)], axis=1)
    gradient = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(jax.grad(plain)(cells))])
    truncated = jnp.cumsum(flat, axis=0)[:-1]
    missing = jnp.cumsum(flat[::-1], axis=0)[::-1][1:]
    full = jnp.sum(flat, axis=0)
    truncated_norm, full_norm = cotangent_norm(truncated), cotangent_norm(full[None])[0]
    return TemporalComponents(
        components=components,
        component_norm=cotangent_norm(flat[:-1]),
        truncated_norm=truncated_norm,
        cosine=jnp.sum(truncated / truncated_norm[:, None] * (full / full_norm)[None, :], axis=1),
        relative_error=cotangent_norm(missing) / full_norm,
        residual=cotangent_norm((full - gradient)[None])[0] / cotangent_norm(gradient[None])[0],
        first_nonfinite_step=first_nonfinite,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GradientTails:
    r"""The share that the weights' use from some step on has in the gradient by the cells' parameters.

    Attributes:
        tail_norm: [T], :math:`\|\sum_{s \ge t} \Delta_s\|_F` over all layers, loss per unit of weight; the first is the
            full gradient's.
        cosine: [T], of the angle between that sum and the full gradient; NaN where either is 0.
        first_nonfinite_step: [B], first step that left an inf or NaN in an example's state, -1 if none did; if any did,
            everything else is NaN.
    """

    tail_norm: Float[Array, "*E T"]
    cosine: Float[Array, "*E T"]
    first_nonfinite_step: Int[Array, "*E B"]


@jax.custom_vjp
def _projected(later: PyTree, direction: PyTree, probe: Array) -> PyTree:
    """Let `later` by; the cotangent of the probe becomes the product of that of `later` with the direction."""
    return later


def _projected_backward(direction: PyTree, cotangent: PyTree) -> tuple[PyTree, None, Array]:
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), cotangent, direction)
    return cotangent, None, sum(jax.tree.leaves(products))  # pyright: ignore[reportReturnType]


_projected.defvjp(lambda later, direction, probe: (later, direction), _projected_backward)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _TailListener(Listener):
    """Hears the partial sums of the weights' gradient: their norms or, given a direction, their products with it."""

    direction: PyTree

    def make_probes(self, steps: int, batch: int, weights: PyTree) -> Array:
        return jnp.zeros(steps, _norm(weights).dtype)

    def start(self, weights: PyTree) -> PyTree:
        return gathered(weights)

    def before(self, state: State, weights: PyTree, riding: PyTree, probes: Array) -> tuple[State, PyTree, PyTree]:
        if self.direction is None:
            return state, *tap_weights(_norm_of_tail, weights, riding, probes)
        riding = _projected(riding, self.direction, probes)
        return state, *tap_weights(_nothing, weights, riding, None)


def _norm_of_tail(here: PyTree, total: PyTree) -> Array:
    return _norm(total)


def _nothing(here: PyTree, total: PyTree) -> None:
    return None


def _norm(weights: PyTree) -> Array:
    return cotangent_norm([leaf[None] for leaf in jax.tree.leaves(weights)])[0]


def gradient_tails(model: nnx.Module, loss: Loss, batch: PyTree) -> GradientTails:
    r"""Measure how much of a gradient comes from the weights' use in the steps t, t+1, ..., T alone, for every t.

    .. math:: \cos \angle \Bigl( \sum_{s \ge t} \Delta_s, \; \sum_s \Delta_s \Bigr), \qquad
              \Delta_s = \frac{\partial L}{\partial h_s} \frac{\partial^+ h_s}{\partial \theta}

    Where all sequences have T steps and all losses are at the last one, the sum from t = T - k + 1 on is the gradient
    truncated to k steps: all truncations at once. For losses at several steps, or sequences of different lengths, lags
    and times are not the same, and `temporal_components` tells the truncations.

    Algorithm: a backward pass adds up these sums anyway, from the last step on; a tap hears their norms. A second one
    hears their products with the sum of all. In a layer that scans in reverse the sums go the other way, from the steps
    up to t.

    Cost: two passes of `loss_adjoints`, whatever T. Memory: that of two gradients.

    Args:
        model: the model, which is not changed; each layer that can be tapped must be called once, all with equal T.
        loss: (model, batch) -> losses [B]; their mean is differentiated.
        batch: what the loss takes; any pytree of arrays.

    Returns:
        Norms of the partial sums, and their cosines with the full gradient.

    Raises:
        ValueError: a model without a layer that can be tapped, one called twice or not at all, layers of different T, a
            loss that is not [B].
    """
    graph, state = nnx.split(model)
    return _tails(graph, loss, state, batch)


@partial(jax.jit, static_argnums=(0, 1))
def _tails(graph: Any, loss: Loss, state: PyTree, batch: PyTree) -> GradientTails:
    cells = _cells_of(nnx.merge(graph, state))

    def run(cells: dict[str, PyTree], probes: Any, direction: dict[str, PyTree]) -> tuple[Array, Any]:
        model = _with_cells(nnx.merge(graph, state, copy=True), cells)
        losses, probes, first_nonfinite = run_tapped(
            model, loss, batch, lambda path: _TailListener(direction[path]), probes
        )
        return jnp.mean(losses), (probes, _earliest(first_nonfinite))

    nowhere = dict.fromkeys(cells)
    shapes = jax.eval_shape(lambda: run(cells, None, nowhere)[1][0])
    if len({leaf.shape for leaf in shapes.values()}) > 1:
        raise ValueError(f"layers must have equal numbers of steps, got {[len(leaf) for leaf in shapes.values()]}")
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (gradient, norms), (_, first_nonfinite) = jax.grad(run, argnums=(0, 1), has_aux=True)(cells, zeros, nowhere)
    length = _norm(gradient)
    direction = jax.tree.map(lambda leaf: (leaf / length).astype(leaf.dtype), gradient)
    products, _ = jax.grad(run, argnums=1, has_aux=True)(cells, zeros, direction)
    tail_norm = cotangent_norm(jnp.stack(list(norms.values()), axis=1))
    cosine = sum(products.values()) / tail_norm
    tail_norm, cosine = _unless_broken(first_nonfinite, (tail_norm, cosine))
    return GradientTails(tail_norm, cosine, first_nonfinite)


def _cells_of(model: nnx.Module) -> dict[str, PyTree]:
    """Return the parameters of each tapped layer's cell, by the layer's path."""
    return {path: nnx.state(layer.cell, nnx.Param) for path, layer in tapped_layers(model).items()}


def _with_cells(model: nnx.Module, cells: dict[str, PyTree]) -> nnx.Module:
    for path, layer in tapped_layers(model).items():
        nnx.update(layer.cell, cells[path])
    return model


def _earliest(first_nonfinite: dict[str, Array]) -> Array:
    """Return the first non-finite step [B] over all layers, -1 where there is none."""
    stacked = jnp.stack(list(first_nonfinite.values()))
    never = jnp.iinfo(stacked.dtype).max
    earliest = jnp.min(jnp.where(stacked < 0, never, stacked), axis=0)
    return jnp.where(earliest == never, -1, earliest)


def _unless_broken(first_nonfinite: Array, numbers: PyTree) -> PyTree:
    broken = jnp.any(first_nonfinite >= 0)
    return jax.tree.map(lambda leaf: jnp.where(broken, jnp.nan, leaf), numbers)
