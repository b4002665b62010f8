"""Mean fields of gated cells beside wide networks: untied weights as in the theory, and tied ones."""

import jax
import numpy as np
import pytest
from gated_simulations import CELLS_AND_THEORIES, mean_and_error, simulate

HIDDEN = 500
FINITE_SIZE = 5 / HIDDEN
"""Relative bias that is allowed for the network's and the inputs' finite size."""
SETTINGS = [
    ("minimal_rnn", (3.0, 0.5, 1.0), 1.0),
    ("minimal_rnn", (12.0, 0.5, 1.0), 0.5),
    ("gru", (1.0, 0.5, 0.5), 1.0),
    ("gru", (4.0, 0.5, 0.5), 0.5),
    ("lstm", (1.5, 1.0, 0.5), 1.0),
    ("lstm", (5.0, 1.0, 0.5), 1.0),
]
"""Cell; gain, bias, drive; correlation of the replicas' inputs. A stable and a chaotic, or nearly chaotic, one each."""


def theory_of(name, *arguments):
    options = {"xla_backend_optimization_level": 3}  # the tests do without, but here it is the running that takes long
    return jax.jit(CELLS_AND_THEORIES[name][1], compiler_options=options)(*arguments)


def agree(values, expected):
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(expected, abs=4 * error + FINITE_SIZE * abs(expected))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "setting", "input_correlation"), SETTINGS)
def test_wide_networks_with_untied_weights_do_what_the_theory_says(name, setting, input_correlation):
    theory = theory_of(name, *setting, input_correlation)
    measured = simulate(
        name, setting, hidden=HIDDEN, steps=150, transient=50, tied=False, input_correlation=input_correlation
    )
    for quantity in ("second_moment", "memory_second_moment", "mean_squared_singular_value"):
        agree(measured[quantity], float(getattr(theory, quantity)))
    mean = float(theory.mean_squared_singular_value)
    agree(measured["fourth"], float(theory.squared_singular_value_variance) + mean**2)
    if np.isfinite(theory.correlation):
        agree(measured["overlap"] / np.mean(measured["second_moment"]), float(theory.correlation))
    # The growth fluctuates from step to step at finite H: of a product that does, the log of the mean is larger than
    # the mean log by half of the log's variance, here for every step.
    logs = measured["log_growth"]
    exponent, error = mean_and_error(logs / 2)
    expected = float(theory.exponent) - np.var(logs) / 4
    assert exponent == pytest.approx(expected, abs=4 * error + FINITE_SIZE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "setting", "larger"),
    [
        ("minimal_rnn", (3.0, 0.5, 1.0), {"exponent": True, "second_moment": False}),
        ("gru", (1.0, 0.5, 0.5), {"exponent": True, "second_moment": True}),
        ("lstm", (1.5, 1.0, 0.5), {"exponent": True, "second_moment": True}),
    ],
)
def test_tied_weights_make_the_difference_that_is_documented(name, setting, larger):
    """Three networks each; one Jacobian's singular values are as predicted to 2 %, the rest is not."""
    theory = theory_of(name, *setting)
    runs = [
        simulate(name, setting, hidden=HIDDEN, steps=200, transient=100, tied=True, seed=seed) for seed in (0, 9, 18)
    ]
    measured = {quantity: np.array([np.mean(run[quantity]) for run in runs]) for quantity in runs[0]}
    measured["exponent"] = measured["log_growth"] / 2
    for quantity, is_larger in larger.items():
        difference = measured[quantity] - float(getattr(theory, quantity))
        error = np.std(difference, ddof=1) / np.sqrt(len(runs))
        assert np.mean(difference) * (1 if is_larger else -1) > 4 * error
    np.testing.assert_allclose(
        np.mean(measured["mean_squared_singular_value"]), theory.mean_squared_singular_value, rtol=0.02, atol=0
    )
