"""Clipping within the backward pass, against loops written by hand, examples alone, and a network that explodes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from networks import elman, noise
from stepwise import HIDDEN, LENGTHS, TwoLayers, loss_at_every_step, sequences

from rnn_dynamics.layers import Recurrence, Stacked
from rnn_dynamics.training import clip_each_step, clip_states, make_clipping
from rnn_dynamics.training.recipe import backpropagate
from rnn_dynamics.types import Batch

BATCH_OF_ALL = Batch(sequences(), None, LENGTHS)


def every_step(model, batch):
    return loss_at_every_step(model, (batch.inputs, batch.lengths))


def gradients_at(model, loss, batch, thresholds):
    """The rule at all thresholds at once, compiled: losses, gradients and reports with a leading axis."""
    graph, state = nnx.split(model)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def run(threshold, state):
        return clip_each_step(threshold)(loss, nnx.merge(graph, state), batch)

    return run(jnp.array(thresholds), state)


def plain_gradient(model, loss, batch):
    return nnx.jit(lambda model: backpropagate(loss, model, batch))(model)


def assert_close(a, b, rtol):
    """To that part of each array's largest entry."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * np.abs(y).max())


def sines(model, batch):
    """Sum of 3 sin(2 h) over all valid steps and units, [B]."""
    return 3 * jnp.sum(jnp.sin(2 * model(batch.inputs, lengths=batch.lengths)[1]), axis=(1, 2))


def sines_by_hand(params, batch, threshold):
    """Losses, gradient, and the (norm before, norm after) of every step's adjoint that is there, of h = tanh(...)."""
    kernel, recurrent, bias = (np.asarray(params[name]) for name in ("kernel", "recurrent_kernel", "bias"))
    gradient = {name: np.zeros_like(params[name]) for name in ("kernel", "recurrent_kernel", "bias")}
    losses, norms = [], []
    for inputs, length in zip(np.asarray(batch.inputs), batch.lengths.tolist(), strict=True):
        states = [np.zeros(len(bias))]
        for t in range(length):
            states.append(np.tanh(inputs[t] @ kernel + states[-1] @ recurrent + bias))
        losses.append(3 * np.sum(np.sin(2 * np.array(states[1:]))))
        adjoint = np.zeros(len(bias))
        for t in reversed(range(length)):
            adjoint = adjoint + 6 * np.cos(2 * states[t + 1])
            norm = np.linalg.norm(adjoint)
            adjoint = adjoint * (min(norm, threshold) / norm)
            norms.append((norm, min(norm, threshold)))
            at_drive = adjoint * (1 - states[t + 1] ** 2)
            gradient["kernel"] += np.outer(inputs[t], at_drive) / len(batch.inputs)
            gradient["recurrent_kernel"] += np.outer(states[t], at_drive) / len(batch.inputs)
            gradient["bias"] += at_drive / len(batch.inputs)
            adjoint = recurrent @ at_drive
    return losses, gradient, np.array(norms)


def test_against_a_loop_by_hand():
    layer = Recurrence(elman(hidden=4, features=2, gain=3.0), checkpoint_every=2)
    batch = Batch(noise(15, 2).reshape(3, 5, 2), None, jnp.array([5, 2, 4]))
    thresholds = [0.5, 12.0, np.inf]
    found = gradients_at(layer, sines, batch, thresholds)
    params = nnx.to_pure_dict(nnx.state(layer.cell, nnx.Param))
    shares = []
    for number, threshold in enumerate(thresholds):
        losses, gradient, norms = sines_by_hand(params, batch, threshold)
        np.testing.assert_allclose(found.losses[number], losses, rtol=1e-13, atol=0)
        assert_close(
            jax.tree.map(lambda leaf, n=number: leaf[n], nnx.to_pure_dict(found.gradient)["cell"]), gradient, 1e-13
        )
        factors = norms[:, 1] / norms[:, 0]
        shares.append(np.mean(factors < 1))
        assert float(found.report["step_clipped_share"][number]) == pytest.approx(shares[-1], rel=1e-14)
        mean = np.exp(np.mean(np.log(factors[factors < 1]))) if shares[-1] else 1
        assert float(found.report["step_mean_factor"][number]) == pytest.approx(mean, rel=1e-13)
    assert shares[0] == 1
    assert 0.2 < shares[1] < 0.8
    assert shares[2] == 0


