"""What is measured while a network learns: against the measurements themselves, closed forms, and one by one."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from largest_so_far import STEPS, WORDS, assert_trees_close, classifier
from networks import any_cell, slow_but
from probes_made import BATCH, INPUTS, MADE, linear_model, model_of, task_loss
from scipy.linalg import expm

from rnn_dynamics.dynamics import (
    DrivenSystem,
    gate_activity,
    gradient_norm_by_lag,
    loss_adjoints,
    loss_curvature,
    lyapunov_spectrum,
)
from rnn_dynamics.layers import Recurrence
from rnn_dynamics.training.probes import Adjoints, Exponents, Reach, RecurrentMatrix
from rnn_dynamics.training.probes.recurrent_matrix import radius_on_host, spectral_radius


@cache
def system():
    return DrivenSystem.from_cell(model_of(0).cell)


def split(model):
    return nnx.split(model, nnx.Param, ...)


def measure_all(params):
    graph, _, rest = split(model_of(0))
    return {name: probe.measure(nnx.merge(graph, params, rest, copy=True)) for name, probe in MADE.items()}


@pytest.fixture(scope="module")
def measured():
    """What all probes say of the first model."""
    return jax.jit(measure_all)(split(model_of(0))[1])


@pytest.mark.slow
def test_an_ensemble_is_one_by_one(measured):
    params = [split(model_of(seed))[1] for seed in range(3)]
    together = jax.jit(jax.vmap(measure_all))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *params))
    alone = [measured, *map(jax.jit(measure_all), params[1:])]
    for number, expected in enumerate(alone):
        assert_trees_close(jax.tree.map(lambda leaf, number=number: leaf[number], together), expected, atol=1e-10)


def mean_and_error(samples):
    samples = np.asarray(samples)
    return samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(len(samples))


@pytest.mark.slow
def test_exponents_are_those_of_the_spectra(measured):
    spectra = [
        lyapunov_spectrum(system(), stream, k=2, transient=2, tangent_transient=3).exponents for stream in INPUTS
    ]
    mean, error = mean_and_error(spectra)
    np.testing.assert_allclose(measured["Exponents"]["mean"], mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(measured["Exponents"]["standard_error"], error, rtol=0, atol=1e-12)
    assert np.all(error > 1e-4)


@pytest.mark.slow
def test_reach_is_that_of_the_mean_norm(measured):
    norms = [gradient_norm_by_lag(system(), stream, max_lag=6, transient=2).log_norm for stream in INPUTS]
    mean, error = mean_and_error(norms)
    found = measured["Reach"]
    np.testing.assert_allclose(found["log_norm"], mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["log_norm_standard_error"], error, rtol=0, atol=1e-12)
    after = int(np.argmax(mean <= -1))
    assert after > 0
    steps = np.interp(1, -mean[after - 1 : after + 1], [after - 1, after])
    np.testing.assert_allclose(found["steps"], steps, rtol=0, atol=1e-12)
    drop = mean[after - 1] - mean[after]
    np.testing.assert_allclose(found["steps_standard_error"], error[after] / drop, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_adjoints_are_medians_over_the_examples_that_are_so_long(measured):
    layer = loss_adjoints(model_of(0), task_loss, BATCH).layers["recurrence"]
    found, lengths = measured["Adjoints"], BATCH.lengths
    assert len(set(lengths)) > 1
    assert max(lengths) == STEPS
    for t in range(STEPS):
        median = np.median(np.asarray(layer.state_norm)[t, lengths > t])
        np.testing.assert_allclose(found["state_norm"][0, t], median, rtol=1e-12, atol=0)
    places = MADE["Adjoints"].coordinates(model_of(0))
    assert places["layer"].values == ("recurrence",)
    assert sorted(places["parameter"].values) == [f"recurrence.{name}" for name in sorted(layer.weight_norm)]
    for row, name in enumerate(places["parameter"].values):
        expected = layer.weight_norm[name.removeprefix("recurrence.")]
        np.testing.assert_allclose(found["weight_norm"][row], expected, rtol=1e-12, atol=0)


@pytest.mark.slow
def test_gates_are_averages_over_units_and_streams(measured):
    runs = [gate_activity(system(), stream, transient=2) for stream in INPUTS]
    found = measured["Gates"]
    assert MADE["Gates"].coordinates(model_of(0))["gate"].values == ("input", "forget", "output")
    for name in ("mean", "left_saturated", "right_saturated"):
        expected = np.mean([getattr(run.by_unit, name) for run in runs], axis=(0, 2))
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-14)
    forget = np.mean([1 / run.time_scale[:4] for run in runs], axis=0)
    np.testing.assert_allclose(found["time_scale"], [*(1 / forget), 0, 0, 0, 0], rtol=1e-12, atol=0)


@pytest.mark.slow
def test_recurrent_weights_are_looked_at_gate_by_gate(measured):
    kernels = np.split(np.asarray(model_of(0).cell.recurrent_kernel[...]), 4, axis=1)
    found = measured["RecurrentMatrix"]
    radii = [np.abs(np.linalg.eigvals(kernel)).max() for kernel in kernels]
    np.testing.assert_allclose(found["spectral_radius"], radii, rtol=1e-12, atol=0)
    np.testing.assert_allclose(found["norm"], [np.linalg.norm(kernel, 2) for kernel in kernels], rtol=1e-12, atol=0)
    names = MADE["RecurrentMatrix"].coordinates(model_of(0))["block"].values
    assert names == ("input", "forget", "candidate", "output")


@pytest.mark.slow
def test_curvature_is_that_of_the_mean_loss(measured):
    graph, params, rest = split(model_of(0))

    def mean_loss(params):
        return jnp.mean(task_loss(nnx.merge(graph, params, rest), BATCH))

    expected, found = loss_curvature(mean_loss, params, iterations=20), measured["Curvature"]
    for name in ("largest", "smallest", "largest_error", "smallest_error"):
        np.testing.assert_allclose(found[name], getattr(expected, name)[0], rtol=0, atol=1e-10)
    assert found["largest_error"] < 1e-3 * found["largest"]


def test_a_linear_network_with_g_times_a_rotation():
    """Every exponent ln g, every norm g^lag, spectral radius and norm g; and no error over streams."""
    gain, model = 0.8, linear_model(0.8)
    probes = Exponents(INPUTS, k=4, qr_every=2), Reach(INPUTS, max_lag=7), RecurrentMatrix()
    exponents, reach, matrix = nnx.jit(lambda model: [probe.measure(model) for probe in probes])(model)
    np.testing.assert_allclose(exponents["mean"], np.full(4, np.log(gain)), rtol=0, atol=1e-14)
    np.testing.assert_allclose(exponents["standard_error"], np.zeros(4), rtol=0, atol=1e-14)
    np.testing.assert_allclose(reach["log_norm"], np.log(gain) * np.arange(8), rtol=0, atol=1e-14)
    assert float(reach["steps"]) == pytest.approx(-1 / np.log(gain), abs=1e-12)
    np.testing.assert_allclose([matrix["spectral_radius"], matrix["norm"]], [[gain], [gain]], rtol=0, atol=1e-14)


@pytest.mark.slow
def test_tokens_are_encoded_and_one_stream_has_no_error():
    model = classifier(vocabulary_size=WORDS)
    tokens = np.random.default_rng(0).integers(0, WORDS, (1, 6)).astype(np.int32)
    found = Exponents(tokens).measure(model)
    features = model.embedding(tokens)[0]
    spectrum = lyapunov_spectrum(DrivenSystem.from_cell(model.cell), features, k=1)
    np.testing.assert_allclose(found["mean"], spectrum.exponents, rtol=0, atol=1e-13)
    assert np.all(np.isnan(found["standard_error"]))


@pytest.mark.slow
def test_dtype_is_the_cells_own_or_the_one_asked_for():
    model = linear_model(0.8, dtype=jnp.float32)
    assert Exponents(INPUTS).measure(model)["mean"].dtype == jnp.float32
    double = Exponents(INPUTS, dtype="float64").measure(model)["mean"]
    assert double.dtype == jnp.float64
    matrix = np.asarray(model.cell.recurrent_kernel[...], np.float64)  # orthogonal to the digits of float32
    np.testing.assert_allclose(double, [np.log(np.linalg.norm(matrix, 2))], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_an_example_that_does_not_stay_finite_is_seen():
    spoiled = BATCH._replace(inputs=np.where(np.arange(6)[:, None, None] == 2, np.nan, BATCH.inputs))
    found = Adjoints(spoiled, task_loss).measure(model_of(0))["state_norm"]
    assert BATCH.lengths[2] >= 1
    np.testing.assert_array_equal(np.isnan(found[0]), np.arange(STEPS) < BATCH.lengths[2])


@pytest.mark.parametrize("function", [spectral_radius, radius_on_host])
def test_spectral_radius_on_both_ways(function):
    """Of [[0, a], [b, 0]] the eigenvalues are +-sqrt(a b), of a rotation by g they are complex of modulus g."""
    turn = 0.7 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    matrices = jnp.stack([jnp.array([[0.0, 8.0], [2.0, 0.0]]), turn, jnp.full((2, 2), jnp.nan)])
    expected = [4.0, 0.7, np.nan]
    np.testing.assert_allclose(jax.jit(function)(matrices), expected, rtol=1e-14, atol=0)
    stacked = jax.jit(jax.vmap(function))(jnp.stack([matrices, 2 * matrices]))
    np.testing.assert_allclose(stacked, np.outer([1, 2], expected), rtol=1e-14, atol=0)


def test_on_a_cpu_nothing_is_handed_to_the_host():
    lowered = jax.jit(jax.vmap(spectral_radius)).lower(jnp.ones((2, 3, 4, 4)))
    assert "callback" not in lowered.as_text()
    assert "callback" in jax.jit(radius_on_host).lower(jnp.ones((3, 4, 4))).as_text()


def kernel_of(cell):
    return np.asarray(cell.recurrent_kernel[...])


def rotation_of(cell):
    upper = np.triu(kernel_of(cell), 1)
    return expm(upper - upper.T).T


EFFECTIVE = {
    "ExpRNNCell": rotation_of,
    "IndRNNCell": lambda cell: np.diag(kernel_of(cell)[0]),
    "ClockworkCell": lambda cell: kernel_of(cell) * np.kron([[1, 0], [1, 1]], np.ones((3, 3))),  # two modules of three
}


@pytest.mark.parametrize("name", slow_but(["ExpRNNCell"], EFFECTIVE))
def test_recurrent_weights_are_what_the_state_meets(name):
    """Weights that are a function of their parameter, or of which not all are heard."""
    cell = any_cell(name)
    found, matrix = nnx.jit(RecurrentMatrix().measure)(Recurrence(cell)), EFFECTIVE[name](cell)
    radius, norm = np.abs(np.linalg.eigvals(matrix)).max(), np.linalg.norm(matrix, 2)
    np.testing.assert_allclose(found["spectral_radius"], [radius], rtol=1e-12, atol=0)
    np.testing.assert_allclose(found["norm"], [norm], rtol=1e-12, atol=0)


@pytest.mark.slow
def test_blocks_that_gates_share_are_numbered():
    assert RecurrentMatrix().coordinates(Recurrence(any_cell("FastGRNNCell")))["block"].values == ("0",)
