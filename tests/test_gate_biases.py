"""Laws of gate biases: where their draws go, and the time scales that they give to units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import noise, zeros

from rnn_dynamics.cells import CELLS, LSTMCell, PackedCell, options_of
from rnn_dynamics.cells.gate_biases import GateBiasLaw, chrono, uniform, uniform_gate
from rnn_dynamics.dynamics import DrivenSystem, jacobian

LONGEST = 50.0
BIASED = {
    f"{name}-{gate}": (cell, gate)
    for name, cell in CELLS.items()
    if issubclass(cell, PackedCell)
    for gate in getattr(cell, "gate_order", ())  # a recurrent highway's gates are known when its depth is
    if f"{gate}_bias" in options_of(cell)
}


def without_weights(cell, **options):
    options |= {"kernel_init": zeros, "recurrent_kernel_init": zeros, "param_dtype": jnp.float64}
    return cell(1, 6, **options, rngs=nnx.Rngs(0))


def biases(cell):
    """[G, H]."""
    return np.stack(np.split(np.asarray(cell.bias[...]), len(cell.mapped_gates)))


@pytest.mark.parametrize(("cell", "gate"), BIASED.values(), ids=BIASED)
def test_every_cell_draws_its_gates_biases_from_a_law(cell, gate):
    """What a law adds to zeros goes to its gate, and the negative to the opposed ones that the cell has."""
    law = GateBiasLaw(uniform(2.0, 3.0).draw, opposed=("input", "none of this name"))
    drawn, constant = [biases(without_weights(cell, **{f"{gate}_bias": bias})) for bias in (law, 2.5)]
    names = without_weights(cell).mapped_gates
    own = names.index(gate)
    opposed = [place for place, name in enumerate(names) if name == "input" != gate]
    assert np.all((drawn[own] >= 2) & (drawn[own] < 3))
    for place in opposed:
        np.testing.assert_array_equal(drawn[place], -drawn[own])
    np.testing.assert_array_equal(constant[own], 2.5)
    rest = [place for place in range(len(drawn)) if place not in (own, *opposed)]
    np.testing.assert_array_equal(drawn[rest], constant[rest])


def test_a_chrono_lstm_without_weights_has_the_exponents_of_its_time_scales():
    """J is constant, its eigenvalues 1 - 1/T_i with T_i = 1 + exp(b_i) <= T_max; h has no memory, so 0 the others."""
    cell = without_weights(LSTMCell, forget_bias=chrono(LONGEST))
    shut, kept, *others = biases(cell)
    np.testing.assert_array_equal(shut, -kept)
    np.testing.assert_array_equal(others, 0)
    system = DrivenSystem.from_cell(cell)
    eigenvalues = np.sort(np.linalg.eigvals(jacobian(system, system.initial_state, noise(1)[0])))
    np.testing.assert_array_equal(eigenvalues[:6], 0)
    np.testing.assert_allclose(eigenvalues[6:], np.sort(1 - 1 / (1 + np.exp(kept))), rtol=1e-14)
    assert 1 / 2 <= eigenvalues[6] < eigenvalues[-1] <= 1 - 1 / LONGEST


@pytest.mark.parametrize(("name", "gate"), [("MGUCell", "forget"), ("RecurrentHighwayCell", "transform")])
def test_where_an_open_gate_writes_the_negative_law_keeps(name, gate):
    """What is kept, 1 - sigma(b), is 1 - 1/T at each level of a highway, and so J the product over its levels."""
    cell = without_weights(CELLS[name], **{f"{gate}_bias": -chrono(LONGEST)})
    kept = [
        1 - 1 / (1 + np.exp(-b)) for b, gate in zip(biases(cell), cell.mapped_gates, strict=True) if "cand" not in gate
    ]
    system = DrivenSystem.from_cell(cell)
    expected = np.diag(np.prod(kept, axis=0))
    np.testing.assert_allclose(jacobian(system, system.initial_state, noise(1)[0]), expected, rtol=1e-14)
    assert np.all(np.concatenate(kept) <= 1 - 1 / LONGEST)


@pytest.mark.parametrize(
    ("law", "even", "low", "high"),
    [
        (chrono(LONGEST), np.exp, 1, LONGEST - 1),
        (uniform(-1.0, 3.0), lambda bias: bias, -1, 3),
        (uniform_gate(), lambda bias: 1 / (1 + np.exp(-bias)), 1 / 2000, 1 - 1 / 2000),
    ],
    ids=["chrono", "uniform", "uniform_gate"],
)
def test_what_a_law_spreads_evenly(law, even, low, high):
    """Kolmogorov-Smirnov: of 2000 draws the distribution is within 1.95/sqrt(2000) of the true one but once in 1000."""
    drawn = np.sort(even(np.asarray(law.draw(jax.random.key(0), (2000,), jnp.float64))))
    assert low <= drawn[0] < drawn[-1] <= high
    assert np.max(np.abs((drawn - low) / (high - low) - (np.arange(2000) + 0.5) / 2000)) < 1.95 / np.sqrt(2000)


def test_the_gate_of_a_single_unit_is_half_open():
    assert uniform_gate().draw(jax.random.key(0), (1,), jnp.float64) == 0


def test_the_longest_dependency_is_a_number_that_vmap_carries():
    swept = jax.vmap(lambda longest: without_weights(LSTMCell, forget_bias=chrono(longest)).bias[...])(
        jnp.array([10.0, LONGEST])
    )
    np.testing.assert_allclose(swept[1], without_weights(LSTMCell, forget_bias=chrono(LONGEST)).bias[...], rtol=1e-14)
    assert np.max(swept[0]) <= np.log(9.0)


def test_bad_input_gets_one_sentence():
    for longest in (1.5, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"longest must be a finite number of steps >= 2, got {longest}"):
            chrono(longest)