@pytest.fixture(scope="module")
def two_layers():
    """A GRU on an LSTM, at a threshold that clips most steps and at infinity."""
    return gradients_at(TwoLayers(), every_step, BATCH_OF_ALL, [0.3, np.inf])


@pytest.mark.slow
def test_no_threshold_is_backpropagation(two_layers):
    plain = plain_gradient(TwoLayers(), every_step, BATCH_OF_ALL)
    assert_close(jax.tree.map(lambda leaf: leaf[1], two_layers.gradient), plain.gradient, 1e-14)
    np.testing.assert_allclose(two_layers.losses[1], plain.losses, rtol=1e-14, atol=0)
    assert 0.3 < float(two_layers.report["step_clipped_share"][0]) < 1
    assert 0 < float(two_layers.report["step_mean_factor"][0]) < 1
    assert two_layers.report["step_clipped_share"][1] == 0
    assert two_layers.report["step_mean_factor"][1] == 1


@pytest.mark.slow
def test_examples_alone_have_the_same_threshold(two_layers):
    """The gradient of a batch is the mean of those of its examples; in checkpoints of checkpoints they are the same."""
    graph, state = nnx.split(TwoLayers(checkpoint_every=3))

    @jax.jit
    @jax.vmap
    def alone(inputs, length):
        rule = jax.checkpoint(
            lambda state: clip_each_step(0.3)(
                every_step, nnx.merge(graph, state), Batch(inputs[None], None, length[None])
            )
        )
        return rule(state)

    found = alone(sequences(), LENGTHS)
    assert_close(
        jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), found.gradient),
        jax.tree.map(lambda leaf: leaf[0], two_layers.gradient),
        1e-14,
    )


@jax.custom_vjp
def cut(state, limit):
    """The state of one example, any arrays; its cotangent is cut to the limit."""
    return state


def cut_backward(limit, cotangent):
    length = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(cotangent)))
    return jax.tree.map(lambda leaf: leaf * jnp.minimum(1, limit / jnp.maximum(length, 1e-300)), cotangent), None


cut.defvjp(lambda state, limit: (state, limit), cut_backward)


@pytest.mark.slow
def test_two_layers_against_a_loop_over_examples_and_steps(two_layers):
    lengths = LENGTHS.tolist()

    def outputs_of(model, inputs, length):
        carries = {"below": (jnp.zeros(HIDDEN), jnp.zeros(HIDDEN)), "above": jnp.zeros(HIDDEN)}
        outputs = []
        for t in range(length):
            hidden = inputs[t]
            for name in ("below", "above"):
                carry, _ = getattr(model, name).cell(carries[name], hidden)
                carries[name] = cut(carry, 0.3)
                hidden = jax.tree.leaves(carries[name])[-1]
            outputs.append(model.head(hidden))
        return jnp.stack(outputs)

    @nnx.jit
    @nnx.grad
    def sum_of_gradients(model):
        examples = zip(BATCH_OF_ALL.inputs, lengths, strict=True)
        return sum(jnp.sum(jnp.sin(3 * outputs_of(model, *example))) for example in examples)

    mean = jax.tree.map(lambda leaf: leaf / len(lengths), sum_of_gradients(TwoLayers()))
    assert_close(jax.tree.map(lambda leaf: leaf[0], two_layers.gradient), mean, 1e-13)


def last_state(model, batch):
    return jnp.sum(model(batch.inputs)[0], axis=1)


