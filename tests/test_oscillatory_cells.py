"""coRNN and LEM without weights, where every unit is alone and its exponents are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells_by_hand import sigmoid
from flax import nnx
from networks import noise

from rnn_dynamics.cells.cornn import CoRNNCell, ImplicitCoRNNCell
from rnn_dynamics.cells.lem import LEMCell
from rnn_dynamics.dynamics import DrivenSystem, jacobian, lyapunov_spectrum


def without_weights(cell, **settings):
    zeros = jax.nn.initializers.zeros
    options = {"kernel_init": zeros, "recurrent_kernel_init": zeros, "bias_init": jax.nn.initializers.normal(1.0)}
    return cell(1, 3, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0), **settings)


def eigenvalues(cell, step, stiffness, damping):
    """Of y_n - 2 y_{n-1} + y_{n-2} = -step^2 stiffness y_{n-1} - step damping (...), a quadratic for each unit.

    The damping reads y_n - y_{n-1} where it is implicit, and else y_{n-1} - y_{n-2}.
    """
    friction, spring = step * damping, step**2 * stiffness
    polynomials = {
        CoRNNCell: (1 + 0 * friction, spring - 2 + friction, 1 - friction),
        ImplicitCoRNNCell: (1 + friction, spring - 2 - friction, 1 + 0 * friction),
    }
    return np.concatenate([np.roots(coefficients) for coefficients in zip(*polynomials[cell], strict=True)])


@pytest.mark.slow
def test_exponents_of_overdamped_oscillators():
    settings = {"step": np.array([0.1, 0.2, 0.3]), "stiffness": np.full(3, 1.0), "damping": np.array([4.0, 3.0, 2.6])}
    expected = eigenvalues(CoRNNCell, **settings)
    assert np.all(np.isreal(expected))
    system = DrivenSystem.from_cell(without_weights(CoRNNCell, **jax.tree.map(jnp.asarray, settings)))
    result = lyapunov_spectrum(system, noise(800), tangent_transient=700)
    np.testing.assert_allclose(result.exponents, np.sort(np.log(np.abs(expected)))[::-1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("cell", [CoRNNCell, ImplicitCoRNNCell])
@pytest.mark.slow
def test_eigenvalues_of_a_sweep_of_dampings(cell):
    """From overdamped to undamped, where the step is symplectic: |eig| = 1."""
    dampings = jnp.array([0.0, 0.5, 5.0])

    def one_step(damping):
        system = DrivenSystem.from_cell(without_weights(cell, step=0.25, stiffness=2.0, damping=damping))
        return jacobian(system, jnp.arange(6.0), noise(1)[0])

    for matrix, damping in zip(jax.vmap(one_step)(dampings), dampings, strict=True):
        expected = eigenvalues(cell, *(np.full(3, setting) for setting in (0.25, 2.0, damping)))
        found = np.linalg.eigvals(matrix)
        np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(expected), rtol=0, atol=1e-14)
        assert damping > 0 or np.all(np.abs(np.abs(found) - 1) < 1e-14)


def test_exponents_of_idle_memories():
    steps, biases = np.array([1.0, 0.5, 0.25]), np.array([-2.0, 0.0, 2.0, -1.0, 1.0, -3.0])
    cell = without_weights(LEMCell, step=jnp.asarray(steps))
    cell.bias[...] = cell.bias[...].at[:6].set(biases)
    exponents = lyapunov_spectrum(DrivenSystem.from_cell(cell), noise(1200), tangent_transient=1100).exponents
    kept = 1 - np.tile(steps, 2) * sigmoid(biases)
    np.testing.assert_allclose(exponents, np.sort(np.log(kept))[::-1], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("cell", "options", "sentence"),
    [
        (CoRNNCell, {"step": 0.0}, "step must be > 0, got 0.0"),
        (ImplicitCoRNNCell, {"stiffness": -1.0}, "stiffness must be >= 0, got -1.0"),
        (CoRNNCell, {"damping": jnp.ones(2)}, r"damping must be one number or 3, one for each unit, got shape \(2,\)"),
        (LEMCell, {"step": 1.5}, r"step must be in \(0, 1\], got 1.5"),
    ],
)
def test_bad_input_gets_one_sentence(cell, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        cell(1, 3, rngs=nnx.Rngs(0), **options)
