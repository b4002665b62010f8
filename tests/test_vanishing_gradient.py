"""Omega and its gradient, against closed forms, the authors' formula in NumPy, and Jacobians formed step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from largest_so_far import TASK, classifier
from networks import noise
from stepwise import LENGTHS, STEPS, TwoLayers, loss_at_every_step, nudges_of, outputs_stepwise, sequences

from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.initializers import orthogonal
from rnn_dynamics.layers import Recurrence
from rnn_dynamics.training import VanishingGradientPenalty
from rnn_dynamics.types import Batch


def task_loss(model, batch):
    return TASK.loss(model(batch.inputs, batch.lengths), batch.targets)


def sum_of_last(model, batch):
    return jnp.sum(model(batch.inputs, lengths=batch.lengths)[1][jnp.arange(2), batch.lengths - 1], axis=1)


def linear(gain, dtype=jnp.float64):
    cell = ElmanCell(
        2, 3, activation="identity", recurrent_kernel_init=orthogonal(gain), param_dtype=dtype, rngs=nnx.Rngs(0)
    )
    return Recurrence(cell)


def linear_batch(dtype=jnp.float64):
    return Batch(noise(22, 2).reshape(2, 11, 2).astype(dtype), None, jnp.array([11, 4]))


@nnx.jit
def omega_and_gradient(model, batch):
    return nnx.value_and_grad(VanishingGradientPenalty(sum_of_last))(model, batch)


@pytest.mark.parametrize("gain", [1.0, 0.5, 1.25])
def test_linear_units_with_orthogonal_weights(gain):
    """W = g Q: every step multiplies the gradient's length by g, and dW = Q says dOmega/dg = 2 (g - 1)."""
    model = linear(gain)
    value, gradient = omega_and_gradient(model, linear_batch())
    np.testing.assert_allclose(value, (gain - 1) ** 2, rtol=1e-13, atol=1e-29)
    by_gain = jnp.sum(gradient.cell.recurrent_kernel[...] * model.cell.recurrent_kernel[...]) / gain
    np.testing.assert_allclose(by_gain, 2 * (gain - 1), rtol=1e-13, atol=1e-14)
    assert np.all(gradient.cell.kernel[...] == 0)
    assert np.all(gradient.cell.bias[...] == 0)


@pytest.mark.slow
def test_adjoints_of_1e30_in_single_precision():
    """Their squares are nothing; the first step of eleven has one of sqrt(3) 1e-30, and 1e-7 a ratio's error."""
    value, gradient = omega_and_gradient(linear(1e-3, jnp.float32), linear_batch(jnp.float32))
    np.testing.assert_allclose(value, (1e-3 - 1) ** 2, rtol=1e-6, atol=0)
    assert value.dtype == jnp.float32
    assert float(jnp.linalg.norm(gradient.cell.recurrent_kernel[...])) > 0.1


@pytest.fixture(scope="module")
def trained():
    """A classifier, a batch of sequences of several lengths, Omega and its gradient."""
    model = classifier()
    batch = next(TASK.batches("train", 8, seed=0))
    value, gradient = nnx.jit(nnx.value_and_grad(VanishingGradientPenalty(task_loss)))(model, batch)
    return model, batch, value, gradient


def authors_omega(model, batch):
    """The formula of the authors' code, with norms in the place of their squares: a function of W with h, d fixed."""
    kernel, head = np.array(model.cell.recurrent_kernel[...]), np.array(model.head.kernel[...])
    hidden = np.array(model.hidden(batch.inputs, batch.lengths))
    outputs = np.array(model(batch.inputs, batch.lengths))
    residual = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True) - np.eye(outputs.shape[1])[batch.targets]
    adjoints, slopes = [], []
    for example, length in enumerate(batch.lengths):
        d = head @ residual[example]
        for t in range(length - 1, -1, -1):
            slopes.append(1 - hidden[example, t] ** 2)
            adjoints.append(d)
            d = kernel @ (d * slopes[-1])
    adjoints, slopes = np.array(adjoints), np.array(slopes)

    def omega(kernel):
        ratio = np.linalg.norm(adjoints * slopes @ kernel.T, axis=1) / np.linalg.norm(adjoints, axis=1)
        return np.mean((ratio - 1) ** 2)

    return omega, kernel


def test_tanh_network_against_the_authors_formula(trained):
    """Central differences over 1e-6 leave 1e-10."""
    model, batch, value, gradient = trained
    omega, kernel = authors_omega(model, batch)
    np.testing.assert_allclose(value, omega(kernel), rtol=1e-12, atol=0)
    nudges = 1e-6 * np.eye(kernel.size).reshape(-1, *kernel.shape)
    slopes = [(omega(kernel + nudge) - omega(kernel - nudge)) / 2e-6 for nudge in nudges]
    np.testing.assert_allclose(np.ravel(gradient.recurrence.cell.recurrent_kernel[...]), slopes, rtol=0, atol=1e-9)
    assert np.max(np.abs(slopes)) > 0.05


