"""Taps: what a backward pass tells of every time step, neither stored nor disturbed.

A tap is an identity with a second argument, zeros, that does nothing on the way forward. On the way back the "gradient"
of those zeros is a number made from the cotangent that passes: for a scan whose step t taps its carry, that of the
zeros [T, B] is ||dL/dh_t|| for every example. Nothing is stored but those numbers, the gradients that go by stay the
same, and it holds under nested checkpointing.

A layer does not know what is measured. Its scan shows the carry and the weights of every step to a `Listener`, which a
quantity of `dynamics` hangs into a copy of the model (`tapped_layers`, `TappedLayer`). A scan of your own taps
its carry with `tap` alone.
"""

import abc
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

PyTree: TypeAlias = Any
State: TypeAlias = Any
"""A pytree of arrays [B, ...]."""


class Listener(abc.ABC):
    """What a layer's scan lets by at every step: hooks that leave every value as it is.

    A listener must be a pytree, for it travels through compiled functions within the model.
    """

    @abc.abstractmethod
    def make_probes(self, steps: int, batch: int, weights: PyTree) -> PyTree:
        """Return zeros with a leading time axis, [T, ...]; each step gets its slice.

        Args:
            steps: T.
            batch: B.
            weights: the parameters of the layer's cell.
        """

    def start(self, weights: PyTree) -> PyTree:
        """Return what rides along the scan beside the state; None is nothing."""
        return None

    def before(self, state: State, weights: PyTree, riding: PyTree, probes: PyTree) -> tuple[State, PyTree, PyTree]:
        """Let by the state that enters a step, the weights that the step will use, and what rides along."""
        return state, weights, riding

    def reads(self, inputs: Array, probes: PyTree) -> Array:
        """Let by the inputs [B, F] that a step reads."""
        return inputs

    def after(self, state: State, probes: PyTree) -> State:
        """Let by the state that leaves a step; the step's output, one of its arrays, is taken from what returns."""
        return state


class TappedLayer(nnx.Module):
    """A layer whose scan of a cell shows every step to a listener; but for the cell all is None while none listens.

    Attributes:
        cell: the cell.
        listener: hung in by a quantity, on a copy of the model.
        probes: the listener's zeros, by which the quantity differentiates. The layer's call makes them where there are
            none, which is how a quantity learns their shapes.
        first_nonfinite_step: [B], written by the call: the first time step that left an example with an inf or NaN in
            its state, in the order of the scan; -1 where there was none.
    """

    cell: nnx.RNNCellBase
    listener: Listener | None = None
    probes: PyTree = None
    first_nonfinite_step: Array | None = None

    def draw_probes(self, steps: int, batch: int, weights: PyTree) -> PyTree:
        """Return the probes for the one call on [B, T, F].

        Raises:
            ValueError: a second call, whose gradients the probes would mix with those of the first.
        """
        assert self.listener is not None
        if self.first_nonfinite_step is not None:
            raise ValueError(f"a {type(self).__name__} that is tapped must be called once, it was called again")
        if self.probes is None:
            self.probes = nnx.data(self.listener.make_probes(steps, batch, weights))
        return self.probes


def tapped_layers(model: nnx.Module) -> dict[str, TappedLayer]:
    """Find a model's layers that can be tapped.

    Args:
        model: any module.

    Returns:
        Path in the model joined by dots ("" for the model itself) -> layer, in the order of Flax's graph: alphabetical
        by attribute, lists by number.

    Raises:
        ValueError: if there is none.
    """
    modules = nnx.iter_modules(model)
    layers = {".".join(map(str, path)): module for path, module in modules if isinstance(module, TappedLayer)}
    if not layers:
        raise ValueError(
            f"model must hold a layer that can be tapped, such as Recurrence; got a {type(model).__name__}"
        )
    return layers


def run_tapped(
    model: nnx.Module,
    loss: Callable[[Any, Any], Array],
    batch: PyTree,
    listeners: Callable[[str], Listener],
    probes: dict[str, PyTree] | None = None,
) -> tuple[Array, dict[str, PyTree], dict[str, Array]]:
    """Compute a loss while listeners hear every layer: a pure function of the probes, to be differentiated by them.

    Args:
        model: a copy that nobody else needs; the listeners stay in it.
        loss: (model, batch) -> losses [B].
        batch: what the loss takes.
        listeners: path of a layer -> what listens to it.
        probes: path -> probes; None lets the layers make them.

    Returns:
        Losses [B]; the probes that were used, and the first non-finite step of each example [B], by path.

    Raises:
        ValueError: no layer to be tapped, one called twice or not at all, a loss that is not [B].
    """
    layers = tapped_layers(model)
    for path, layer in layers.items():
        layer.listener = nnx.data(listeners(path))
        layer.probes = nnx.data(None if probes is None else probes[path])
    losses = loss(model, batch)
    heard = {path: layer.first_nonfinite_step for path, layer in layers.items()}
    silent = [path for path, first in heard.items() if first is None]
    if silent:
        raise ValueError(f"loss must call every layer of the model once, it did not call {', '.join(silent)}")
    batches = {first.shape for first in heard.values() if first is not None}
    if {jnp.shape(losses)} != batches:
        raise ValueError(
            f"loss must return one number for each example, shape [batch] as in the layers: "
            f"{', '.join(map(str, sorted(batches)))}; got {jnp.shape(losses)}"
        )
    return losses, {path: layer.probes for path, layer in layers.items()}, heard  # pyright: ignore[reportReturnType]