def test_a_gradient_that_overflows_is_bounded():
    """A tanh network of gain 12 over 200 steps in single precision; the plain gradient is NaN.

    That by the bias is the sum over steps of D_t delta_t, with entries of D_t and norms of delta_t up to 1.
    """
    layer = Recurrence(elman(hidden=32, gain=12.0, dtype=jnp.float32), checkpoint_every="sqrt")
    batch = Batch(noise(200).astype(jnp.float32)[None], None, None)
    plain = plain_gradient(layer, last_state, batch)
    assert np.all(np.isfinite(plain.losses))
    assert not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(plain.gradient))
    found = gradients_at(layer, last_state, batch, [1.0])
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found.gradient))
    assert 0 < np.linalg.norm(found.gradient["cell"]["bias"][...]) <= 200
    assert float(found.report["step_clipped_share"][0]) > 0.5


class WithDropout(nnx.Module):
    """A stack whose dropout draws from keys that the model counts."""

    def __init__(self):
        layers = [Recurrence(elman(hidden=3, features=2)), Recurrence(elman(hidden=3, features=3))]
        self.layers = Stacked(layers, dropout=0.5, rngs=nnx.Rngs(dropout=0))

    def __call__(self, inputs):
        return self.layers(inputs)[1]


@pytest.mark.slow
def test_what_a_model_keeps_moves_on():
    """The same masks as without clipping, and after it new ones; nothing is left of the listeners."""
    models = [WithDropout(), WithDropout()]

    def loss(model, batch):
        return jnp.sum(model(batch.inputs) ** 2, axis=(1, 2))

    for _ in range(2):
        rules = (clip_each_step(np.inf), backpropagate)
        found = [
            nnx.jit(lambda model, rule=rule: rule(loss, model, BATCH_OF_ALL))(m)
            for rule, m in zip(rules, models, strict=True)
        ]
        assert_close(found[0].gradient, found[1].gradient, 1e-14)
    states = [
        jax.tree.map(
            lambda leaf: jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf,
            nnx.to_pure_dict(nnx.state(m)),
        )
        for m in models
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.slow
def test_an_ensemble_of_trainings_is_those_one_by_one():
    """Three updates of a model's own parameters, in the backward pass and after it clipped at traced thresholds."""
    graph, params, rest = nnx.split(Recurrence(elman(hidden=4, features=2, gain=3.0)), nnx.Param, ...)

    def trained(step_threshold, ratio):
        optimizer = optax.chain(make_clipping("unit_ratio", ratio), optax.adam(0.01))
        rule = clip_each_step(step_threshold)

        def update(learned, _):
            params, state = learned
            found = rule(sines, nnx.merge(graph, params, rest, copy=True), BATCH_OF_ALL)
            updates, state = optimizer.update(found.gradient, state, params)
            return (optax.apply_updates(params, updates), state), found.report

        (params_after, state), report = jax.lax.scan(update, (params, optimizer.init(params)), length=3)
        return params_after, clip_states(state)[0], report

    thresholds = jnp.array([0.5, 12.0, np.inf]), jnp.array([0.05, np.inf, 0.2])
    together = jax.jit(jax.vmap(trained))(*thresholds)
    alone = jax.jit(trained)
    one_by_one = [alone(*pair) for pair in zip(*thresholds, strict=True)]
    assert_close(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one), 1e-12)
    np.testing.assert_array_equal(together[1].clipped, [3, 0, 3])
    assert np.all(together[2]["step_clipped_share"][2] == 0)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_bad_thresholds_get_one_sentence(bad):
    with pytest.raises(ValueError, match=f"^threshold must be a number > 0, got {bad}$"):
        clip_each_step(bad)


def test_a_model_without_layers_gets_one_sentence():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="model must hold a layer that can be tapped"):
        clip_each_step(1.0)(every_step, model, BATCH_OF_ALL)
