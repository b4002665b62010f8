"""Mean-field theory of Elman networks against closed forms, published values, differences and simulated networks."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import slow_but
from scipy.optimize import brentq
from scipy.special import digamma

from rnn_dynamics.cells.activations import ACTIVATIONS
from rnn_dynamics.dynamics import DrivenSystem, lyapunov_spectrum, trajectory
from rnn_dynamics.theory import (
    RandomElman,
    correlation_map,
    correlation_slope,
    critical_gain,
    leading_exponent,
    mean_exponent,
    memory_depth,
    squared_growth,
    stationary_correlation,
    stationary_variance,
    variance_map,
)


@partial(jax.jit, static_argnames="activation")
@partial(jax.vmap, in_axes=(0, 0, None))
def variance_and_exponent(gain, bias_variance, activation):
    network = RandomElman(gain, bias_variance, activation=activation)
    return stationary_variance(network), leading_exponent(network)


@jax.jit
def correlations(network, shared):
    return jnp.stack([stationary_correlation(network, shared), memory_depth(network, shared)])


GAINS, BIASES = jnp.array([0.5, 1.0, 1.3, 3.0]), jnp.array([0.3, 0.0, 0.1, 0.2])


def test_exponents_of_tanh_networks_have_the_six_digits_of_their_mean_field():
    """x' = W tanh(x): computed from theory, beside Clark's simulations (rnn-lyapunov)."""
    gains = jnp.array([1.1, 1.5, 2.0, 3.0])
    exponents = variance_and_exponent(gains, jnp.zeros(4), "tanh")[1]
    np.testing.assert_allclose(exponents, [0.005069, 0.065217, 0.154724, 0.310249], rtol=0, atol=5e-7)


def test_networks_at_rest_grow_by_their_gain():
    """At the edge itself half of the digits are left to the variance; below it is 0."""
    variances, exponents = variance_and_exponent(jnp.array([0.3, 0.9, 1 - 1e-6, 1.0]), jnp.zeros(4), "tanh")
    np.testing.assert_array_equal(variances[:3], 0)
    assert variances[3] < 1e-14
    np.testing.assert_allclose(exponents, np.log([0.3, 0.9, 1 - 1e-6, 1.0]), rtol=0, atol=1e-14)


def test_relu_has_its_closed_forms():
    """E[relu^2] = q/2 and E[relu'^2] = 1/2 (Cho and Saul 2009)."""
    variances, exponents = variance_and_exponent(GAINS, BIASES, "relu")
    np.testing.assert_allclose(variances[:3], BIASES[:3] / (1 - GAINS[:3] ** 2 / 2), rtol=1e-14, atol=0)
    np.testing.assert_allclose(exponents[:3], np.log(GAINS[:3] ** 2 / 2) / 2, rtol=0, atol=1e-14)
    assert variances[3] == np.inf
    assert np.isnan(exponents[3])


@pytest.mark.slow
def test_sin_has_its_closed_forms():
    """E[sin^2] = (1 - exp(-2q))/2, E[cos^2] = (1 + exp(-2q))/2, E[sin sin] = exp(-q) sinh(cq)."""
    variances, exponents = variance_and_exponent(GAINS, BIASES, "sin")
    for g, b, q, exponent in zip(GAINS, BIASES, variances, exponents, strict=True):
        if (g, b) == (1, 0):  # at the edge
            continue
        expected = brentq(lambda q, g=g, b=b: g**2 * (1 - np.exp(-2 * q)) / 2 + b - q, 1e-3, 20, xtol=1e-15, rtol=1e-14)
        np.testing.assert_allclose(q, expected, rtol=1e-13, atol=0)
        growth = g**2 * (1 + np.exp(-2 * q)) / 2
        np.testing.assert_allclose(exponent, np.log(growth) / 2, rtol=0, atol=1e-14)
    network, q = RandomElman(3.0, 0.2, 0.1, "sin"), 2.0
    for c, shared in [(-0.5, 0.0), (0.9, 0.4), (1.0, 1.0)]:
        expected = (9 * np.exp(-q) * np.sinh(c * q) + 0.2 + shared * 0.1) / q
        np.testing.assert_allclose(correlation_map(network, q, c, shared), expected, rtol=1e-13, atol=0)
        slope = 9 * np.exp(-q) * np.cosh(c * q)
        np.testing.assert_allclose(correlation_slope(network, q, c), slope, rtol=1e-13, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_settles_is_a_stable_fixed_point(name):
    """Of the variance, where plain iteration ends; of the convex correlation map, which has one stable one at most."""
    network = RandomElman(0.8, 0.1, 0.05, name)
    q = stationary_variance(network)
    iterated = jax.lax.fori_loop(0, 200, lambda _, v: variance_map(network, v), jnp.float64(1.0))
    np.testing.assert_allclose(q, iterated, rtol=1e-13, atol=0)
    np.testing.assert_allclose(squared_growth(network, q), correlation_slope(network, q, 1.0), rtol=1e-12, atol=0)
    for shared in (0.0, 1.0):
        c = stationary_correlation(network, shared)
        np.testing.assert_allclose(correlation_map(network, q, c, shared), c, rtol=0, atol=1e-13)
        assert correlation_slope(network, q, c) < 1


def test_relu_correlations_are_the_arc_cosine_kernel():
    """J_1 and J_0 of Cho and Saul (2009)."""
    c = jnp.array([-1.0, -0.5, 0.0, 0.3, 0.9, 0.99, 1.0])
    angle = np.arccos(c)
    network = RandomElman(1.2, activation="relu")
    values, slopes = jax.jit(
        jax.vmap(lambda c: (correlation_map(network, 2.0, c), correlation_slope(network, 2.0, c)))
    )(c)
    kernel = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    np.testing.assert_allclose(values, 1.44 * kernel, rtol=0, atol=1e-14)
    np.testing.assert_allclose(slopes, 1.44 * (np.pi - angle) / (2 * np.pi), rtol=0, atol=1e-14)


@pytest.fixture(scope="module")
def tanh_correlations():
    """Rows: chaotic and driven, twice with other inputs; ordered; chaotic without inputs; at rest: (c*, depth)."""
    cases = [
        (3.0, 0.2, 0.3, 0.0),
        (3.0, 0.2, 0.3, 1.0),
        (1.5, 0.0, 0.3, 1.0),
        (3.0, 0.0, 0.0, 0.0),
        (0.5, 0.0, 0.0, 0.0),
    ]

    def of(gain, bias, drive, shared):
        return correlations(RandomElman(gain, bias, drive), shared)

    return jax.vmap(of)(*jnp.array(cases).T)


@pytest.mark.slow
def test_trajectories_meet_where_perturbations_shrink(tanh_correlations):
    """With the same inputs; then the depth is half of the reach of gradients. With others they never meet."""
    (other, _), (chaotic, _), (together, depth), (undriven, _), (rest, rest_depth) = tanh_correlations
    assert 0 < other < chaotic < 1
    assert together == rest == 1
    np.testing.assert_allclose(undriven, 0, rtol=0, atol=1e-15)
    exponent = leading_exponent(RandomElman(1.5, 0.0, 0.3))
    np.testing.assert_allclose([depth, rest_depth], [-0.5 / exponent, 0.5 / np.log(2)], rtol=1e-12, atol=0)


@pytest.mark.slow
def test_a_variance_without_bound_leaves_nothing_to_say():
    found = jax.vmap(lambda gain: correlations(RandomElman(gain, 0.1, activation="relu"), 1.0))(jnp.array([1.0, 1.5]))
    np.testing.assert_allclose(found[0], [1, 1 / np.log(2)], rtol=1e-14, atol=0)
    assert np.all(np.isnan(found[1]))


@pytest.mark.slow
def test_single_precision_stays_single():
    network = RandomElman(jnp.float32(2), jnp.float32(0.2), jnp.float32(0.3))
    exponent, correlation = leading_exponent(network), stationary_correlation(network)
    assert exponent.dtype == correlation.dtype == jnp.float32
    np.testing.assert_allclose(exponent, leading_exponent(RandomElman(2.0, 0.2, 0.3)), rtol=0, atol=1e-5)


def test_depth_is_the_rate_of_the_correlation_map(tanh_correlations):
    c, depth = tanh_correlations[0]
    network = RandomElman(3.0, 0.2, 0.3)
    step = jax.jit(lambda c: correlation_map(network, stationary_variance(network), c, 0.0))
    np.testing.assert_allclose(step(c), c, rtol=0, atol=1e-14)
    np.testing.assert_allclose((step(c + 1e-5) - step(c - 1e-5)) / 2e-5, np.exp(-1 / depth), rtol=0, atol=1e-8)


def test_edge_of_chaos_of_tanh_and_sin():
    """1 without bias. For sin q - tanh(q) is the variance and g^2 = 2 / (1 + exp(-2q)); for tanh chi_1 is 1."""
    variances = jnp.array([0.0, 1e-4, 0.2, 3.0])
    edges = jax.jit(jax.vmap(critical_gain, (0, None)), static_argnums=1)
    of_sin, of_tanh = edges(variances, "sin"), edges(variances, "tanh")
    assert of_sin[0] == of_tanh[0] == 1
    for variance, gain in zip(variances[1:], of_sin[1:], strict=True):
        q = brentq(lambda q, v=variance: q - np.tanh(q) - v, 1e-3, 20, xtol=1e-15, rtol=1e-14)
        np.testing.assert_allclose(gain, np.sqrt(2 / (1 + np.exp(-2 * q))), rtol=0, atol=1e-12)
    np.testing.assert_allclose(variance_and_exponent(of_tanh, variances, "tanh")[1], 0, rtol=0, atol=1e-12)


WITHOUT_EDGE = {"relu", "leaky_relu", "identity", "softplus", "positive"}
"""Activations that are linear far out: under biases the variance diverges before perturbations grow."""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - WITHOUT_EDGE))
def test_at_the_edge_of_chaos_perturbations_neither_grow_nor_shrink(name):
    network = RandomElman(critical_gain(2.0, name), 1.5, 0.5, name)
    np.testing.assert_allclose(leading_exponent(network), 0, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WITHOUT_EDGE))