@jax.custom_vjp
def tap(state: State, probe: Array) -> State:
    """Return the state as it is; the cotangent of `probe` [B] becomes the norm over all of the state's other axes.

    Args:
        state: pytree of arrays [B, ...].
        probe: zeros [B], the slice of the taps for this step.

    Returns:
        The state.
    """
    return state


def _tap_forward(state: State, probe: Array) -> tuple[State, Array]:
    return state, probe


def _tap_backward(probe: Array, cotangent: State) -> tuple[State, Array]:
    return cotangent, cotangent_norm(cotangent).astype(probe.dtype)


tap.defvjp(_tap_forward, _tap_backward)


@jax.custom_vjp
def note(values: State, probe: State) -> State:
    """Return the values as they are; the cotangent of `probe` becomes the values themselves, in its dtype.

    So a backward pass tells what was at every step, beside what came back to it.

    Args:
        values: pytree of arrays [B, ...].
        probe: zeros like the values.

    Returns:
        The values.
    """
    return values


def _note_forward(values: State, probe: State) -> tuple[State, State]:
    return values, jax.tree.map(lambda value, zero: value.astype(zero.dtype), values, probe)


note.defvjp(_note_forward, lambda noted, cotangent: (cotangent, noted))


@jax.custom_vjp
def gathered(weights: PyTree) -> PyTree:
    """Return zeros like the weights, whose cotangent becomes that of the weights: where `tap_weights` gathers."""
    return jax.tree.map(jnp.zeros_like, weights)


gathered.defvjp(lambda weights: (gathered(weights), None), lambda _, cotangent: (cotangent,))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def tap_weights(
    summarise: Callable[[PyTree, PyTree], PyTree], weights: PyTree, later: PyTree, probes: PyTree
) -> tuple[PyTree, PyTree]:
    r"""Return weights and `later` as they are, and summarise on the way back what each step adds to the gradient.

    With :math:`\partial L / \partial W = \sum_t \Delta_t`, where step t uses the weights, the scan carries `later` from
    `gathered(weights)` on; its cotangent is then the partial sum :math:`\sum_{s \ge t} \Delta_s`, and no other copy of
    the gradient is made than the one that the backward pass adds up anyway.

    Args:
        summarise: (Delta_t, sum over s >= t of Delta_s) -> the cotangent of the probes. Compiled in by its identity.
        weights: what the step uses; their gradient goes to `later` alone.
        later: zeros like the weights, carried by the scan.
        probes: zeros, the slice for this step.

    Returns:
        The weights to be used by the step, and `later` for the next.
    """
    return weights, later


def _weights_forward(summarise: Callable, weights: PyTree, later: PyTree, probes: PyTree) -> tuple[Any, None]:
    return (weights, later), None


def _weights_backward(summarise: Callable, _: None, cotangents: tuple[PyTree, PyTree]) -> tuple[None, PyTree, PyTree]:
    here, later = cotangents
    total = jax.tree.map(jnp.add, later, here)
    return None, total, summarise(here, total)


tap_weights.defvjp(_weights_forward, _weights_backward)


def cotangent_norm(cotangent: State) -> Array:
    """Return the Euclidean norm of each example's cotangent, [B], over all leaves [B, ...], in float32 at least.

    Where squares could under- or overflow the largest entry is taken out first: 1e-30 is a norm in float32 too.
    """
    parts = [
        part
        for leaf in jax.tree.leaves(cotangent)
        for part in ((jnp.real(leaf), jnp.imag(leaf)) if jnp.iscomplexobj(leaf) else (leaf,))
    ]
    flat = [part.reshape(part.shape[0], -1, part.shape[-1] if part.ndim > 1 else 1) for part in parts]
    dtype = jnp.result_type(jnp.float32, *flat)
    flat = [leaf.astype(dtype) for leaf in flat]
    squares = reduce(jnp.add, [_sum_of_squares(leaf) for leaf in flat])
    # Squares that matter beside such a sum are normal numbers too.
    safe = (squares > jnp.finfo(dtype).tiny / jnp.finfo(dtype).eps ** 2) & (squares < jnp.inf)
    return jax.lax.cond(jnp.all(safe), lambda: jnp.sqrt(jnp.where(safe, squares, 1)), lambda: _norm_of_any_size(flat))


def _norm_of_any_size(flat: list[Array]) -> Array:
    largest = jax.lax.stop_gradient(reduce(jnp.maximum, [jnp.max(jnp.abs(leaf), axis=(1, 2)) for leaf in flat]))
    regular = (largest > 0) & jnp.isfinite(largest)
    # A scale whose inverse is a normal number too: products cost much less than quotients.
    tiny, huge = jnp.finfo(largest.dtype).tiny, jnp.finfo(largest.dtype).max
    scale = jnp.where(regular, jnp.clip(largest, 8 * tiny, huge / 8), 1)
    inverse = (1 / scale)[:, None, None]
    squares = reduce(jnp.add, [_sum_of_squares(leaf * inverse) for leaf in flat])
    return jnp.where(regular, scale * jnp.sqrt(jnp.where(regular, squares, 1)), largest)


def _sum_of_squares(rows: Array) -> Array:
    """Sum over [B, m, n] to [B]."""
    # Over the last axis last: the other sums are vectorised on CPUs.
    return jnp.sum(jnp.sum(rows**2, axis=1), axis=1)
