"""What every measurement of `dynamics` must do, over all that are found there."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import any_cell, noise

from rnn_dynamics.discovery import discover
from rnn_dynamics.dynamics import DrivenSystem

STEPS = 20
OPTIONS = {"horizons": [2, 10], "max_lag": 5, "window": 3, "tangent_transient": 2, "backward_transient": 4}
"""A value for every option that some measurement cannot do without; options are called the same everywhere."""

WITHOUT_REVERSE_MODE = {"jacobian_product", "parallel_trajectory"}
"""Those whose docstring says so."""

OF_CELLS_THAT_NAME_THEIR_GATES = {"gate_activity", "gate_decomposition"}
"""Those that refuse a plain step function."""

OF_NETWORKS_THAT_FORGET = {"parallel_trajectory"}
"""Those that refuse a network whose largest exponent is not negative."""


def is_measurement(item):
    if not inspect.isfunction(item):
        return False
    signature = inspect.signature(item)
    fields = getattr(signature.return_annotation, "__dataclass_fields__", {})
    return list(signature.parameters)[:2] == ["system", "inputs"] and "first_nonfinite_step" in fields


MEASUREMENTS = discover("rnn_dynamics.dynamics", is_measurement)
EVERY = pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)


def options_of(measure):
    parameters = inspect.signature(measure).parameters.values()
    return {p.name: OPTIONS[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty}


def assert_same(ours, theirs, atol):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def test_all_were_found():
    known = "lyapunov_spectrum jacobian_product gradient_norm_by_lag covariant_lyapunov_vectors finite_time_exponents"
    assert set(MEASUREMENTS) >= {*known.split(), "trajectory_dimension", "gate_decomposition"}


@EVERY
def test_ensembles_and_compilation(measure):
    """jit(vmap(measure)) over systems equals one by one."""
    systems = [DrivenSystem.from_cell(any_cell("LSTMCell", hidden=3, seed=seed)) for seed in range(2)]
    inputs, options = noise(STEPS, 2), options_of(measure)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *systems)
    together = jax.jit(jax.vmap(lambda system: measure(system, inputs, **options)))(stacked)
    for number, system in enumerate(systems):
        alone = measure(system, inputs, **options)
        assert_same(jax.tree.map(lambda leaf, number=number: leaf[number], together), alone, atol=1e-9)


@pytest.mark.slow
@EVERY
def test_inputs_as_a_function_of_the_step(measure):
    system, inputs, options = (
        DrivenSystem.from_cell(any_cell("GRUCell", hidden=3)),
        noise(STEPS, 2),
        options_of(measure),
    )
    by_function = measure(system, lambda t: inputs[t], steps=STEPS, **options)
    assert_same(by_function, measure(system, inputs, **options), atol=1e-12)


@EVERY
@pytest.mark.slow
def test_single_precision_stays_single(measure):
    system = DrivenSystem.from_cell(any_cell("GRUCell", hidden=3), dtype=jnp.float32)
    result = measure(system, noise(STEPS, 2), **options_of(measure))
    floats = [leaf.dtype for leaf in jax.tree.leaves(result) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype("float32")}


@EVERY
def test_a_state_that_overflows_is_recorded(measure):
    def squared(params, carry, inputs_t):
        return carry**2

    system = DrivenSystem.from_step(squared, jnp.float64(0), jnp.array([10.0, 1.0]))
    if measure.__name__ in OF_CELLS_THAT_NAME_THEIR_GATES:
        with pytest.raises(ValueError, match="a cell that names its gates"):
            measure(system, steps=STEPS, **options_of(measure))
        return
    if measure.__name__ in OF_NETWORKS_THAT_FORGET:
        with pytest.raises(ValueError, match=r"largest exponent .* not below 0"):
            measure(system, steps=STEPS, **options_of(measure))
        measure = jax.jit(measure, static_argnames="steps")
    result = measure(system, steps=STEPS, **options_of(measure))
    assert int(result.first_nonfinite_step) == 8  # 10^(2^9) is the first beyond 1.8e308


@EVERY
@pytest.mark.parametrize("step", [7])
@pytest.mark.slow
def test_inputs_that_are_nan_are_recorded(measure, step):
    system, inputs = DrivenSystem.from_cell(any_cell("GRUCell", hidden=3)), noise(STEPS, 2).at[step, 1].set(jnp.nan)
    result = measure(system, inputs, **options_of(measure))
    assert int(result.first_nonfinite_step) == step
    floats = [leaf for leaf in jax.tree.leaves(result) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert any(np.isnan(leaf).any() for leaf in floats)


@pytest.mark.slow
@EVERY
def test_gradients_go_through_or_are_refused(measure):
    system, inputs = DrivenSystem.from_cell(any_cell("GRUCell", hidden=3)), noise(STEPS, 2)

    def first_number(system):
        return jax.tree.leaves(measure(system, inputs, **options_of(measure)))[1].ravel()[-1]

    if measure.__name__ in WITHOUT_REVERSE_MODE:
        with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
            jax.grad(first_number)(system)
        return
    gradient = jax.grad(first_number)(system)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@EVERY
def test_documentation_is_complete(measure):
    text = inspect.getdoc(measure)
    for part in ("Algorithm: ", "Cost", "Args:", "Returns:", "Raises:"):
        assert part in text
