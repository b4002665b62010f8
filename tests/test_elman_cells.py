"""Elman networks whose exponents are known: linear leaky ones, IRNN and np-RNN; and the names they are called by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import noise, zeros

from rnn_dynamics.cells import ElmanCell, LeakyElmanCell, LSTMCell, make_cell, parse_cell_name, short_name
from rnn_dynamics.cells.initializers import identity, orthogonal, positive_definite
from rnn_dynamics.dynamics import DrivenSystem, jacobian, lyapunov_spectrum


@pytest.mark.slow
def test_linear_leaky_exponents_for_an_ensemble_of_steps():
    """ln|1 - delta + delta eig(W)| per step; cells are made and measured under one vmap over delta."""
    eigenvalues, steps = np.array([1.0, 0.5, 0.2, -0.7]), np.array([0.2, 0.5, 1.0])
    frame = orthogonal()(jax.random.key(0), (4, 4), jnp.float64)
    kernel = frame @ jnp.diag(eigenvalues) @ frame.T

    @jax.jit
    @jax.vmap
    def exponents(step):
        cell = LeakyElmanCell(
            1,
            4,
            activation="identity",
            step=step,
            recurrent_kernel_init=lambda key, shape, dtype: kernel,
            param_dtype=jnp.float64,
            rngs=nnx.Rngs(0),
        )
        return lyapunov_spectrum(DrivenSystem.from_cell(cell), noise(320), tangent_transient=300).exponents

    expected = np.log(np.abs(1 - steps[:, None] + steps[:, None] * eigenvalues))
    np.testing.assert_allclose(exponents(jnp.asarray(steps)), -np.sort(-expected, axis=1), rtol=0, atol=1e-13)


def test_each_unit_goes_its_own_step_of_the_way_of_an_elman_network():
    steps = jnp.linspace(0.1, 1.0, 6)
    options = {"activation": "softsign", "param_dtype": jnp.float64}
    leaky = LeakyElmanCell(2, 6, step=steps, rngs=nnx.Rngs(3), **options)
    plain = ElmanCell(2, 6, rngs=nnx.Rngs(3), **options)
    carry, inputs = noise(3, 6, seed=2), noise(3, 2)
    way = np.asarray(plain(carry, inputs)[0] - carry)
    np.testing.assert_allclose(leaky(carry, inputs)[0] - carry, np.asarray(steps) * way, rtol=0, atol=1e-15)
    assert set(nnx.state(leaky, nnx.Param)) == {"kernel", "recurrent_kernel", "bias"}  # the step is not trained


@pytest.mark.parametrize(
    ("recurrent_kernel_init", "bias", "largest"),
    [(identity(), 0.1, 1.0), (positive_definite(0.5), 1.0, 0.5)],
    ids=["IRNN", "np-RNN"],
)
def test_rectified_networks_are_linear_while_every_unit_is_active(recurrent_kernel_init, bias, largest):
    """The Jacobian is W, so exponents are ln eig(W): all 0 for an IRNN, the largest ln gain for an np-RNN."""
    cell = ElmanCell(
        1,
        5,
        activation="relu",
        kernel_init=zeros,
        recurrent_kernel_init=recurrent_kernel_init,
        bias_init=jax.nn.initializers.constant(bias),
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
    )
    kernel = np.asarray(cell.recurrent_kernel[...])
    np.testing.assert_array_equal(jacobian(DrivenSystem.from_cell(cell), jnp.zeros(5), noise(1)[0]), kernel.T)
    eigenvalues = np.linalg.eigvals(kernel)
    assert np.max(eigenvalues) == pytest.approx(largest, abs=1e-14)
    assert np.min(eigenvalues) == 1 if largest == 1 else 0 < np.min(eigenvalues) < largest / 2


def test_names_of_cells():
    renamed = {name: type(f"{name}Cell", (LSTMCell,), {}) for name in ("PeepholeLSTM", "IndRNN", "JANET", "FastGRNN")}
    assert [short_name(cell) for cell in renamed.values()] == ["peephole_lstm", "indrnn", "janet", "fastgrnn"]
    assert parse_cell_name("leaky_elman-relu") == (LeakyElmanCell, {"activation": "relu"})
    cell = make_cell("leaky_elman-relu", 2, 3, step=0.5, rngs=nnx.Rngs(0))
    assert (cell.activation.name, float(cell.step[...])) == ("relu", 0.5)


def test_bad_input_gets_one_sentence():
    for step in (0.0, 1.5, jnp.array([0.5, -1.0])):
        with pytest.raises(ValueError, match=r"step must be in \(0, 1\], got"):
            LeakyElmanCell(1, 2, step=step, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="cell 'lstm' takes no option 'step': it takes forget_bias, kernel_init, "):
        make_cell("lstm", 1, 2, step=0.5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="cell 'elman-relu' takes no option 'activation': it takes kernel_init"):
        make_cell("elman-relu", 1, 2, activation="tanh", rngs=nnx.Rngs(0))
