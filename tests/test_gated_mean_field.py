"""Mean fields of gated cells: limits that are known in closed form, second methods, derivatives, criticality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.theory.gated_mean_field import GateLaw, critical_value
from rnn_dynamics.theory.gaussian_averages import average
from rnn_dynamics.theory.gru_mean_field import gru_mean_field
from rnn_dynamics.theory.lstm_mean_field import lstm_mean_field
from rnn_dynamics.theory.memory_law import memory_law, memory_moments
from rnn_dynamics.theory.minimal_rnn_mean_field import minimal_rnn_mean_field

OPEN, SHUT = GateLaw(bias_mean=40.0), GateLaw(bias_mean=-40.0)
OPTIMISED = {"xla_backend_optimization_level": 3}
"""What the tests do without, for it takes longer to compile: here it is the running that takes long."""
gru = jax.jit(gru_mean_field, compiler_options=OPTIMISED)
lstm = jax.jit(lstm_mean_field, compiler_options=OPTIMISED)


@jax.jit
def minimal_rnn(update, input_correlation=1.0, content_gain=0.7):
    content = GateLaw(drive_variance=1.0, bias_mean=0.2)
    return minimal_rnn_mean_field(update, content, content_gain=content_gain, input_correlation=input_correlation)


def sigmoid(u):
    return 1 / (1 + np.exp(-u))


def close(found, expected, rtol=1e-12):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "exponent"), [(1.5, 0.065217), (2.0, 0.154724), (3.0, 0.310249)])
def test_a_gru_whose_gates_do_nothing_is_an_elman_network(gain, exponent):
    """Undriven; the exponents are those of ln(g sqrt(E[tanh'^2])) with six digits (Clark, rnn-lyapunov)."""
    theory = gru(OPEN, SHUT, GateLaw(gain))
    variance = gain**2 * theory.second_moment
    close(theory.second_moment, average(lambda u: jnp.tanh(u) ** 2, variance), 1e-9)
    slopes = average(lambda u: jnp.stack([1 / jnp.cosh(u) ** (2 * n) for n in range(5)], axis=1), variance)
    close(theory.growth, gain**2 * slopes[2])
    np.testing.assert_allclose(theory.exponent, exponent, rtol=0, atol=6e-7)
    close(theory.squared_singular_value_variance, gain**4 * slopes[4])  # of diag(phi') W
    assert theory.correlation < 1e-6  # independent, with the slope g^2 E[phi']^2
    close(theory.slope, gain**2 * slopes[1] ** 2, 1e-3 if gain < 3 else 2e-2)


@pytest.mark.slow
def test_an_lstm_whose_gates_do_nothing_is_an_elman_network_too():
    """Of tanh(tanh(u)), both as c and as h: the blocks of J are 0, a W, 0 and t a W."""
    theory = lstm(OPEN, SHUT, GateLaw(1.5, 0.5, 0.3), OPEN)
    variance = 2.25 * theory.second_moment + 0.5

    def products(u):
        a, t = 1 / jnp.cosh(u) ** 2, 1 / jnp.cosh(jnp.tanh(u)) ** 2
        both = a**2 * (1 + t**2)
        return jnp.stack([jnp.tanh(jnp.tanh(u)) ** 2, jnp.tanh(u) ** 2, (a * t) ** 2, both, both**2], axis=1)

    q, memory, slope, both, squared = average(products, variance, 0.3)
    close(theory.second_moment, q, 1e-10)
    close(theory.memory_second_moment, memory)
    close(theory.growth, 2.25 * slope, 1e-10)
    close(theory.mean_squared_singular_value, 2.25 * both / 2, 1e-10)
    expected = 2.25**2 * ((squared + both**2) / 2 - both**2 / 4)
    close(theory.squared_singular_value_variance, expected, 1e-9)


@pytest.mark.slow
def test_an_lstm_without_weights_keeps_what_its_forget_gate_says():
    """The exponent is ln sigmoid(b); the state is at rest."""
    theory = lstm(GateLaw(), GateLaw(bias_mean=1.0), GateLaw(bias_mean=0.8), GateLaw(bias_mean=-0.5))
    c = 0.5 * np.tanh(0.8) / sigmoid(-1.0)
    close(theory.memory_second_moment, c**2)
    close(theory.second_moment, (sigmoid(-0.5) * np.tanh(c)) ** 2, 1e-10)
    close(theory.exponent, -0.31326168751822286, 1e-9)
    close(theory.time_scale, 1 / (2 * 0.31326168751822286), 1e-9)


def test_a_minimal_rnn_without_weights_averages_its_contents():
    u = sigmoid(0.5)
    theory = minimal_rnn(GateLaw(0.0, bias_mean=0.5), 1.0, 0.0)
    mean, square = average(lambda x: jnp.stack([jnp.tanh(x), jnp.tanh(x) ** 2], axis=1), 1.0, 0.2)
    close(theory.second_moment, mean**2 + (1 - u) / (1 + u) * (square - mean**2))
    close(theory.growth, u**2)
    np.testing.assert_allclose(theory.squared_singular_value_variance, 0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("theory", ["minimal_rnn", pytest.param("gru", marks=pytest.mark.slow)])
def test_growth_is_the_slope_of_the_correlations_map_at_one(theory):
    """The one from the Jacobian, the other from pairs of replicas; a distance of 1e-5 away, and the map is smooth."""
    if theory == "minimal_rnn":
        nearly, same = (minimal_rnn(GateLaw(3.0, bias_mean=0.5), c) for c in (1 - 1e-5, 1.0))
    else:
        laws = GateLaw(2.0, 0.5), GateLaw(2.0, 0.5, 0.5), GateLaw(2.0, 0.5, 0.1)
        bias = GateLaw(bias_mean=0.3, bias_variance=0.2)
        nearly, same = (gru(*laws, recurrent_bias=bias, input_correlation=c) for c in (1 - 1e-5, 1.0))
    assert same.correlation == 1
    assert same.slope == same.growth
    assert 1e-6 < 1 - nearly.correlation < 1e-3
    np.testing.assert_allclose(nearly.slope, same.growth, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_chaos_tears_replicas_apart_and_order_does_not():
    ordered, chaotic = (minimal_rnn(GateLaw(gain, bias_mean=0.5)) for gain in (3.0, 12.0))
    assert ordered.correlation == 1
    assert chaotic.growth > 1
    assert 0 < chaotic.correlation < 1
    assert 0 < chaotic.slope < 1


def laws_of_memory():
    return {
        "input": GateLaw(1.0, 0.3, 0.5),
        "forget": GateLaw(1.0, 0.5, 2.0),
        "candidate": GateLaw(1.0, 1.0, 0.2, 0.1),
    }


@jax.jit
def memory(laws):
    variances = {gate: law.variance(0.2) for gate, law in laws.items()}
    wanted = ((0, 0), (1, 0), (2, 0))
    return memory_law(laws, variances, wanted, 2), memory_moments(laws, variances)


@pytest.mark.slow
def test_the_law_of_the_cell_state_has_its_moments_and_its_samples_averages():
    laws = laws_of_memory()
    law, moments = memory(laws)
    for power in range(3):
        close(law.frequencies.at_zero(law.transforms[power]), moments[power], 1e-8)

    generator, c = np.random.default_rng(0), np.zeros(100_000)

    def drawn(gate):
        return laws[gate].bias_mean + np.sqrt(float(laws[gate].variance(0.2))) * generator.normal(size=c.size)

    for _ in range(100):  # what is left of the start is 0.86^100
        c = sigmoid(drawn("forget")) * c + sigmoid(drawn("input")) * np.tanh(drawn("candidate"))
    for found, sampled in (
        (law.squared_tanh, np.tanh(c) ** 2),
        (law.frequencies.sech_average(law.transforms[2], 4), c**2 / np.cosh(c) ** 4),
        (law.frequencies.sech_average(law.transforms[0], 8), 1 / np.cosh(c) ** 8),
        (moments[4], c**4),
    ):
        assert float(found) == pytest.approx(np.mean(sampled), abs=4 * np.std(sampled) / np.sqrt(c.size))


@pytest.mark.slow
def test_a_cell_state_that_forgets_at_once_is_what_was_written():
    laws = laws_of_memory() | {"forget": SHUT}
    law, _ = memory(laws)
    gate, content = (laws[name] for name in ("input", "candidate"))

    def given_gate(u):
        return average(
            lambda a: jnp.tanh(jax.nn.sigmoid(u) * jnp.tanh(a)) ** 2, content.variance(0.2), content.bias_mean
        )

    close(law.squared_tanh, average(jax.vmap(given_gate), gate.variance(0.2), gate.bias_mean))


@pytest.mark.slow
def test_narrow_and_wide_laws_of_the_cell_state():
    """Of deviation 1e-3 by the series of tanh^2, and of 18 by moments; both sides of the border between the methods."""
    for drive, bias in ((1e-5, 0.0), (1e-4, 0.0), (1.0, 7.0)):
        laws = laws_of_memory() | {
            "forget": GateLaw(0.0, 1.0, bias),
            "candidate": GateLaw(drive_variance=drive),
        }
        law, moments = memory(laws)
        close(law.frequencies.at_zero(law.transforms[2]), moments[2], 1e-5)
        if drive < 1:
            close(law.squared_tanh, moments[2] - 2 / 3 * moments[4], 1e-6)


@pytest.mark.slow
def test_derivatives_and_vmap():
    def growth(gain):
        return minimal_rnn(GateLaw(gain, bias_mean=0.5)).growth

    gains = jnp.array([2.0, 3.0])
    one_by_one = [(growth(gain), (growth(gain + 1e-4) - growth(gain - 1e-4)) / 2e-4) for gain in gains]
    values, slopes = jax.vmap(jax.value_and_grad(growth))(gains)
    close(values, [value for value, _ in one_by_one])
    close(slopes, [slope for _, slope in one_by_one], 1e-6)


@pytest.mark.slow
def test_all_laws_of_a_minimal_rnn_may_be_traced():
    """Its content's among them, whose gain of 0 is a number like any other then."""
    laws = GateLaw(3.0, bias_mean=0.5), GateLaw(0.0, 1.0, 0.2)
    traced = jax.jit(lambda update, content: minimal_rnn_mean_field(update, content, content_gain=0.7).growth)(*laws)
    close(traced, minimal_rnn(laws[0]).growth)


@pytest.mark.slow
def test_what_is_never_forgotten_has_no_time_scale():
    assert minimal_rnn(OPEN).time_scale == np.inf


@pytest.mark.slow
def test_critical_value():
    """Where the exponent is 0."""

    def theory(bias):
        return minimal_rnn(GateLaw(8.0, bias_mean=bias))

    critical = critical_value(theory, -3.0, 3.0, points=5)
    np.testing.assert_allclose(theory(critical).exponent, 0, rtol=0, atol=1e-12)


def test_bad_input_gets_one_sentence():
    good = GateLaw()
    for call, sentence in (
        (lambda: gru_mean_field(good, GateLaw(-1.0), good), "update.gain must be finite and >= 0, got -1.0"),
        (lambda: lstm_mean_field(good, good, GateLaw(1.0, np.inf), good), "candidate.drive_variance must be finite"),
        (
            lambda: lstm_mean_field(good, good, good, GateLaw(bias_mean=np.nan)),
            "output.bias_mean must be finite, got nan",
        ),
        (lambda: gru_mean_field(good, good, good, input_correlation=1.5), "between 0 and 1, got 1.5"),
        (lambda: minimal_rnn_mean_field(good, GateLaw(2.0)), "content.gain must be 0, .* got 2.0"),
        (
            lambda: gru_mean_field(good, good, good, recurrent_bias=GateLaw(5.0)),
            "recurrent_bias.gain must be 0, for the bias sees neither state nor inputs, got 5.0",
        ),
        (
            lambda: gru_mean_field(good, good, good, recurrent_bias=GateLaw(drive_variance=3.0)),
            "recurrent_bias.drive_variance must be 0, .* got 3.0",
        ),
        (
            lambda: critical_value(lambda b: b, 2.0, 1.0),
            "low < high must be finite .* got low=2.0, high=1.0, points=33",
        ),
        (
            lambda: critical_value(lambda b: minimal_rnn(GateLaw(0.0, bias_mean=b)), 0.0, 1.0, points=2),
            "low=0.0 and high=1.0 must enclose .* got exponents from -0.6712 to -0.3177 nats per step",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
