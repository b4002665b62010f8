"""Truncated backpropagation through time (Williams and Peng 1990): gradients that go back a limited number of steps.

Where a network answers at every step, sequences are cut into windows, one update each, and a window starts from the
carry that the one before has left. Where it answers once, at the end, only the last steps have a gradient.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.models import SequenceModel
from rnn_dynamics.types import Batch, Carry, Regime


class HandedOn(nnx.Variable):
    """What a window leaves to the next one."""


class WindowedModel(nnx.Module):
    """A many-to-many model that reads sequences window by window, each call going on from where the last one ended.

    Args:
        model: the model.
        batch: B.
        windows: of a sequence; after so many calls the next one starts anew.
    """

    def __init__(self, model: SequenceModel, batch: int, windows: int):
        self.model = model
        self.windows = windows
        # Copied, for what is learned as the initial carry must not share its memory with what is handed on.
        self.carry = nnx.List([HandedOn(jnp.array(leaf)) for leaf in self._fresh_leaves(batch)])
        self.window = HandedOn(jnp.zeros((), jnp.int32))

    def __call__(self, inputs: Array, lengths: Array) -> Array:
        """Answer about one window.

        Args:
            inputs: features [B, window, F], or tokens [B, window].
            lengths: [B], valid steps within the window, 0 for a sequence that has ended.

        Returns:
            Outputs [B, window, C].
        """
        first = self.window[...] == 0
        fresh = self.model.recurrence.initialize_carry(inputs.shape[0])
        leaves = [jnp.where(first, new, old[...]) for new, old in zip(jax.tree.leaves(fresh), self.carry, strict=True)]
        carry, hidden = self.model.read(inputs, lengths, jax.tree.unflatten(jax.tree.structure(fresh), leaves))
        for handed_on, leaf in zip(self.carry, jax.tree.leaves(carry), strict=True):
            handed_on[...] = jax.lax.stop_gradient(leaf)
        self.window[...] = (self.window[...] + 1) % self.windows
        return self.model.answer(hidden, lengths)

    def _fresh_leaves(self, batch: int) -> list[Array]:
        return jax.tree.leaves(self.model.recurrence.initialize_carry(batch))


class LastStepsModel(nnx.Module):
    """A many-to-one model whose gradient goes back from the end of the padded sequences by so many steps.

    Args:
        model: the model.
        truncation: steps with a gradient; those before are read without.
    """

    def __init__(self, model: SequenceModel, truncation: int):
        self.model = model
        self.truncation = truncation

    def __call__(self, inputs: Array, lengths: Array) -> Array:
        """Answer [B, C] about sequences [B, T, F] or [B, T] of T >= truncation steps."""
        start = inputs.shape[1] - self.truncation
        if start == 0:
            return self.model(inputs, lengths)
        carry, before = self._read_without_gradient(inputs[:, :start], jnp.minimum(lengths, start))
        _, last = self.model.read(inputs[:, start:], jnp.maximum(lengths - start, 0), carry)
        return self.model.answer(jnp.concatenate([before, last], axis=1), lengths)

    def _read_without_gradient(self, inputs: Array, lengths: Array) -> tuple[Carry, Array]:
        # The parameters are held, and not what is read: so nothing of these steps is kept for a backward pass.
        graph, params, rest = nnx.split(self.model, nnx.Param, ...)
        still = nnx.merge(graph, jax.lax.stop_gradient(params), rest, copy=True)
        read = still.read(inputs, lengths)
        nnx.update(self.model, nnx.state(still, nnx.Not(nnx.Param)))  # a dropout's keys have moved on
        return read


def position_of(batches: Any) -> Any:
    """Return where an iterator stands, to be handed to its `set_state`; None for one that has no such thing."""
    return batches.get_state() if hasattr(batches, "get_state") else None


class Windows(Iterator[Batch]):
    """The windows of batches, one after the other; its state can be saved and restored where theirs can.

    Args:
        batches: [B, T, ...] with targets [B, T, ...], or all with an axis of orders before.
        steps: of a window; the last one of a sequence has what is left.
        time_axis: of all arrays but the lengths.
    """

    def __init__(self, batches: Any, steps: int, time_axis: int = 1):
        self.batches = batches
        self.steps = steps
        self.time_axis = time_axis
        self._left: list[Batch] = []
        self._taken = 0
        self._before: Any = None

    def __next__(self) -> Batch:
        """Return the next window."""
        if not self._left:
            self._before = position_of(self.batches)
            self._left, self._taken = self._cut(next(self.batches)), 0
        self._taken += 1
        return self._left.pop(0)

    def get_state(self) -> dict[str, Any] | None:
        """Return where it stands; None where the batches cannot tell."""
        before, taken = (self._before, self._taken) if self._left else (position_of(self.batches), 0)
        return None if before is None else {"batches": before, "taken": taken}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `get_state` was called."""
        self.batches.set_state(state["batches"])
        self._left = []
        for _ in range(state["taken"]):
            next(self)

    def _cut(self, batch: Batch) -> list[Batch]:
        steps = batch.inputs.shape[self.time_axis]
        return [self._window(batch, start, min(start + self.steps, steps)) for start in range(0, steps, self.steps)]

    def _window(self, batch: Batch, start: int, stop: int) -> Batch:
        def within(leaf: Any) -> Any:
            return leaf[(slice(None),) * self.time_axis + (slice(start, stop),)]

        return Batch(within(batch.inputs), within(batch.targets), (batch.lengths - start).clip(0, stop - start))


def truncated(model: nnx.Module, regime: Regime, truncation: int, example: Batch) -> nnx.Module:
    """Wrap a model so that its gradients go back no further.

    Args:
        model: the model, which the wrapper shares.
        regime: of the task.
        truncation: steps.
        example: a batch of the task, whose shape all have.

    Returns:
        (inputs, lengths) -> outputs, of whole sequences where the model answers once, else of `Windows`.

    Raises:
        ValueError: more steps than the sequences have, or a model that is no `SequenceModel`.
    """
    batch, steps = example.inputs.shape[:2]
    if truncation > steps:
        raise ValueError(f"truncation must be at most the {steps} steps of the task's sequences, got {truncation}")
    if not isinstance(model, SequenceModel):
        raise ValueError(f"truncation needs a SequenceModel, which hands its carry on, got {type(model).__name__}")
    if regime == "many_to_one":
        return LastStepsModel(model, truncation)
    return WindowedModel(model, batch, -(-steps // truncation))
