"""Gradient flossing: closed forms, finite differences, and that it does what it is for, measured from outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import elman, lstm, noise

from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.initializers import gaussian, orthogonal
from rnn_dynamics.dynamics import DrivenSystem, lyapunov_spectrum
from rnn_dynamics.models import ManyToOne
from rnn_dynamics.training import FlossingPenalty
from rnn_dynamics.types import Batch


def model_of(cell):
    return ManyToOne(cell, 2, rngs=nnx.Rngs(1))


def batch_of(steps, dtype=jnp.float64, examples=2, scale=0.5):
    return Batch(noise(examples * steps, 1, scale).reshape(examples, steps, 1).astype(dtype), None, None)


def linear(gain):
    return model_of(
        ElmanCell(
            1, 4, activation="identity", recurrent_kernel_init=orthogonal(gain), param_dtype=jnp.float64,
            rngs=nnx.Rngs(0),
        )
    )  # fmt: skip


value_of = jax.jit(lambda state, graph, penalty, batch: penalty(nnx.merge(graph, state), batch), static_argnums=(1, 2))


def value_and_gradient(model, penalty, batch):
    graph, state = nnx.split(model)
    return jax.jit(jax.value_and_grad(lambda state: penalty(nnx.merge(graph, state), batch)))(state)


def test_linear_units_with_orthogonal_weights_and_traced_targets():
    """W = g Q: all exponents are ln g, at any time."""
    model, batch = linear(0.5), batch_of(6)
    at = jax.jit(jax.vmap(lambda target: FlossingPenalty(3, 6, target=target)(model, batch)))
    np.testing.assert_allclose(
        at(np.log([1.0, 0.5, 0.25])), [np.log(0.5) ** 2, 0, np.log(2) ** 2], rtol=1e-13, atol=1e-28
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "penalty"),
    [
        (elman(hidden=6, gain=1.0), FlossingPenalty(4, 12, tangent_transient=3, examples=2)),
        (lstm(hidden=3), FlossingPenalty(5, 12, qr_every=3, target=-0.1)),
    ],
    ids=["elman", "lstm"],
)
def test_gradient_against_finite_differences(cell, penalty):
    """Richardson's extrapolation of central differences leaves (1e-4)^4 times derivatives of fifth order: 2e-5 of the
    gradient at ten times the step, so 2e-9 here; rounding leaves 1e-7 of it where three steps share a QR."""
    model, batch = model_of(cell), batch_of(12)
    graph, state = nnx.split(model)
    _, gradient = value_and_gradient(model, penalty, batch)
    for number in range(2):
        key = jax.random.key(number)
        direction = jax.tree.map(lambda leaf, key=key: jax.random.normal(key, leaf.shape, leaf.dtype), state)

        def at(step, direction=direction):
            moved = jax.tree.map(lambda p, d: p + step * d, state, direction)
            return value_of(moved, graph, penalty, batch)

        coarse, fine = ((at(step) - at(-step)) / (2 * step) for step in (1e-4, 5e-5))
        along = sum(map(jnp.vdot, jax.tree.leaves(gradient), jax.tree.leaves(direction)))
        np.testing.assert_allclose(along, (4 * fine - coarse) / 3, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_a_unit_at_rest_spoils_nothing():
    """A relu unit at rest makes every Jacobian singular: k = N asks for an exponent of -inf, and gets the others."""
    cell = elman(hidden=4, gain=0.2, activation="relu")
    cell.bias[...] = jnp.array([10.0, -100.0, 10.0, 10.0])
    model, batch = model_of(cell), batch_of(6)
    exponents = lyapunov_spectrum(DrivenSystem.from_cell(cell), batch.inputs[0]).exponents
    assert np.array_equal(np.isfinite(exponents), [True] * 3 + [False])
    value, gradient = value_and_gradient(model, FlossingPenalty(4, 6), batch)
    np.testing.assert_allclose(value, np.sum(exponents[:3] ** 2) / 4, rtol=1e-12, atol=0)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    assert np.any(gradient.recurrence.cell.recurrent_kernel[...] != 0)


@pytest.mark.slow
def test_a_state_that_overflows_is_told():
    model = linear(1e200)
    value = value_of(nnx.state(model), nnx.graphdef(model), FlossingPenalty(1, 6), batch_of(6))
    assert np.isnan(value)


@pytest.mark.slow
def test_the_papers_size_in_single_precision(monkeypatch):
    """N = 80, k = 75, 300 steps: no NaN; the value is that of double precision to 6e-6, the gradient to 3 % of its
    norm, for it holds the rotations of a frame of 75 nearly equal exponents. Both start from the same frame."""
    draw = jax.random.normal
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: draw(key, shape, jnp.float32).astype(dtype))
    start = nnx.state(ElmanCell(1, 80, recurrent_kernel_init=gaussian(1.0), rngs=nnx.Rngs(0)))
    measured = []
    for dtype in (jnp.float32, jnp.float64):
        cell = ElmanCell(1, 80, param_dtype=dtype, rngs=nnx.Rngs(0))
        nnx.update(cell, jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), start))
        value, gradient = value_and_gradient(model_of(cell), FlossingPenalty(75, 300), batch_of(300, dtype, scale=1.0))
        assert value.dtype == dtype
        measured.append((float(value), np.array(gradient.recurrence.cell.recurrent_kernel[...])))
    (value, gradient), (exact_value, exact_gradient) = measured
    np.testing.assert_allclose(value, exact_value, rtol=3e-5, atol=0)
    assert np.linalg.norm(gradient - exact_gradient) < 0.1 * np.linalg.norm(exact_gradient)


@pytest.mark.slow
def test_updates_by_flossing_alone_bring_exponents_to_0():
    """Thirty steps downhill, from -0.85 ... -0.97 to -0.05 ... -0.19 nats per step, along inputs that the training has
    not seen."""
    model, penalty = model_of(elman(hidden=16, gain=0.5)), FlossingPenalty(4, 40, tangent_transient=10)
    graph, state = nnx.split(model)

    @jax.jit
    def trained(state):
        def update(state, inputs):
            batch = Batch(inputs[None], None, None)
            value, gradient = jax.value_and_grad(lambda state: penalty(nnx.merge(graph, state), batch))(state)
            return jax.tree.map(lambda p, g: p - 0.5 * g, state, gradient), value

        return jax.lax.scan(update, state, noise(30 * 40, seed=2).reshape(30, 40, 1))

    after, values = trained(state)
    system = jax.tree.map(
        lambda *leaves: jnp.stack(leaves),
        *(DrivenSystem.from_cell(nnx.merge(graph, each).cell) for each in (state, after)),
    )
    inputs = noise(200, seed=3)
    exponents = jax.vmap(lambda each: lyapunov_spectrum(each, inputs, k=4, tangent_transient=50).exponents)(system)
    assert np.all(exponents[0] < -0.8)
    assert np.all(np.abs(exponents[1]) < 0.25 * np.abs(exponents[0]))
    assert values[-1] < 0.02 * values[0]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"k": 0}, "k must be a whole number >= 1, got 0"),
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"qr_every": 0}, "qr_every must be a whole number >= 1, got 0"),
        ({"examples": 0}, "examples must be a whole number >= 1, got 0"),
        ({"tangent_transient": -1}, "tangent_transient must be a whole number >= 0, got -1"),
        ({"tangent_transient": 6}, "tangent_transient must be less than steps = 6, got 6"),
        ({"target": np.nan}, "target must be a finite number, got nan"),
        ({"k": 5}, "k must be between 1 and the state size 4, got 5"),
        ({"steps": 7}, "steps must be at most the batch's 6, got 7"),
        ({"examples": 3}, "examples must be at most the batch's 2, got 3"),
    ],
)
def test_bad_settings(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        FlossingPenalty(**({"k": 2, "steps": 6} | settings))(linear(0.5), batch_of(6))


def test_a_model_that_does_not_tell_its_encoder():
    with pytest.raises(ValueError, match="model must be a SequenceModel, which tells its encoder, got a Linear"):
        FlossingPenalty(1, 6)(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), batch_of(6))
