"""Orthogonal, antisymmetric and diagonal recurrence: exponents in closed form, and weights made of free parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells_by_hand import values
from cells_by_hand.orthogonal import skew_matrix
from flax import nnx
from networks import any_cell, noise

from rnn_dynamics.cells.antisymmetric import AntisymmetricCell, GatedAntisymmetricCell
from rnn_dynamics.cells.indrnn import IndRNNCell
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.cells.orthogonal import ExpRNNCell, ScoRNNCell, cayley, henaff
from rnn_dynamics.dynamics import DrivenSystem, jacobian, lyapunov_spectrum
from rnn_dynamics.layers import Recurrence


def linear(cell, hidden=5, **options):
    options = {"param_dtype": jnp.float64, "recurrent_kernel_init": gaussian(2.0)} | options
    return cell(1, hidden, activation="identity", rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize("cell", [ExpRNNCell, ScoRNNCell])
def test_orthogonal_networks_of_linear_units_neither_grow_nor_shrink(cell):
    """Exponents 0, and every singular value of a product of 10 000 Jacobians is 1: each step may round once."""
    system, inputs = DrivenSystem.from_cell(linear(cell)), noise(40)
    spectrum, one_step = jax.jit(
        lambda system: (lyapunov_spectrum(system, inputs), jacobian(system, system.initial_state, inputs[0]))
    )(system)
    np.testing.assert_allclose(spectrum.exponents, np.zeros(5), rtol=0, atol=2e-15)
    product = np.linalg.matrix_power(one_step, 10_000)
    np.testing.assert_allclose(np.log(np.linalg.svd(product, compute_uv=False)), np.zeros(5), rtol=0, atol=2e-11)


def angles_of(cell):
    """Of the eigenvalues of W_h, those that are not conjugates of others; W_h is orthogonal."""
    kernel = np.asarray(cell.evaluated().recurrent_kernel[...])
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(len(kernel)), rtol=0, atol=1e-14)
    return np.sort(np.abs(np.angle(np.linalg.eigvals(kernel))))[::-2]


@pytest.mark.parametrize(("init", "largest"), [(henaff, np.pi), (cayley, 1.0)])
def test_a_fresh_exponential_turns_planes_by_the_angles_in_its_parameter(init, largest):
    cell = linear(ExpRNNCell, hidden=40, recurrent_kernel_init=init)
    angles = np.diag(skew_matrix(cell), 1)
    assert np.all(angles[1::2] == 0)
    assert np.count_nonzero(skew_matrix(cell)) == 40
    assert largest * 0.7 < np.max(np.abs(angles)) < largest
    np.testing.assert_allclose(angles_of(cell), np.sort(np.abs(angles[::2]))[::-1], rtol=0, atol=1e-13)


def test_a_fresh_cayley_transform_turns_planes_by_up_to_a_quarter():
    cell = linear(ScoRNNCell, hidden=40, negatives=0, recurrent_kernel_init=cayley)
    angles = 2 * np.arctan(np.diag(skew_matrix(cell), 1)[::2])
    assert 0 < np.min(angles) < 0.4
    assert 1.2 < np.max(angles) < np.pi / 2
    np.testing.assert_allclose(angles_of(cell), np.sort(angles)[::-1], rtol=0, atol=1e-13)


def test_the_number_of_signs_is_the_determinant_and_vmap_carries_it():
    def determinant(negatives):
        return jnp.linalg.det(linear(ScoRNNCell, negatives=negatives).evaluated().recurrent_kernel[...])

    np.testing.assert_allclose(jax.vmap(determinant)(jnp.arange(6)), [1, -1, 1, -1, 1, -1], rtol=0, atol=1e-14)
    assert values(linear(ScoRNNCell).signs).tolist() == [-1, -1, 1, 1, 1]


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize("name", ["ExpRNNCell", "ScoRNNCell", "AntisymmetricCell"])
@pytest.mark.slow
def test_evaluating_once_changes_no_value_and_no_gradient(name):
    """Against a loop that makes the matrix at every step, and against central differences along some direction."""
    cell, inputs = any_cell(name), noise(6, 2)
    graph, free, rest = nnx.split(cell, nnx.Param, ...)

    def evaluated(free):
        return jnp.sum(jnp.sin(Recurrence(nnx.merge(graph, free, rest))(inputs[None])[1]))

    def stepwise(free):
        step = nnx.merge(graph, free, rest)
        return jnp.sum(jnp.sin(jax.lax.scan(lambda h, x: step(h, x), jnp.zeros(6), inputs)[1]))

    def of_system(free):
        system = DrivenSystem.from_cell(nnx.merge(graph, free, rest))
        return jnp.sum(jnp.sin(jax.lax.scan(lambda h, x: (system.step(h, x),) * 2, jnp.zeros(6), inputs)[1]))

    direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(1.0, 1.0 + leaf.size)).reshape(leaf.shape), free)

    @jax.jit
    def all_at_once(free):
        moved = [jax.tree.map(lambda p, d, e=e: p + e * d, free, direction) for e in (1e-5, -1e-5)]
        found = [jax.value_and_grad(function)(free) for function in (evaluated, stepwise, of_system)]
        return found, [evaluated(point) for point in moved]

    found, (ahead, behind) = all_at_once(free)
    not_compiled = float(evaluated(free))
    for value, gradient in found:
        assert float(value) == pytest.approx(not_compiled, abs=1e-13)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), gradient, found[0][1])
        assert np.all(np.tril(gradient["recurrent_kernel"][...]) == 0)  # the strict upper triangle is all that counts
        slope = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
        assert float(slope) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-7)


def test_an_evaluated_cell_has_its_kernel_and_is_evaluated():
    cell = any_cell("ExpRNNCell")
    once = cell.evaluated()
    assert once.evaluated() is once
    assert "recurrent_kernel" not in nnx.state(once, nnx.Param)
    assert "recurrent_kernel" in nnx.state(cell, nnx.Param)


def test_a_network_in_single_precision_is_measured_with_a_matrix_made_in_double():
    cell = linear(ExpRNNCell, param_dtype=jnp.float32)
    for kernel, atol in [
        (cell.evaluated().recurrent_kernel[...], 1e-6),
        (DrivenSystem.from_cell(cell, dtype=jnp.float64).params["recurrent_kernel"][...], 1e-14),
    ]:
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(5), rtol=0, atol=atol)


@pytest.mark.parametrize(("cell", "gate"), [(AntisymmetricCell, 1.0), (GatedAntisymmetricCell, 0.5)])
@pytest.mark.slow
def test_exponents_of_antisymmetric_networks_at_rest(cell, gate):
    """J = I + e (A - c I) is normal, |eig| = |1 - e c + i e w|, with e the step times the gate; for two steps."""

    def make(step, damping):
        options = {"recurrent_kernel_init": gaussian(2.0), "param_dtype": jnp.float64, "rngs": nnx.Rngs(3)}
        return cell(1, 4, step=step, damping=damping, **options)

    steps, dampings = jnp.array([0.5, 1.0]), jnp.array([0.0, 0.3])
    found = jax.jit(
        jax.vmap(
            lambda *settings: (
                lyapunov_spectrum(DrivenSystem.from_cell(make(*settings)), steps=700, tangent_transient=600).exponents
            )
        )
    )(steps, dampings)
    frequencies = np.linalg.eigvals(skew_matrix(make(0.5, 0.0))).imag
    for exponents, step, damping in zip(found, gate * steps, dampings, strict=True):
        moduli = np.abs(1 - step * damping + 1j * step * frequencies)
        np.testing.assert_allclose(exponents, np.sort(np.log(moduli))[::-1], rtol=0, atol=1e-13)


def test_exponents_of_independent_units_are_logarithms_of_their_weights():
    u = np.array([1.2, -0.9, 0.7, -0.4, 0.1])
    cell = linear(IndRNNCell, recurrent_kernel_init=lambda key, shape, dtype: jnp.asarray(u, dtype).reshape(shape))
    exponents = lyapunov_spectrum(DrivenSystem.from_cell(cell), noise(220), tangent_transient=200).exponents
    np.testing.assert_allclose(exponents, np.log(np.abs(u)), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("cell", "options", "sentence"),
    [
        (AntisymmetricCell, {"step": -0.1}, "step must be > 0, got -0.1"),
        (GatedAntisymmetricCell, {"damping": -1.0}, "damping must be >= 0, got -1.0"),
        (ScoRNNCell, {"negatives": 5}, "negatives must be a whole number from 0 to 4, got 5"),
        (ExpRNNCell, {"activation": "modrely"}, "unknown activation 'modrely': did you mean modrelu"),
        (IndRNNCell, {"activation": "modrelu"}, "unknown activation 'modrelu'"),
    ],
)
def test_bad_input_gets_one_sentence(cell, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        cell(1, 4, rngs=nnx.Rngs(0), **options)