def test_where_there_is_no_edge_chi_is_below_1_as_long_as_the_variance_is_finite(name):
    with pytest.raises(ValueError, match="external_variance must leave an edge of chaos"):
        critical_gain(2.0, name)
    exponents = variance_and_exponent(jnp.linspace(0.1, 2.0, 20), jnp.full(20, 2.0), name)[1]
    assert np.isnan(exponents[-1])
    assert np.nanmax(exponents) < 0


def test_relu_is_critical_at_the_root_of_2_and_without_bias_alone():
    np.testing.assert_allclose(critical_gain(activation="relu"), np.sqrt(2), rtol=1e-14, atol=0)
    with pytest.raises(ValueError, match=r"external_variance must leave an edge of chaos, and networks of relu have"):
        critical_gain(0.1, "relu")


@pytest.mark.parametrize(("gain", "measured"), [(1.5, -0.71530), (3.0, -2.27390)])
def test_mean_exponent_beside_clarks_simulations(gain, measured):
    """N = 4096; the variance of a network differs by O(1/N), and so does this: 2 and 3 over N are found."""
    assert abs(float(mean_exponent(RandomElman(gain), 4096)) - measured) < 4 / 4096


def test_mean_exponent_of_linear_networks_is_that_of_gaussian_determinants():
    """Newman's exponents on average; and of units that are silent half of the time."""
    i = np.arange(1, 51)
    newman = np.mean(np.log(2 / 50) + digamma(i / 2)) / 2
    mean = mean_exponent(RandomElman(0.5, activation="identity"), 50)
    np.testing.assert_allclose(mean, np.log(0.5) + newman, rtol=0, atol=1e-14)
    assert mean_exponent(RandomElman(0.5, activation="relu")) == -np.inf


