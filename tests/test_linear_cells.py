"""Cells linear in their state: exponents in closed form, the LRU's ring and output, gates that are shut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import any_cell, noise

from rnn_dynamics.cells import CELLS, make_cell
from rnn_dynamics.cells.lru import Ring
from rnn_dynamics.dynamics import DrivenSystem, gate_decomposition, lyapunov_spectrum

ALIGNED, STEPS = 80, 20
"""Steps in which the frames align, and that are measured."""
INPUTS = noise(ALIGNED + STEPS, 2)
LOGITS = jnp.array([-1.5, 0.0, 1.5])
"""Far enough apart for a frame to align to rounding, the ratio of neighbouring decays being below exp(-0.4)."""


def linear_cell(name, **options):
    """Three units that forget at different rates."""
    cell = CELLS[name](2, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0), **options)
    if name == "LRUCell":
        cell.nu_log[...] = LOGITS
    else:
        cell.maps.kernel[...] *= 0.1
        cell.maps.bias[...] = jnp.concatenate([LOGITS, jnp.zeros(3 * (len(cell.gate_order) - 1))])
    return cell


def log_decays(name, cell, inputs):
    """ln of what each unit keeps of its state at every step [T, H], from the papers' equations."""
    if name == "LRUCell":
        return np.tile(-np.exp(np.repeat(LOGITS, 2)), (len(inputs), 1))
    preactivations = np.asarray(inputs @ cell.maps.kernel[...]) + np.asarray(cell.maps.bias[...])
    first, second = 1 / (1 + np.exp(-preactivations[:, :6].reshape(-1, 2, 3).swapaxes(0, 1)))
    return np.log(1 - first) if name == "MinGRUCell" else np.log(first / (first + second))


@jax.jit
def growth(system, inputs):
    spectrum = lyapunov_spectrum(system, inputs, tangent_transient=ALIGNED)
    return spectrum.exponents, spectrum.log_det_residual


@pytest.mark.parametrize("name", ["LRUCell", "MinGRUCell", "MinLSTMCell"])
def test_exponents_are_mean_logs_of_what_is_kept(name):
    """Of the LRU ln|lambda|, twice each, whatever drives it; of the others the mean of ln(1 - z_t) or ln f'_t."""
    cell = linear_cell(name)
    system = DrivenSystem.from_cell(cell)
    for inputs in (INPUTS, jnp.zeros_like(INPUTS)):
        exponents, residual = growth(system, inputs)
        kept = log_decays(name, cell, inputs)[ALIGNED:]
        np.testing.assert_allclose(exponents, np.sort(np.mean(kept, axis=0))[::-1], rtol=1e-13)
        assert residual < 1e-14


def test_the_output_of_an_lru_is_the_real_part_of_c_h():
    cell = any_cell("LRUCell", hidden=3)
    parts = np.random.default_rng(0).normal(size=(2, 4, 3))
    carry = parts[0] + 1j * parts[1]
    c = np.asarray(cell.C_re[...]) + 1j * np.asarray(cell.C_im[...])
    np.testing.assert_allclose(cell.output(jnp.asarray(carry)), np.real(carry @ c), rtol=1e-15, atol=1e-15)


