"""A task's sequences end to end: one long input that drives a network without resets, for long horizons."""

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.types import Task


def input_stream(task: Task, steps: int, *, seed: int, token_features: int = 32, split: str = "test") -> np.ndarray:
    """Join the valid steps of shuffled examples, as a network that is trained on the task sees them.

    Tokens become independent Gaussian vectors.

    Args:
        task: whose inputs to take.
        steps: T >= 1.
        seed: of the order of the examples, and of the token vectors.
        token_features: F of token vectors.
        split: which examples.

    Returns:
        Inputs [T, F], float64.

    Raises:
        ValueError: steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    pieces, missing = [], steps
    for batch in task.batches(split, 1, seed=seed, epochs=None):
        piece = np.asarray(batch.inputs[0])[: min(int(batch.lengths[0]), missing)]
        pieces.append(piece)
        missing -= len(piece)
        if missing == 0:
            break
    stream = np.concatenate(pieces)
    if task.vocabulary_size is not None:
        vectors = jax.random.normal(jax.random.key(seed), (task.vocabulary_size, token_features), jnp.float64)
        stream = np.asarray(vectors)[stream]
    return stream.astype(np.float64)


def standardised(stream: np.ndarray) -> np.ndarray:
    """Scale a stream to zero mean and unit variance over all of it.

    An input kernel of variance 1/F then gives every task the same input power, so that what differs between tasks is
    the order of their inputs and not their size.

    Args:
        stream: [T, F].

    Returns:
        [T, F].

    Raises:
        ValueError: a stream that is the same number throughout.
    """
    deviation = stream.std()
    if not deviation > 0:
        raise ValueError(f"stream must vary, got nothing but {stream.flat[0]} in {len(stream)} steps")
    return (stream - stream.mean()) / deviation
