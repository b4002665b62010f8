"""Norms of the loss gradient by state and step and of each step's share of the weights' gradient, against copies of
the weights for each step and nudges of each state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import any_cell, noise
from stepwise import (
    BATCH,
    LENGTHS,
    STEPS,
    TwoLayers,
    copies_of,
    loss_at_every_step,
    nudges_of,
    outputs_stepwise,
    sequences,
)

from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.initializers import orthogonal
from rnn_dynamics.dynamics import loss_adjoints
from rnn_dynamics.layers import Recurrence
from rnn_dynamics.models import ManyToOne
from rnn_dynamics.taps import tap


def batch(dtype=jnp.float64):
    return sequences(dtype), LENGTHS


def norm_over(tree, axes_kept):
    squares = [np.sum(np.square(leaf), axis=tuple(range(axes_kept, np.ndim(leaf)))) for leaf in jax.tree.leaves(tree)]
    return np.sqrt(sum(squares))


@pytest.fixture(scope="module")
def measured():
    return loss_adjoints(TwoLayers(), loss_at_every_step, batch())


@pytest.fixture(scope="module")
def by_hand():
    model = TwoLayers()

    def losses(copies, nudges):
        def stepwise(inputs, lengths):
            return outputs_stepwise(model, inputs, lengths, copies, nudges, np.ones(STEPS))

        return loss_at_every_step(stepwise, batch())

    at = copies_of(model), nudges_of(model)
    return losses(*at), jax.jit(jax.grad(lambda *at: jnp.sum(losses(*at)), argnums=(0, 1)))(*at)


def test_two_layers_against_copies_and_nudges(measured, by_hand):
    losses, (by_copies, by_nudges) = by_hand
    np.testing.assert_allclose(measured.loss, losses, rtol=1e-14)
    assert list(measured.layers) == ["above", "below"]
    for name, layer in measured.layers.items():
        np.testing.assert_allclose(layer.state_norm, norm_over(by_nudges[name], 2), rtol=1e-12)
        by_parameter = {".".join(path): leaf[...] for path, leaf in nnx.to_flat_state(by_copies[name])}
        assert set(layer.weight_norm) == set(by_parameter)
        for parameter, copies in by_parameter.items():
            np.testing.assert_allclose(
                layer.weight_norm[parameter], norm_over(copies, 1) / BATCH, rtol=1e-12, atol=1e-16
            )
        np.testing.assert_array_equal(layer.state_norm > 0, jnp.arange(STEPS)[:, None] < LENGTHS[None, :])
        assert np.all(layer.first_nonfinite_step == -1)
    np.testing.assert_array_equal(measured.state_norm[1], measured.layers["below"].state_norm)


def test_gradient_is_that_without_taps(measured):
    """To rounding, as the compiler may fuse other operations."""
    plain = nnx.jit(nnx.grad(lambda model: jnp.mean(loss_at_every_step(model, batch()))))(TwoLayers())
    for a, b in zip(jax.tree.leaves(measured.gradient), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15 * np.abs(b).max())


@pytest.mark.slow
def test_checkpoints_in_single_precision(measured):
    """1e-7 in each of some tens of sums."""
    model = TwoLayers(jnp.float32, checkpoint_every=2)
    nnx.update(model, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), nnx.state(TwoLayers())))
    single = loss_adjoints(model, loss_at_every_step, batch(jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(single)} == {jnp.dtype("float32"), jnp.dtype("int32")}
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(measured), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def linear(gain, hidden=3, dtype=jnp.float64):
    return Recurrence(
        ElmanCell(
            2, hidden, activation="identity", recurrent_kernel_init=orthogonal(gain), param_dtype=dtype,
            rngs=nnx.Rngs(0),
        )
    )  # fmt: skip


def sum_of_last(model, inputs):
    return jnp.sum(model(inputs)[0], axis=1)


def test_adjoints_of_1e30_in_single_precision():
    """A linear network with W = 1e-3 Q: ||dL/dh_t|| = sqrt(3) 1e-3^(T-t), and ||Delta_t|| = that times the size of the
    mean h_(t-1)."""
    layer, inputs = linear(1e-3, dtype=jnp.float32), noise(22, 2).astype(jnp.float32).reshape(2, 11, 2)
    found = loss_adjoints(layer, sum_of_last, inputs).layers[""]
    expected = np.sqrt(3) * 1e-3 ** np.arange(10.0, -1, -1)
    assert expected[0] < 2e-30
    np.testing.assert_allclose(found.state_norm, np.stack([expected] * 2, axis=1), rtol=1e-5)
    sizes = np.linalg.norm(np.mean(layer(inputs)[1], axis=0), axis=1)
    np.testing.assert_allclose(found.weight_norm["recurrent_kernel"][1:], expected[1:] * sizes[:-1], rtol=1e-5)
    np.testing.assert_allclose(found.weight_norm["bias"], expected, rtol=1e-5)


def test_a_state_that_overflows_gives_nan_and_its_step():
    """Growth by 1e3 a step, from 1e30 in the first example and from 1 in the second; 3.4e38 is the largest."""
    layer = linear(1e3, dtype=jnp.float32)
    inputs = jnp.zeros((2, 11, 2), jnp.float32).at[:, 0, 0].set(jnp.array([1e30, 1.0], jnp.float32))
    first = int(np.argmin(np.isfinite(layer(inputs)[1][0]).all(axis=1)))
    found = loss_adjoints(layer, sum_of_last, inputs).layers[""]
    assert first in (2, 3)
    np.testing.assert_array_equal(found.first_nonfinite_step, [first, -1])
    np.testing.assert_array_equal(np.isnan(found.state_norm), [[True, False]] * 11)
    assert np.isnan(found.weight_norm["bias"]).all()


def test_a_reversed_layer():
    """Its steps stay where their inputs are: the first in time is its last."""
    layer = linear(0.5)
    layer.reverse = True
    norms = loss_adjoints(layer, sum_of_last, noise(4, 2)[None]).layers[""].state_norm
    np.testing.assert_allclose(norms[:, 0], np.sqrt(3) * 0.5 ** np.arange(4.0), rtol=1e-13)


def test_ensembles():
    models = [linear(gain) for gain in (0.5, 0.9)]
    graph, _ = nnx.split(models[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(nnx.state(model) for model in models))
    inputs = noise(4, 2)[None]
    together = jax.jit(jax.vmap(lambda state: loss_adjoints(nnx.merge(graph, state), sum_of_last, inputs)))(stacked)
    lags = np.arange(3.0, -1, -1)
    np.testing.assert_allclose(
        together.layers[""].state_norm[:, :, 0], np.sqrt(3) * np.array([0.5**lags, 0.9**lags]), rtol=1e-13
    )
    assert together.state_norm.shape == (2, 1, 4, 1)


@pytest.mark.slow
def test_pascanus_omega_and_its_derivative():
    """Omega = sum_t (||dL/dh_t|| / ||dL/dh_{t+1}|| - 1)^2 (Pascanu, Mikolov and Bengio 2013, eq. 9) is (T-1) B (g-1)^2
    for a linear network with W = g Q."""
    graph, state = nnx.split(linear(1.0, hidden=6))
    inputs = noise(2 * STEPS, 2).reshape(2, STEPS, 2)

    def omega(gain):
        scaled = nnx.merge(graph, state, copy=True)
        scaled.cell.recurrent_kernel[...] = gain * scaled.cell.recurrent_kernel[...]
        norms = loss_adjoints(scaled, lambda model, inputs: jnp.sum(model(inputs)[0] ** 3, axis=1), inputs).state_norm
        return jnp.sum((norms[0, :-1] / norms[0, 1:] - 1) ** 2)

    value, slope = jax.value_and_grad(omega)(0.9)
    assert float(value) == pytest.approx((STEPS - 1) * 2 * 0.01, rel=1e-11)
    assert float(slope) == pytest.approx((STEPS - 1) * 2 * 2 * -0.1, rel=1e-11)


def test_tokens_and_a_classifier():
    """The last state of each sequence is classified: there the gradient is that of the head."""
    model = ManyToOne(any_cell("ElmanCell"), 3, vocabulary_size=7, rngs=nnx.Rngs(0))
    tokens = np.random.default_rng(0).integers(0, 7, (BATCH, STEPS))
    found = loss_adjoints(model, lambda model, batch: model(*batch)[:, 1], (tokens, LENGTHS))
    assert list(found.layers) == ["recurrence"]
    last = found.state_norm[0, LENGTHS - 1, jnp.arange(BATCH)]
    np.testing.assert_allclose(last, [np.linalg.norm(model.head.kernel[:, 1])] * BATCH, rtol=1e-13)
    assert np.any(found.gradient["embedding"]["embedding"][...] != 0)


@pytest.mark.parametrize("features", [(), (1,)])
def test_a_scan_of_ones_own(features):
    """`tap` and `jax.grad` are all that it takes: ||dL/dh_t|| = 2 |h_T| 0.5^(T-t) for h -> h / 2."""

    def loss_of_taps(taps):
        def step(h, probe):
            return tap(0.5 * h, probe), None

        return jnp.sum(jax.lax.scan(step, jnp.ones((2, *features)), taps)[0].reshape(2, 1) ** 2, axis=1)

    norms = jax.grad(lambda taps: jnp.sum(loss_of_taps(taps)))(jnp.zeros((4, 2)))
    np.testing.assert_allclose(norms, np.stack([0.125 * 0.5 ** np.arange(3.0, -1, -1)] * 2, axis=1), rtol=1e-15)


class Twice(TwoLayers):
    def __call__(self, inputs, lengths=None):
        self.below(inputs)
        return super().__call__(inputs, lengths)


class Half(TwoLayers):
    def __call__(self, inputs, lengths=None):
        return self.below(inputs)[1]


class Doubled(nnx.GRUCell):
    def __call__(self, carry, inputs):
        carry, output = super().__call__(carry, inputs)
        return carry, 2 * output


DOUBLED = Recurrence(Doubled(2, 6, param_dtype=jnp.float64, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("model", "loss", "sentence"),
    [
        (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), loss_at_every_step, "model must hold a layer that can be tapped"),
        (Twice(), loss_at_every_step, "a Recurrence that is tapped must be called once, it was called again"),
        (Half(), loss_at_every_step, "must call every layer of the model once, it did not call above"),
        (TwoLayers(), lambda m, b: jnp.sum(m(*b)), r"shape \[batch\] as in the layers: \(3,\); got \(\)"),
        (DOUBLED, lambda m, b: jnp.sum(m(b[0])[0], 1), "a cell whose output is one of the arrays of its carry"),
    ],
    ids=["no layer", "twice", "never", "scalar", "hidden output"],
)
def test_what_cannot_be_measured_gets_one_sentence(model, loss, sentence):
    with pytest.raises(ValueError, match=sentence):
        loss_adjoints(model, loss, batch())