def test_nothing_but_the_recurrent_weights_is_moved(trained):
    *_, gradient = trained
    moved = {path[-1] for path, leaf in nnx.to_flat_state(gradient) if np.any(leaf[...] != 0)}
    assert moved == {"recurrent_kernel"}


@pytest.mark.slow
def test_no_gradient_no_penalty():
    """A loss that no state reaches: no step counts, and no 0 / 0 is left."""
    penalty = VanishingGradientPenalty(lambda model, batch: 0 * sum_of_last(model, batch))
    value, gradient = nnx.jit(nnx.value_and_grad(penalty))(linear(0.5), linear_batch())
    assert value == 0
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))


def states_and_inputs(model, batch):
    """Layer -> (carries that enter each valid step, inputs of it), and which they are, run step by step."""
    inputs, lengths = batch
    found, (example, step) = {}, np.nonzero(np.arange(STEPS)[None, :] < np.asarray(lengths)[:, None])
    for name in ("below", "above"):
        layer = getattr(model, name)
        carry, entering = layer.cell.initialize_carry(inputs[:, 0].shape, nnx.Rngs(0)), []
        for t in range(STEPS):
            entering.append(carry)
            carry, _ = layer.cell(carry, inputs[:, t])
        entering = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1)[example, step], *entering)
        found[name] = entering, inputs[example, step]
        inputs = layer(inputs, lengths=lengths)[1]
    return found, (step, example)


def ratios(step, entering, inputs, adjoints):
    """||d J|| / ||d|| of each step, from Jacobians that are formed."""

    def flat(carry):
        return jnp.concatenate(jax.tree.leaves(carry), axis=-1)

    def pulled(carry, x, d):
        jacobian = jax.jacfwd(lambda carry: flat(step(carry, x)))(carry)
        jacobian = jnp.concatenate(jax.tree.leaves(jacobian), axis=-1)
        return jnp.linalg.norm(d @ jacobian) / jnp.linalg.norm(d)

    return jax.vmap(pulled)(entering, inputs, flat(adjoints))


@pytest.mark.slow
def test_two_gated_layers_against_jacobians_step_by_step():
    """A GRU on a Flax LSTM, padded. The LSTM does not tell its recurrent weights: all that it has moves its Jacobians,
    at fixed states and adjoints; its central differences over 1e-5 leave 1e-10."""
    model, batch = TwoLayers(), (sequences(), LENGTHS)
    penalty = VanishingGradientPenalty(lambda model, batch: loss_at_every_step(model, (batch.inputs, batch.lengths)))
    value, gradient = nnx.jit(nnx.value_and_grad(penalty))(model, Batch(batch[0], None, batch[1]))
    steps, valid = states_and_inputs(model, batch)

    def total_loss(nudges):
        def stepwise(inputs, lengths):
            weights = {name: nnx.state(getattr(model, name).cell, nnx.Param) for name in ("below", "above")}
            copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * STEPS), weights)
            return outputs_stepwise(model, inputs, lengths, copies, nudges, np.ones(STEPS))

        return jnp.sum(loss_at_every_step(stepwise, batch))

    adjoints = jax.tree.map(lambda leaf: leaf[valid], jax.jit(jax.grad(total_loss))(nudges_of(model)))

    @jax.jit
    def below(params):
        cell = nnx.merge(graph, params, rest)
        return ratios(lambda carry, x: cell(carry, x)[0], *steps["below"], adjoints["below"])

    graph, params, rest = nnx.split(model.below.cell, nnx.Param, ...)
    above = ratios(lambda carry, x: model.above.cell(carry, x)[0], *steps["above"], adjoints["above"])
    both = jnp.concatenate([below(params), above])
    np.testing.assert_allclose(value, jnp.mean((both - 1) ** 2), rtol=1e-12, atol=0)

    direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), params)
    ahead, behind = (
        jnp.sum((below(jax.tree.map(lambda p, d, h=h: p + h * d, params, direction)) - 1) ** 2) for h in (1e-5, -1e-5)
    )
    along = sum(map(jnp.vdot, jax.tree.leaves(gradient.below.cell), jax.tree.leaves(direction)))
    np.testing.assert_allclose(along, (ahead - behind) / 2e-5 / len(both), rtol=1e-8, atol=0)
    moved = {path[-1] for path, leaf in nnx.to_flat_state(gradient.above) if np.any(leaf[...] != 0)}
    assert moved == {"recurrent_kernel"}


class Sizeless(nnx.RNNCellBase):
    def initialize_carry(self, input_shape, rngs):
        return jnp.zeros(input_shape)

    def __call__(self, carry, inputs):
        return carry, carry

    num_feature_axes = 1


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "model must hold a layer that can be tapped"),
        (Recurrence(Sizeless()), "cells must have an attribute in_features, Sizeless has none"),
    ],
)
def test_bad_models(model, sentence):
    with pytest.raises(ValueError, match=sentence):
        VanishingGradientPenalty(sum_of_last)(model, linear_batch())