def test_mean_exponent_of_saturated_units():
    """elu: E[ln phi'] = E[min(u, 0)] = -sqrt(q / 2 pi). tanh far out: E[ln sech^2 u] -> 2 ln 2 - 2 E|u|."""
    network = RandomElman(1.0, 900.0, activation="elu")
    q = stationary_variance(network)
    np.testing.assert_allclose(mean_exponent(network), -0.5 - np.sqrt(q / (2 * np.pi)), rtol=1e-13, atol=0)
    network = RandomElman(1.0, 1e8)
    expected = -0.5 + 2 * np.log(2) - 2 * np.sqrt(2 * stationary_variance(network) / np.pi)
    np.testing.assert_allclose(mean_exponent(network), expected, rtol=0, atol=2e-4)  # pi^2/6 times the density at 0


DIFFERENTIABLE = {
    "exponent": lambda gain, variance: leading_exponent(RandomElman(gain, variance, 0.3)),
    "correlation": lambda gain, variance: stationary_correlation(RandomElman(gain, variance, 0.3), 0.0),
    "edge": lambda gain, variance: gain * critical_gain(variance),
}


@pytest.mark.parametrize("name", slow_but(("exponent",), DIFFERENTIABLE))
def test_derivatives_are_differences(name):
    """Through the fixed points and the edge, by the implicit function; beside central differences."""

    @jax.jit
    def derivative_and_shifted(at):
        of = DIFFERENTIABLE[name]
        shifts = 1e-5 * jnp.concatenate([jnp.eye(2), -jnp.eye(2)])
        return jax.grad(lambda at: of(*at))(at), jax.lax.map(lambda shift: of(*(at + shift)), shifts)

    derivative, shifted = derivative_and_shifted(jnp.array([2.0, 0.2]))
    np.testing.assert_allclose(derivative, (shifted[:2] - shifted[2:]) / 2e-5, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_a_correlation_that_stays_1_has_no_derivative_but_0():
    assert jax.grad(lambda gain: stationary_correlation(RandomElman(gain, 0.1)))(0.8) == 0


def refused(**options):
    return lambda: leading_exponent(RandomElman(**{"gain": 1.0, **options}))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (refused(gain=-1.0), "gain must be >= 0, got -1.0"),
        (refused(gain=jnp.ones(2)), r"gain must be one number, got shape \(2,\); jax.vmap takes many"),
        (refused(bias_variance=-0.1), "bias_variance must be >= 0, got -0.1"),
        (refused(input_variance=np.nan), "input_variance must be >= 0, got nan"),
        (refused(activation="tan"), "unknown activation 'tan'"),
        (refused(gain=1.5, activation="relu"), "must stay finite, and that of relu grows without bound at gain 1.5"),
        (lambda: stationary_variance(RandomElman(1.0), 0.0), "start must be > 0, got 0.0"),
        (lambda: variance_map(RandomElman(1.0), -1.0), "variance must be >= 0, got -1.0"),
        (lambda: correlation_map(RandomElman(1.0), 0.0, 0.5), "variance must be > 0, got 0.0"),
        (lambda: correlation_map(RandomElman(1.0), 1.0, 1.5), r"correlation must be in \[-1, 1\], got 1.5"),
        (lambda: correlation_map(RandomElman(1.0), 1.0, 0.0, 2.0), r"input_correlation must be in \[-1, 1\], got 2.0"),
        (lambda: correlation_slope(RandomElman(1.0), 1.0, -1.5), r"correlation must be in \[-1, 1\], got -1.5"),
        (lambda: memory_depth(RandomElman(1.0), -0.5), r"input_correlation must be in \[0, 1\], got -0.5"),
        (lambda: mean_exponent(RandomElman(1.0), 0), "size must be a whole number >= 1, got 0"),
        (lambda: mean_exponent(RandomElman(1.0, activation="sin")), "no zeros at single points.* got sin"),
        (lambda: critical_gain(-1.0), "external_variance must be >= 0, got -1.0"),
    ],
)
def test_bad_input_gets_one_sentence(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# Simulated networks. What differs by O(1/N) cancels in 2 f(2N) - f(N), whose error is computed from seeds.

SEEDS, SMALL, STEPS, TRANSIENT = 12, 250, 400, 100


def step_of(name):
    def step(params, state, inputs_t):
        weights, bias = params
        return ACTIVATIONS[name](weights @ state + bias + inputs_t)

    return step


STEP_OF = {name: step_of(name) for name in ("tanh", "sin")}


def draw(network, size, key):
    """Return weights, biases, a first state N(0, 1) and inputs [STEPS, size] of one network."""
    keys = jax.random.split(key, 4)
    weights = network.gain / np.sqrt(size) * jax.random.normal(keys[0], (size, size))
    bias = jnp.sqrt(network.bias_variance) * jax.random.normal(keys[1], (size,))
    inputs = jnp.sqrt(network.input_variance) * jax.random.normal(keys[2], (STEPS, size))
    return weights, bias, jax.random.normal(keys[3], (size,)), inputs


@partial(jax.jit, static_argnames="size")
def exponent_and_square(network, size):
    """Measure the first exponent and the mean of h^2 of each seed, [2, SEEDS]."""

    def of_one(key):
        weights, bias, state, inputs = draw(network, size, key)
        system = DrivenSystem.from_step(STEP_OF[network.activation], (weights, bias), state)
        spectrum = lyapunov_spectrum(system, inputs, k=1, qr_every=10, transient=TRANSIENT, tangent_transient=TRANSIENT)
        return jnp.stack([spectrum.exponents[0], jnp.mean(trajectory(system, inputs)[TRANSIENT:] ** 2)])

    return jax.lax.map(of_one, jax.random.split(jax.random.key(0), SEEDS)).T


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [RandomElman(3.0), RandomElman(2.0, 0.3, 0.0), RandomElman(2.0, 0.0, 0.3), RandomElman(2.0, 0.0, 0.5, "sin")],
    ids=["autonomous", "biased", "driven", "driven sin"],
)
def test_large_networks_have_the_exponent_and_variance_of_the_theory(network):
    """The biased one has states that correlate for ever, and all the same the exponent of averages at one time."""
    small, large = exponent_and_square(network, SMALL), exponent_and_square(network, 2 * SMALL)
    extrapolated = 2 * np.mean(large, axis=1) - np.mean(small, axis=1)
    errors = np.hypot(2 * np.std(large, axis=1, ddof=1), np.std(small, axis=1, ddof=1)) / np.sqrt(SEEDS)
    square = (stationary_variance(network) - network.bias_variance - network.input_variance) / network.gain**2
    expected = np.array([leading_exponent(network), square])
    assert np.all(np.abs(extrapolated - expected) < 4 * errors)
    assert np.all(errors < [0.016, 0.012])


