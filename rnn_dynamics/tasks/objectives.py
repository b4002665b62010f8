"""What a task may ask for, each with its loss and metric: one class, numbers, or a class at every step."""

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.types import Regime

NOT_ASKED = -1
"""The target of a step at which nothing is asked."""


class Classification:
    """One class for a sequence: cross-entropy and accuracy.

    Attributes:
        regime: "many_to_one".
        metric_name: "accuracy".
        larger_is_better: True.
    """

    regime: Regime = "many_to_one"
    metric_name = "accuracy"
    larger_is_better = True

    def loss(self, outputs: Float[Array, "B C"], targets: Int[Array | np.ndarray, "B"]) -> Float[Array, "B"]:
        """Return the cross-entropy of each example.

        Args:
            outputs: [B, C] unnormalised log-probabilities.
            targets: [B] class numbers.

        Returns:
            [B], in nats.
        """
        return optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.asarray(targets))

    def metric(
        self, outputs: Float[Array | np.ndarray, "B C"], targets: Int[Array | np.ndarray, "B"]
    ) -> Float[Array, "B"]:
        """Return whether the largest output is the target's.

        Args:
            outputs: [B, C], any monotone function of the log-probabilities.
            targets: [B] class numbers.

        Returns:
            [B], 1.0 where it is and 0.0 elsewhere; the mean is the accuracy.
        """
        return (jnp.argmax(outputs, axis=-1).astype(targets.dtype) == targets).astype(jnp.float32)


class Regression:
    """Numbers for a sequence: the squared error is loss and metric.

    Attributes:
        regime: "many_to_one".
        metric_name: "squared error".
        larger_is_better: False.
    """

    regime: Regime = "many_to_one"
    metric_name = "squared error"
    larger_is_better = False

    def loss(self, outputs: Float[Array, "B C"], targets: Float[Array | np.ndarray, "B C"]) -> Float[Array, "B"]:
        """Return the squared error of each example.

        Args:
            outputs: [B, C].
            targets: [B, C].

        Returns:
            [B], the mean over the C numbers, in the targets' unit squared.
        """
        return jnp.mean((outputs - jnp.asarray(targets, outputs.dtype)) ** 2, axis=-1)

    def metric(
        self, outputs: Float[Array | np.ndarray, "B C"], targets: Float[Array | np.ndarray, "B C"]
    ) -> Float[Array, "B"]:
        """Return the loss of each example, [B]."""
        return self.loss(jnp.asarray(outputs), targets)


class StepClassification:
    """A class at every step: cross-entropy and accuracy, averaged over the steps at which something is asked.

    Attributes:
        regime: "many_to_many".
        metric_name: "accuracy".
        larger_is_better: True.
    """

    regime: Regime = "many_to_many"
    metric_name = "accuracy"
    larger_is_better = True

    def loss(self, outputs: Float[Array, "B T C"], targets: Int[Array | np.ndarray, "B T"]) -> Float[Array, "B"]:
        """Return the cross-entropy of each example.

        Args:
            outputs: [B, T, C] unnormalised log-probabilities.
            targets: [B, T] class numbers, `NOT_ASKED` where a step does not count.

        Returns:
            [B], in nats, the mean over the steps that count.
        """
        targets = jnp.asarray(targets)
        classes = jnp.maximum(targets, 0)  # of steps that do not count: any, for it must exist
        return _over_asked(optax.softmax_cross_entropy_with_integer_labels(outputs, classes), targets)

    def metric(
        self, outputs: Float[Array | np.ndarray, "B T C"], targets: Int[Array | np.ndarray, "B T"]
    ) -> Float[Array, "B"]:
        """Return the share of the steps at which the largest output is the target's.

        Args:
            outputs: [B, T, C], any monotone function of the log-probabilities.
            targets: [B, T] class numbers, `NOT_ASKED` where a step does not count.

        Returns:
            [B], 0 ... 1, of the steps that count.
        """
        right = jnp.argmax(outputs, axis=-1).astype(targets.dtype) == targets
        return _over_asked(right.astype(jnp.float32), jnp.asarray(targets))


def _over_asked(values: Float[Array, "B T"], targets: Int[Array, "B T"]) -> Float[Array, "B"]:
    asked = targets != NOT_ASKED
    # A part of a sequence in which nothing is asked, as in truncated backpropagation, has a mean of 0.
    return jnp.sum(values, axis=-1, where=asked) / jnp.maximum(jnp.sum(asked, axis=-1), 1).astype(values.dtype)
