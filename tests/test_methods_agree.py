"""Every method of measuring growth against every other and against dense matrices in NumPy, on every cell.

In double precision all start from the same frame, so they agree to rounding however well it has aligned. Four networks
are measured as they are. Of every other cell the methods get the Jacobians along its trajectory, as a linear system
that is driven by them: so one program, compiled once, measures all.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import any_cell, dense_jacobians, noise

from rnn_dynamics.cells import CELLS
from rnn_dynamics.dynamics import (
    Chunked,
    DrivenSystem,
    covariant_lyapunov_vectors,
    finite_time_exponents,
    gradient_norm_by_lag,
    jacobian_product,
    loss_adjoints,
    lyapunov_spectrum,
)
from rnn_dynamics.layers import Recurrence

pytestmark = pytest.mark.slow

ALIGNED, STEPS = 120, 60
"""Steps in which the frames align, and that are measured."""
BACK = 4
"""The last of them, the covariant vectors' backward transient."""
CHUNKS = 3
HORIZONS = [1, 3, STEPS]
INPUTS = noise(ALIGNED + STEPS, 2)
SIZE, REPLAYED_SIZE = 6, 8
"""Of the state."""


def cell_of(name, size=SIZE, **options):
    """A cell with a state of that size."""
    for hidden in range(2, size + 1):
        if any_state_size(name, hidden) == size:
            return any_cell(name, hidden=hidden, **options)
    raise ValueError(f"no {name} has a state of size {size}")


def any_state_size(name, hidden):
    carry = jax.eval_shape(lambda: any_cell(name, hidden=hidden).initialize_carry((2,)))
    return sum(leaf.size * (1 + jnp.issubdtype(leaf.dtype, jnp.complexfloating)) for leaf in jax.tree.leaves(carry))


STABLE = cell_of("ElmanCell", gain=0.7, seed=1)
NETWORKS = {name: cell_of(name) for name in ("ElmanCell", "LSTMCell", "GRUCell")} | {"stable": STABLE}
SYSTEMS = [DrivenSystem.from_cell(cell) for cell in NETWORKS.values()]
REPLAYED = [name for name in CELLS if name not in NETWORKS]
WITH_JACOBIANS_THAT_KEEP_ANGLES = {"ExpRNNCell", "ScoRNNCell", "IndRNNCell", "LRUCell"}
"""Orthogonal or (block) diagonal ones, whose covariant vectors are the frame."""


def one_of(params, state, inputs_t):
    """Make the step of the network of that number: what compiles once measures all with states of one size."""
    number, systems = params
    return jax.lax.switch(number, [system.step for system in systems], state, inputs_t)


def replay(params, state, inputs_t):
    """Apply the Jacobian that the inputs are."""
    return inputs_t.reshape(len(state), len(state)) @ state


def weighted(state):
    """The gradient of `loss_of_last` by the last state."""
    return jnp.arange(1.0, state.shape[-1] + 1, dtype=state.dtype) * state


def loss_of_last(model, inputs):
    """Of each example: sum of i s_i^2 / 2 over the last state."""
    state = jnp.concatenate(jax.tree.leaves(model(inputs)[0]), axis=-1)
    return jax.vmap(lambda state: jnp.sum(state * weighted(state)) / 2)(state)