FIRST = 0.6


@partial(jax.jit, static_argnames=("size", "steps"))
def correlation_by_step(network, size, steps, shared):
    """Correlate the preactivations of two replicas of each seed, [SEEDS, steps], started at q* and FIRST."""
    deviation = jnp.sqrt(stationary_variance(network))

    def mixed(one, other, correlation):
        return correlation * one + jnp.sqrt(1 - correlation**2) * other

    def of_one(key):
        weights, bias, state, inputs = draw(network, size, key)
        _, _, other_state, other_inputs = draw(network, size, jax.random.fold_in(key, 1))

        def step(preactivations, drives):
            states = ACTIVATIONS[network.activation](preactivations)
            first, second = preactivations = states @ weights.T + bias[None] + drives
            return preactivations, first @ second / jnp.sqrt((first @ first) * (second @ second))

        start = deviation * jnp.stack([state, mixed(state, other_state, FIRST)])
        drives = jnp.stack([inputs, mixed(inputs, other_inputs, shared)], axis=1)[:steps]
        return jax.lax.scan(step, start, drives)[1]

    return jax.lax.map(of_one, jax.random.split(jax.random.key(1), SEEDS))


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("gain", [1.2, 3.0])
def test_two_replicas_correlate_as_the_map_says(gain, shared):
    """At every step on the way, and in the end at c*."""
    network, steps = RandomElman(gain, 0.2, 0.3), 30
    small, large = (correlation_by_step(network, size, steps, shared) for size in (SMALL, 2 * SMALL))
    extrapolated = 2 * np.mean(large, axis=0) - np.mean(small, axis=0)
    errors = np.sqrt((4 * np.var(large, axis=0, ddof=1) + np.var(small, axis=0, ddof=1)) / SEEDS)
    q, expected = stationary_variance(network), [FIRST]
    for _ in range(steps):
        expected.append(float(correlation_map(network, q, expected[-1], shared)))
    np.testing.assert_allclose(expected[-1], stationary_correlation(network, shared), rtol=0, atol=2e-3)
    assert np.all(np.abs(extrapolated - np.array(expected[1:])) < 4 * errors + 1e-12)
    assert np.max(errors) < 0.08


@pytest.mark.parametrize("bias_variance", [3.0, 1e4])
def test_mean_exponent_of_selu_in_closed_form(bias_variance):
    """E ln phi' = ln scale + (ln alpha) / 2 - sqrt(q / 2 pi), also where the slope itself is lost to rounding."""
    network = RandomElman(0.5, bias_variance, activation="selu")
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    of_slopes = math.log(scale) + math.log(alpha) / 2 - np.sqrt(stationary_variance(network) / (2 * np.pi))
    assert abs(mean_exponent(network) - (math.log(0.5) - 0.5 + of_slopes)) < 1e-12 * abs(of_slopes)


def test_a_memory_at_the_edge_has_no_end():
    assert memory_depth(RandomElman(math.sqrt(2), activation="relu")) == np.inf


def test_a_variance_that_is_no_number_stays_none():
    assert np.isnan(jax.jit(variance_map)(RandomElman(1.0, 0.1), jnp.nan))