def test_the_ring_of_a_fresh_lru():
    """Uniform on the ring: |lambda|^2 is uniform on r_min^2 ... r_max^2, with a standard deviation of 1/sqrt(12)."""
    size, r_min, r_max, max_phase = 800, 0.6, 0.9, 1.2
    cell = make_cell("lru", 50, size, ring=Ring(r_min, r_max, max_phase), param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    squares, phases = np.exp(-2 * np.exp(cell.nu_log[...])), np.exp(cell.theta_log[...])
    for values, low, high in ((squares, r_min**2, r_max**2), (phases, 0, max_phase)):
        unit = (values - low) / (high - low)
        assert unit.min() >= 0
        assert unit.max() <= 1
        assert np.mean(unit) == pytest.approx(0.5, abs=4 / np.sqrt(12 * size))
        assert np.var(unit) == pytest.approx(1 / 12, abs=4 / np.sqrt(180 * size))
    np.testing.assert_allclose(np.exp(2 * cell.gamma_log[...]), 1 - squares, rtol=1e-13)
    # Entries N(0, 1/2F) and N(0, 1/H): the relative error of n squares is sqrt(2/n).
    for kernel, variance in ((cell.B_re, 1 / 100), (cell.B_im, 1 / 100), (cell.C_re, 1 / size)):
        assert np.var(kernel[...]) == pytest.approx(variance, rel=4 * np.sqrt(2 / kernel.size))


@pytest.mark.slow
def test_a_ring_of_no_width_and_rings_that_vmap_carries():
    def moduli(r_min, r_max):
        return jnp.exp(-jnp.exp(make_cell("lru", 1, 3, ring=Ring(r_min, r_max), rngs=nnx.Rngs(0)).nu_log[...]))

    np.testing.assert_allclose(moduli(0.9, 0.9), 0.9, rtol=1e-6)
    radii = jnp.array([0.5, 0.7], jnp.float32)
    np.testing.assert_allclose(jax.vmap(moduli)(radii, radii), np.repeat(radii, 3).reshape(2, 3), rtol=1e-6)
    assert np.all(np.isfinite(make_cell("lru", 1, 3, ring=Ring(1 - 1e-7), rngs=nnx.Rngs(0)).gamma_log[...]))


def test_a_min_lstm_whose_gates_are_both_shut_still_weighs_them():
    """f = i = sigmoid(-200), 0 in float32; and f'/i' = e where the preactivations differ by 1."""
    cell = CELLS["MinLSTMCell"](2, 1, rngs=nnx.Rngs(0))
    cell.maps.bias[...] = jnp.array([-200.0, -200.0, 3.0], jnp.float32)
    gates = cell.gates(jnp.zeros(1), jnp.zeros(2))
    assert float(gates["forget"][0]) == float(gates["input"][0]) == 0.5
    cell.maps.bias[...] = jnp.array([-199.0, -200.0, 3.0], jnp.float32)
    gates = cell.gates(jnp.zeros(1), jnp.zeros(2))
    assert float(gates["forget"][0] / gates["input"][0]) == pytest.approx(np.e, rel=1e-6)


@pytest.mark.parametrize("name", ["MinGRUCell", "MinLSTMCell"])
def test_positive_candidates_keep_the_state_positive(name):
    """As the papers' form in logarithms needs: g(x) = x + 1/2 from 0 on, sigmoid(x) below."""
    cell = linear_cell(name, activation="positive")
    candidates = cell.gates(jnp.zeros(3), 100 * INPUTS)["candidate"]
    x = (100 * INPUTS @ cell.maps.kernel[...])[:, -3:]
    np.testing.assert_allclose(candidates, np.where(x >= 0, x + 0.5, 1 / (1 + np.exp(-x))), rtol=1e-12)
    assert np.all(candidates > 0)


@pytest.mark.slow
def test_all_of_the_growth_is_on_the_direct_path():
    """Of complex gates too."""
    for name in ("LRUCell", "MinGRUCell"):
        cell = linear_cell(name)
        result = gate_decomposition(DrivenSystem.from_cell(cell), INPUTS, tangent_transient=ALIGNED)
        np.testing.assert_allclose(result.share, [1, 0, 0], rtol=0, atol=1e-14)
        assert np.isrealobj(result.by_unit.mean)
    np.testing.assert_allclose(
        result.time_scale, -1 / np.mean(log_decays(name, cell, INPUTS)[ALIGNED:], axis=0), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("ring", "sentence"),
    [
        (Ring(0.9, 0.5), "ring must have radii .* got r_min=0.9, r_max=0.5"),
        (Ring(r_max=1.5), "ring must have radii .* got r_min=0.0, r_max=1.5"),
        (Ring(r_min=1.0), "ring must have radii .* got r_min=1.0, r_max=1.0"),
        (Ring(max_phase=0.0), "ring must have max_phase > 0, got 0.0"),
    ],
)
def test_bad_input_gets_one_sentence(ring, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_cell("lru", 1, 2, ring=ring, rngs=nnx.Rngs(0))