@jax.jit
def measure_all(system, inputs):
    spectrum = partial(lyapunov_spectrum, system, inputs, tangent_transient=ALIGNED)
    by_lag = partial(gradient_norm_by_lag, system, inputs, transient=ALIGNED, max_lag=STEPS)
    return {
        "spectrum": spectrum(),
        "chosen intervals": spectrum(qr_every="auto"),
        "chunks": spectrum(method=Chunked(STEPS // CHUNKS, max_sweeps=CHUNKS, tolerance=0.0)),
        "windows": finite_time_exponents(system, inputs, window=STEPS // CHUNKS, tangent_transient=ALIGNED),
        "vectors": covariant_lyapunov_vectors(system, inputs, tangent_transient=ALIGNED, backward_transient=BACK),
        "product": jacobian_product(system, inputs, horizons=HORIZONS, transient=ALIGNED),
        "norm by lag": by_lag(norm="spectral"),
        "loss by lag": by_lag(along=weighted),
    }


def dense_growth(jacobians):
    """ln R_ii of every step [T, N], by NumPy's QR from the frame that all methods start from."""
    size = jacobians.shape[1]
    frame = np.linalg.qr(np.asarray(jax.random.normal(jax.random.key(0), (size, size), jnp.float64)).T)[0]
    growth = []
    for matrix in jacobians:
        frame, triangle = np.linalg.qr(matrix @ frame)
        growth.append(np.log(np.abs(np.diag(triangle))))
    return np.array(growth)


@pytest.fixture(scope="module", params=[*NETWORKS, *REPLAYED])
def measured(request):
    """Name of the network, its Jacobians in the steps that are measured, and what all methods find there."""
    if request.param in NETWORKS:
        number = jnp.int32(list(NETWORKS).index(request.param))
        system = DrivenSystem.from_step(one_of, (number, SYSTEMS), SYSTEMS[0].initial_state)
        return request.param, dense_jacobians(system, INPUTS), measure_all(system, INPUTS)
    jacobians = dense_jacobians(DrivenSystem.from_cell(cell_of(request.param, REPLAYED_SIZE)), INPUTS)
    system = DrivenSystem.from_step(replay, jnp.zeros(()), jnp.zeros(jacobians.shape[1]))
    return request.param, jacobians, measure_all(system, jacobians.reshape(len(jacobians), -1))


def rounding_of(jacobians):
    """Unit roundoff times the worst condition number, inf of singular ones: what QRs of these can differ by."""
    condition = np.max(np.linalg.cond(jacobians))
    return np.finfo(float).eps * condition if condition < 1e13 else np.inf


def test_exponents(measured):
    """Of one run, by five ways; a chunk has no way to differ after as many sweeps as there are chunks."""
    name, jacobians, results = measured
    jacobians, growth = jacobians[ALIGNED:], dense_growth(jacobians)[ALIGNED:]
    expected = np.sort(growth.mean(axis=0))[::-1]
    rounding = rounding_of(jacobians)
    compared = slice(None) if np.isfinite(rounding) else slice(len(expected) // 2)
    for way, tolerance in [("spectrum", 1e-13), ("chosen intervals", 1e-9), ("chunks", 1e-12), ("windows", 1e-13)]:
        if np.isfinite(rounding):
            tolerance = max(tolerance, (100 if way == "chosen intervals" else 10) * rounding)
        found = np.asarray(results[way].exponents)
        np.testing.assert_allclose(found[compared], expected[compared], rtol=0, atol=tolerance, err_msg=way)
    if np.isinf(rounding):  # what follows a direction that is mapped to nothing is rounding, and says so
        assert np.isneginf(results["spectrum"].exponents[-1])
        assert np.any(growth < np.log(1e-13))
        return
    assert results["spectrum"].log_det_residual < max(1e-13, 10 * rounding)
    assert results["chosen intervals"].steps_per_qr > 1
    # The covariant vectors' growth differs by ln c_ii, the distance of a vector from the span of those before it.
    vectors = np.asarray(results["vectors"].vectors)
    before = np.linalg.solve(jacobians[0], vectors[0])
    before /= np.linalg.norm(before, axis=0)
    at_start, at_end = [np.log(np.abs(np.diag(np.linalg.qr(edge)[1]))) for edge in (before, vectors[-1])]
    boundary = (at_end - at_start) / (STEPS - BACK)
    assert np.abs(boundary).max() > 1e-3 or name in WITH_JACOBIANS_THAT_KEEP_ANGLES
    np.testing.assert_allclose(
        np.mean(results["vectors"].growth, axis=0), results["vectors"].exponents, rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(
        results["vectors"].exponents + boundary, growth[:-BACK].mean(axis=0), rtol=0, atol=max(1e-11, 100 * rounding)
    )


def test_singular_values(measured):
    """Forward products, the chain of cotangents and dense algebra."""
    jacobians, product, by_lag = measured[1][ALIGNED:], measured[2]["product"], measured[2]["norm by lag"]
    rounding = rounding_of(jacobians)
    for number, horizon in enumerate(HORIZONS):
        dense = np.linalg.multi_dot([*jacobians[:horizon][::-1], np.eye(len(jacobians[0]))])
        expected = np.linalg.svd(dense, compute_uv=False)
        resolved = expected > 1e-8 * expected[0]  # dense algebra knows no more
        assert resolved.any()
        np.testing.assert_allclose(
            product.log_singular_values[number][resolved],
            np.log(expected[resolved]),
            rtol=0,
            atol=1e-7,
            err_msg=str(horizon),
        )
        log_dets = np.linalg.slogdet(jacobians[:horizon])[1]
        if np.isfinite(rounding):
            tolerance = max(1e-12, 10 * horizon * rounding)
            assert float(np.sum(product.log_singular_values[number])) == pytest.approx(log_dets.sum(), abs=tolerance)
    assert float(by_lag.log_norm[-1]) == pytest.approx(float(product.log_norm[-1]), abs=1e-12)
    back = np.eye(len(jacobians[0]))
    for lag in range(1, STEPS + 1):
        back = back @ jacobians[-lag]
        assert float(by_lag.log_norm[lag]) == pytest.approx(np.log(np.linalg.norm(back, 2)), abs=1e-12)


@pytest.mark.parametrize("measured", NETWORKS, indirect=True)
def test_gradient_of_a_loss(measured):
    """By taps in the backward pass of a layer, by the chain of cotangents along it, and within its bound."""
    name, _, results = measured
    layer = Recurrence(NETWORKS[name])
    norms = np.asarray(loss_adjoints(layer, loss_of_last, INPUTS[None]).layers[""].state_norm)[:, 0]
    by_lag = results["loss by lag"].log_norm
    np.testing.assert_allclose(by_lag, np.log(norms[ALIGNED - 1 :][::-1] / norms[-1]), rtol=0, atol=1e-12)
    assert np.all(by_lag <= results["norm by lag"].log_norm + 1e-12)


@pytest.mark.parametrize("measured", ["stable"], indirect=True)
def test_single_precision(measured):
    """Of a stable network whose frames align, as each precision draws its own to start from."""
    _, jacobians, expected = measured
    transient_growth = dense_growth(jacobians)[:ALIGNED].sum(axis=0)
    assert transient_growth[0] < 0
    assert np.diff(transient_growth).max() < np.log(1e-7)  # what is left of the frames that they started from
    single = measure_all(DrivenSystem.from_cell(STABLE, dtype=jnp.float32), INPUTS)
    exponents = expected["spectrum"].exponents
    one_step = SIZE * jnp.finfo(jnp.float32).eps / 2 * np.exp(exponents[0] - exponents[-1])  # K u exp(mean spread)
    for name, values, tolerance in [
        ("spectrum", "exponents", one_step),
        ("chosen intervals", "exponents", 1e-4),
        ("chunks", "exponents", one_step),
        ("windows", "exponents", one_step),
        ("windows", "samples", one_step),
        ("vectors", "exponents", one_step),
        ("vectors", "growth", 2e-4),
        ("product", "log_singular_values", 1e-4),
        ("norm by lag", "log_norm", 1e-5),
        ("loss by lag", "log_norm", 1e-5),
    ]:
        ours, theirs = (np.asarray(getattr(results[name], values)) for results in (single, expected))
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=f"{name}: {values}")
