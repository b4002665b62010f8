"""Gradients by lag and truncated back-propagation, against one loss at a time with gradients stopped by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from stepwise import (
    BATCH,
    LENGTHS,
    STEPS,
    TwoLayers,
    loss_at_every_step,
    nudges_of,
    outputs_stepwise,
    sequences,
    weights_of,
)

from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.initializers import orthogonal
from rnn_dynamics.dynamics import gradient_tails, temporal_components
from rnn_dynamics.layers import Recurrence


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.fixture(scope="module")
def components():
    return temporal_components(TwoLayers(), loss_at_every_step, (sequences(), LENGTHS), max_lag=STEPS - 1)


@pytest.fixture(scope="module")
def truncated_by_hand():
    """Gradient truncated to k = 1 ... T steps, [T, P]: of each loss alone, cut between the steps that are k apart."""
    model = TwoLayers()
    inputs, nudges = sequences(), nudges_of(model)

    def loss(weights, at_step, cuts):
        copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (STEPS, *leaf.shape)), weights)
        outputs = outputs_stepwise(model, inputs, LENGTHS, copies, nudges, cuts)
        within = jnp.where(jnp.arange(STEPS)[None, :] < LENGTHS[:, None], jnp.sin(3 * outputs[:, :, 0]), 0)
        return jnp.sum(within * at_step[None, :]) / BATCH

    tau, k = map(np.ravel, np.meshgrid(np.arange(STEPS), 1 + np.arange(STEPS)))
    at_step = np.eye(STEPS)[tau]
    cuts = (np.arange(STEPS)[None, :] != (tau - k + 1)[:, None]).astype(float)
    gradients = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))(weights_of(model), at_step, cuts)
    each = np.concatenate([np.reshape(leaf, (len(tau), -1)) for leaf in jax.tree.leaves(gradients)], axis=1)
    return each.reshape(STEPS, STEPS, -1).sum(axis=1)  # over tau


@pytest.mark.slow
def test_two_layers_against_each_loss_alone(components, truncated_by_hand):
    full = truncated_by_hand[-1]
    size = np.linalg.norm(full)
    for k in range(1, STEPS):
        short, long = components.split(k)
        np.testing.assert_allclose(flat(short), truncated_by_hand[k - 1], rtol=0, atol=1e-14 * size)
        np.testing.assert_allclose(flat(short) + flat(long), full, rtol=0, atol=1e-14 * size)
    truncated = truncated_by_hand[:-1]
    norms = np.linalg.norm(truncated, axis=1)
    np.testing.assert_allclose(components.truncated_norm, norms, rtol=1e-13)
    np.testing.assert_allclose(components.cosine, truncated @ full / norms / size, rtol=1e-13)
    np.testing.assert_allclose(components.relative_error, np.linalg.norm(truncated - full, axis=1) / size, rtol=1e-12)
    each = np.diff(truncated, axis=0, prepend=0)
    np.testing.assert_allclose(components.component_norm, np.linalg.norm(each, axis=1), rtol=1e-12)
    assert components.residual < 1e-14
    assert components.relative_error[-1] > 1e-3, "the longest lag should count"


# A linear network h_t = h_{t-1} W + x_t K + 1, where each step's share of the gradient is an outer product.


def linear(gain, dtype):
    cell = ElmanCell(
        2,
        3,
        activation="identity",
        recurrent_kernel_init=orthogonal(gain),
        bias_init=jax.nn.initializers.ones,
        param_dtype=dtype,
        rngs=nnx.Rngs(0),
    )
    return Recurrence(cell, checkpoint_every=2)


def sum_of_all(model, inputs):
    return jnp.sum(model(inputs)[1], axis=(1, 2))


def tiny_sum_of_last(model, inputs):
    return 1e-30 * jnp.sum(model(inputs)[0], axis=1)


def tails_by_hand(layer, inputs, pulls):
    """Sums over s >= t of each step's share, [T, P], where the loss is the sum of pulls_t times all of h_t."""
    kernel = np.asarray(layer.cell.recurrent_kernel[...], np.float64)
    before = np.concatenate([np.zeros((BATCH, 1, 3)), layer(inputs)[1][:, :-1]], axis=1).mean(axis=0)
    inputs, adjoint, total, tails = np.asarray(inputs, np.float64).mean(axis=0), np.zeros(3), np.zeros((6, 3)), []
    for t in reversed(range(STEPS)):
        adjoint = pulls[t] + kernel @ adjoint
        total = total + np.outer(np.concatenate([np.ones(1), inputs[t], before[t]]), adjoint)
        tails.append(total.ravel())
    return np.stack(tails[::-1])


def norms_and_cosines(tails):
    norms = np.linalg.norm(tails, axis=1)
    return norms, tails @ tails[0] / norms / norms[0]


def test_tails_of_losses_at_every_step():
    layer, inputs = linear(0.9, jnp.float64), sequences()
    found = gradient_tails(layer, sum_of_all, inputs)
    norms, cosines = norms_and_cosines(tails_by_hand(layer, inputs, np.ones(STEPS)))
    np.testing.assert_allclose(found.tail_norm, norms, rtol=1e-13)
    np.testing.assert_allclose(found.cosine, cosines, rtol=1e-13)
    assert np.all(found.first_nonfinite_step == -1)


def test_losses_at_the_end_have_two_ways():
    """Tails in time are truncations; also for 1e-30 in single precision, whose squares would be 0."""
    layer, inputs = linear(0.9, jnp.float32), sequences(jnp.float32)
    by_lag = temporal_components(layer, tiny_sum_of_last, inputs, max_lag=STEPS + 1)
    in_time = gradient_tails(layer, tiny_sum_of_last, inputs)
    norms, cosines = norms_and_cosines(tails_by_hand(layer, inputs, 1e-30 * np.eye(STEPS)[-1]))
    for found, expected in (
        (in_time.tail_norm, norms),
        (in_time.cosine, cosines),
        (by_lag.truncated_norm[:STEPS], norms[::-1]),
        (by_lag.cosine[:STEPS], cosines[::-1]),
        (by_lag.cosine[STEPS:], 1),
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-6)
    assert by_lag.residual < 1e-6
    assert cosines[-1] < 0.9
    np.testing.assert_array_equal(by_lag.relative_error[STEPS - 1 :], 0)
    assert {leaf.dtype for leaf in jax.tree.leaves((by_lag, in_time))} == {jnp.dtype("float32"), jnp.dtype("int32")}


def test_a_state_that_overflows_gives_nan():
    """Growth by 1e15 a step from 1: 1e45 after the fourth is beyond 3.4e38."""
    layer, inputs = linear(1e15, jnp.float32), sequences(jnp.float32)
    by_lag = temporal_components(layer, tiny_sum_of_last, inputs, max_lag=STEPS + 1)
    in_time = gradient_tails(layer, tiny_sum_of_last, inputs)
    for result in (by_lag, in_time):
        np.testing.assert_array_equal(result.first_nonfinite_step, [3, 3, 3])
        assert np.isnan(result.cosine).all()
    assert np.isnan(flat(by_lag.components)).all()


BAD = [
    (partial(temporal_components, max_lag=0), "max_lag must be a whole number >= 1, got 0"),
    (lambda *arguments: temporal_components(*arguments, max_lag=2).split(3), "between 1 and max_lag = 2, got 3"),
]


@pytest.mark.parametrize(("call", "sentence"), BAD, ids=["max_lag", "split"])
def test_bad_arguments_get_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(linear(0.0, jnp.float32), tiny_sum_of_last, sequences(jnp.float32))
