"""What all penalties have in common, soft orthogonality, and the norm stabiliser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from largest_so_far import TASK, classifier
from networks import any_cell, noise

from rnn_dynamics.cells import CELLS, ElmanCell
from rnn_dynamics.cells.initializers import orthogonal
from rnn_dynamics.layers import Recurrence
from rnn_dynamics.models import ManyToOne
from rnn_dynamics.training import (
    PENALTIES,
    FlossingPenalty,
    NormStabilizer,
    SoftOrthogonality,
    VanishingGradientPenalty,
    make_penalty,
)
from rnn_dynamics.types import Batch


def task_loss(model, batch):
    return TASK.loss(model(batch.inputs, batch.lengths), batch.targets)


SETTINGS = {"vanishing_gradient": {"loss": task_loss}, "flossing": {"k": 2, "steps": 4}}


def a_batch(size=4):
    return next(TASK.batches("train", size, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("name", PENALTIES)
def test_an_ensemble_is_its_members(name):
    """Weighted by a traced number, as the loop does."""
    penalty, batch = make_penalty(name, **SETTINGS.get(name, {})), a_batch()
    models = [classifier(seed=seed) for seed in range(2)]
    graph, weights = nnx.graphdef(models[0]), jnp.array([0.5, 2.0])

    def weighted(state, weight):
        value, gradient = jax.value_and_grad(lambda state: weight * penalty(nnx.merge(graph, state), batch))(state)
        assert value.shape == ()
        return value, gradient

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(nnx.state, models))
    together = jax.jit(jax.vmap(weighted))(stacked, weights)
    alone = jax.jit(weighted)
    for member, model in enumerate(models):
        expected = alone(nnx.state(model), weights[member])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a[member], b, rtol=1e-10, atol=1e-12)
        assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(expected[1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", PENALTIES)
def test_single_precision_stays_single(name):
    """Though targets are numbers in double precision."""
    settings = SETTINGS.get(name, {}) | ({"target": jnp.float64(-0.1)} if name == "flossing" else {})
    value = make_penalty(name, **settings)(classifier(dtype=jnp.float32), a_batch())
    assert value.dtype == jnp.float32


def test_equal_settings_are_equal():
    for name in PENALTIES:
        one, other = (make_penalty(name, **SETTINGS.get(name, {})) for _ in range(2))
        assert one == other
        assert hash(one) == hash(other)


def test_names():
    assert dict(PENALTIES) == {
        "flossing": FlossingPenalty,
        "norm_stabilizer": NormStabilizer,
        "soft_orthogonality": SoftOrthogonality,
        "vanishing_gradient": VanishingGradientPenalty,
    }
    with pytest.raises(ValueError, match="unknown penalty 'flosing': did you mean flossing"):
        make_penalty("flosing")
    with pytest.raises(ValueError, match=r"settings of the penalty 'flossing' must be of k, steps, .*; got k, beta"):
        make_penalty("flossing", k=1, beta=2)


@pytest.mark.parametrize(("name", "gates"), [("ElmanCell", 1), ("LSTMCell", 4)])
def test_soft_orthogonality_of_scaled_rotations(name, gates):
    """g Q in every block: G H (g^2 - 1)^2, and its derivative by g."""
    size, gain = 4, 1.1
    cell = CELLS[name](2, size, recurrent_kernel_init=orthogonal(gain), param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    model = ManyToOne(cell, 3, rngs=nnx.Rngs(0))
    value, gradient = nnx.jit(nnx.value_and_grad(SoftOrthogonality()))(model, a_batch())
    np.testing.assert_allclose(value, gates * size * (gain**2 - 1) ** 2, rtol=1e-12, atol=0)
    by_gain = jnp.sum(gradient.recurrence.cell.recurrent_kernel[...] * cell.recurrent_kernel[...]) / gain
    np.testing.assert_allclose(by_gain, gates * size * 4 * gain * (gain**2 - 1), rtol=1e-12, atol=0)


@pytest.mark.slow
def test_weights_that_are_rotations_by_construction_are_left_alone():
    model = ManyToOne(any_cell("ExpRNNCell"), 3, rngs=nnx.Rngs(0))
    assert SoftOrthogonality()(model, a_batch()) < 1e-27


def test_norm_of_a_rotated_state_is_stable():
    """h_t = Q h_(t-1) from the second step on; the first, out of zeros, does not count."""
    cell = ElmanCell(
        1, 4, activation="identity", recurrent_kernel_init=orthogonal(1.0), param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    inputs = jnp.zeros((2, 6, 1)).at[:, 0].set(1.0)
    batch = Batch(inputs, None, jnp.array([6, 3]))
    model = ManyToOne(cell, 3, rngs=nnx.Rngs(0))
    penalty = nnx.jit(NormStabilizer())
    np.testing.assert_allclose(penalty(model, batch), 0, rtol=0, atol=1e-30)
    cell.recurrent_kernel[...] *= 0.5
    first = np.linalg.norm(np.array(cell.kernel[...]))
    changes = (first * 0.5 ** np.arange(1, 6)) ** 2
    expected = (np.mean(changes) + np.mean(changes[:2])) / 2
    np.testing.assert_allclose(penalty(model, batch), expected, rtol=1e-13, atol=0)


@pytest.mark.slow
def test_norm_stabilizer_against_finite_differences():
    """States that are exactly zero, as relu's may be, and examples of one step among them."""
    cell = any_cell("ElmanCell")
    batch = Batch(noise(20, 2).reshape(4, 5, 2).at[0].set(0), None, jnp.array([5, 1, 3, 4]))
    cell.bias[...] = jnp.zeros(6)
    model = ManyToOne(cell, 3, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    value_of = jax.jit(lambda state: NormStabilizer()(nnx.merge(graph, state), batch))
    gradient = jax.jit(jax.grad(value_of))(state)
    direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), state)
    direction.recurrence.cell.bias[...] = jnp.zeros(6)  # where the norm has a kink
    ahead, behind = (value_of(jax.tree.map(lambda p, d, h=h: p + h * d, state, direction)) for h in (1e-5, -1e-5))
    along = sum(map(jnp.vdot, jax.tree.leaves(gradient), jax.tree.leaves(direction)))
    np.testing.assert_allclose(along, (ahead - behind) / 2e-5, rtol=1e-7, atol=0)


@pytest.mark.parametrize(
    ("penalty", "model", "sentence"),
    [
        (NormStabilizer(), nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "must be a SequenceModel, which tells its states"),
        (SoftOrthogonality(), nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "must hold a cell with a parameter recurrent_kernel"),
        (SoftOrthogonality(), Recurrence(any_cell("IndRNNCell")), r"square blocks .*, got shape \(1, 6\)"),
    ],
)
def test_bad_models(penalty, model, sentence):
    with pytest.raises(ValueError, match=sentence):
        penalty(model, a_batch())
