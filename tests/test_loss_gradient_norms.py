"""The loss gradient by the state at every step, against nudging the carry by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from largest_so_far import FEATURES, STEPS, TASK, WORDS, classifier, cross_entropy

from rnn_dynamics.training import loss_gradient_norms


def gradient_norms_by_hand(model, batch):
    """Nudge the whole carry after each step, example by example, and differentiate its loss by the nudge."""

    def loss(nudges, inputs, target, length):
        carry, outputs = model.cell.initialize_carry((FEATURES,)), []
        for t in range(STEPS):
            carry, _ = model.cell(carry, inputs[t])
            carry = jax.tree.map(lambda leaf, nudge, t=t: leaf + nudge[t], carry, nudges)
            outputs.append(jax.tree.leaves(carry)[-1])  # h is the last array of the carry
        return cross_entropy(model.head(jnp.stack(outputs)[length - 1])[None], target[None])[0]

    carry = model.cell.initialize_carry((STEPS, FEATURES))
    nudges = jax.tree.map(lambda leaf: jnp.zeros((STEPS, leaf.shape[-1])), carry)
    one = jax.jit(jax.grad(loss))
    norms = []
    for inputs, target, length in zip(model.encode(batch.inputs), batch.targets, batch.lengths, strict=True):
        leaves = jax.tree.leaves(one(nudges, inputs, target, length))
        norms.append(np.sqrt(sum(np.sum(np.square(leaf), axis=1) for leaf in leaves)))
    return np.stack(norms, axis=1)


@pytest.mark.parametrize(("name", "vocabulary_size"), [("LSTMCell", WORDS), ("ElmanCell", None)])
def test_gradient_norms_by_state_and_step(name, vocabulary_size):
    batch = next(TASK.batches("test", 5))
    if vocabulary_size is not None:
        batch = batch._replace(inputs=np.random.default_rng(1).integers(0, WORDS, (5, STEPS)).astype(np.int32))
    model = classifier(name, vocabulary_size=vocabulary_size)
    norms = loss_gradient_norms(model, TASK, batch)
    assert norms.shape == (STEPS, 5)
    np.testing.assert_allclose(norms, gradient_norms_by_hand(model, batch), rtol=1e-11)
    within = np.arange(STEPS)[:, None] < batch.lengths
    assert not within.all(), "some sequence should be shorter than the batch"
    np.testing.assert_array_equal(norms > 0, within)
